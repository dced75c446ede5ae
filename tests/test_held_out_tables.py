"""`results` of ordinary runs, which have a held-out set and no benchmark; on files alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from lean_align.artifacts import write_json, write_jsonl, write_text
from lean_align.cli import main
from lean_align.recipe import dump_recipe, load_recipe
from lean_align.statistics import accuracy


def ordinary_run(folder: Path, trained: tuple[float, ...], seed: int = 0, question: str = "1+1?") -> Path:
    """A finished run's files, as far as tables read them: 4 problems, of which the base solves one."""
    ids = [f"test-{i}" for i in range(4)]
    for name in ("data", "evaluation/base", "evaluation/trained"):
        (folder / name).mkdir(parents=True)
    write_text(folder / "recipe.yaml", dump_recipe(load_recipe("demo", {"seed": seed})))
    write_jsonl(folder / "data/test.jsonl", [{"prompt_id": i, "prompt": question, "answer": "2"} for i in ids])
    for model, rewards in (("base", (1.0, 0.0, 0.0, 0.0)), ("trained", trained)):
        rows: list[dict[str, Any]] = [
            {
                "prompt_id": i,
                "index": 0,
                "completion": "The answer is 2.",
                "n_tokens": 5,
                "reward": r,
                "finished": r > 0,
            }
            for i, r in zip(ids, rewards)
        ]
        write_jsonl(folder / f"evaluation/{model}/demo.jsonl", rows)
    selection = {"method": "learnalign", "n": 16, "pool_size": 48}
    more = {"model": {"name": "demo"}, "seed": seed, "accuracy": {"base": {}}, "benchmarks": {}, "mean": None}
    write_json(folder / "summary.json", {"selection": selection, **more})
    return folder


def results(*folders: Path) -> str:
    done = CliRunner().invoke(main, ["results", *map(str, folders)])
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_a_run_without_benchmarks_gives_its_held_out_set(tmp_path: Path) -> None:
    text = results(ordinary_run(tmp_path / "a", (1.0, 1.0, 1.0, 0.0)))
    low, high = (100 * end for end in accuracy((1.0, 1.0, 1.0, 0.0)).interval)
    assert "demo (held out)[^held-out-demo]<br>n = 4; pass@1, greedy" in text
    assert f"| LearnAlign, 16 of 48 (ours) | 75.0 [{low:.1f}, {high:.1f}] |" in text
    assert "| *truncated:* base | 3 of 4 |" in text


def test_several_runs_are_told_apart_by_seed_or_folder(tmp_path: Path) -> None:
    rows = [(1.0, 1.0, 1.0, 0.0), (1.0, 1.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0)]
    runs = [ordinary_run(tmp_path / name, r, seed) for name, r, seed in zip("abc", rows, (0, 0, 1))]
    labels = re.findall(r"^\| ([^*|]+?) \|", results(*runs, runs[0]), re.MULTILINE)
    ours = "LearnAlign, 16 of 48 (ours)"
    assert labels == ["Method", "---", "base", f"{ours}, a", f"{ours}, b", ours]
    labels = re.findall(r"^\| ([^*|]+?) \|", results(runs[0], runs[2]), re.MULTILINE)
    assert labels[2:] == ["base", f"{ours}, seed 0", f"{ours}, seed 1"]


@pytest.mark.parametrize(
    ("summary", "message"),
    [
        (None, "has no summary.json"),
        ([], "not that of a run"),
        ({}, "on neither a benchmark"),
        ({"benchmarks": [1]}, "benchmarks of summary.json is of type list, expected an object"),
        ({"benchmarks": {"x": {"n": 3}}}, "x of summary.json has n; expected decoding, models too"),
    ],
)
def test_folders_without_results_are_refused(summary: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    if summary is not None:
        write_json(tmp_path / "b" / "summary.json", summary)
    assert message in refusal(tmp_path / "b")


def test_runs_on_other_problems_and_comparisons_share_no_table(tmp_path: Path) -> None:
    runs = [ordinary_run(tmp_path / q, (0.0,) * 4, question=q) for q in ("1+1?", "2+2?")]
    assert "differ on held-out-demo in source" in refusal(*runs)
    write_text(tmp_path / "comparison.yaml", "")
    assert "is a comparison, not a run" in refusal(tmp_path)


def refusal(*folders: Path) -> str:
    done = CliRunner().invoke(main, ["results", *map(str, folders)])
    assert done.exit_code == 1
    return done.stderr
