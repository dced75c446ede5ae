"""What select-from writes of the chosen prompts, and the recipe that it runs."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from lean_align.artifacts import write_json, write_jsonl
from lean_align.contamination import find_contamination
from lean_align.data import load_rows, prepare_prompts
from lean_align.errors import DataError, RecipeError
from lean_align.recipe import Recipe, load_recipe
from lean_align.shortcut import choice
from lean_align.shortcut.chosen_rows import chosen_rows, plain
from lean_align.verify import parse_gold

ROWS: list[dict[str, Any]] = [
    {"id": 7, "question": "1 + 1?", "answer": "so\n#### 2", "level": {"grade": 1}},
    {"id": 8, "prompt_id": "mine-8", "prompt": [{"role": "user", "content": "2 + 2?"}], "answer": "4", "score": "easy"},
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n" + "".join(json.dumps(row) + "\n" for row in [ROWS[0], ROWS[0], ROWS[1]]))
    return path


def selected(folder: Path, source: Path) -> list[dict[str, Any]]:
    rows = load_rows(load_recipe("demo", {"data.train_path": str(source)}).data, "train")
    found = prepare_prompts(rows, "train", str(source), parse_gold, lambda prompt: True)
    chosen = [
        {"prompt": p.prompt, "answer": p.answer, "prompt_id": p.prompt_id, "score": 0.5, "rank": rank}
        for rank, p in enumerate(reversed(found.prompts), 1)
    ]
    write_jsonl(folder / "selected.jsonl", chosen)
    return chosen


def test_own_ids_and_columns_are_kept(tmp_path: Path, source: Path) -> None:
    selected(tmp_path, source)
    recipe = load_recipe("demo", {"data.train_path": str(source)})
    best, second = chosen_rows(recipe, tmp_path / "selected.jsonl")
    assert second == {
        "prompt": "1 + 1?",
        "answer": "2",
        "prompt_id": "train-000000",
        "score": 0.5,
        "rank": 2,
        "id": 7,
        "question": "1 + 1?",
        "own_answer": "so\n#### 2",
        "level": {"grade": 1},
    }
    assert (best["prompt_id"], best["run_prompt_id"], best["id"]) == ("mine-8", "train-000001", 8)
    assert (best["prompt"], best["own_prompt"]) == ("2 + 2?", ROWS[1]["prompt"])
    assert (best["score"], best["own_score"]) == (0.5, "easy")


def test_a_file_that_has_lost_its_rows_is_refused(tmp_path: Path, source: Path) -> None:
    selected(tmp_path, source)
    source.write_text(json.dumps(ROWS[0]) + "\n")
    with pytest.raises(DataError, match="has changed since its prompts were chosen"):
        chosen_rows(load_recipe("demo", {"data.train_path": str(source)}), tmp_path / "selected.jsonl")


def test_values_that_json_lacks_are_written() -> None:
    import datetime

    found = plain({1: Decimal("0.50"), "b": b"x", "d": datetime.date(2026, 11, 29), "n": float("nan"), "s": "\ud800"})
    assert json.dumps(found, allow_nan=False)
    assert (found["1"], found["d"], found["n"], found["s"]) == ("0.50", "2026-11-29", None, "?")


def run_in_place(monkeypatch: pytest.MonkeyPatch, source: Path) -> list[Recipe]:
    recipes: list[Recipe] = []

    def run(recipe: Recipe, run_dir: Path, stop_after: str) -> None:
        recipes.append(recipe)
        (run_dir / "selection").mkdir(parents=True)
        selected(run_dir / "selection", source)
        write_json(run_dir / "selection" / "manifest.json", {"counts": {"n": 2}})

    monkeypatch.setattr(choice, "run", run)
    return recipes


def test_select_from_compares_the_prompts_with_no_part_of_themselves(
    tmp_path: Path, source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The recipe needs a held-out set that nothing is asked of: one generated problem, and not the prompts' own."""
    recipes = run_in_place(monkeypatch, source)
    choice.select_from_file(source, "demo", 2, tmp_path / "out.jsonl")
    [recipe] = recipes
    rows = load_rows(recipe.data, "train")
    train = prepare_prompts(rows, "train", "x", parse_gold, lambda prompt: True).prompts
    test = prepare_prompts(load_rows(recipe.data, "test"), "test", "x", parse_gold, lambda prompt: True).prompts
    assert len(test) == 1
    assert find_contamination(train, {"test": test}).pairs == ()
    assert [json.loads(line)["id"] for line in (tmp_path / "out.jsonl").read_text().splitlines()] == [8, 7]


def test_the_output_is_no_shard_of_what_is_read(tmp_path: Path, source: Path) -> None:
    with pytest.raises(RecipeError, match="inside the folder that is read"):
        choice.select_from_file(tmp_path, "demo", 1, tmp_path / "out.jsonl")
    assert [path.name for path in tmp_path.iterdir()] == [source.name]


@pytest.mark.parametrize("name", ["my rows.jsonl", "a\nb.jsonl", "x" * 200 + ".jsonl", "a\\b.jsonl", "日本.jsonl"])
def test_a_file_of_any_name_can_be_chosen_from(
    tmp_path: Path, source: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = source.rename(tmp_path / name)
    run_in_place(monkeypatch, path)
    choice.select_from_file(path, "demo", 2, tmp_path / "out.jsonl")
    assert (tmp_path / "out.jsonl").exists()
