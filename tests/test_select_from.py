"""`select-from` without a model: formats of its file, what it refuses at once, another choice from the same work."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest
from click.testing import CliRunner, Result
from fake_stages import raw_rows

from lean_align.artifacts import read_jsonl
from lean_align.cli import main
from lean_align.errors import RecipeError, StaleStageError
from lean_align.shortcut import select_from_file
from lean_align.shortcut.row_files import write_rows

ROWS: list[dict[str, Any]] = [
    {"prompt": 'Say "a,b"\nand é', "answer": "007", "rank": 1, "score": 0.25, "chat": [{"role": "user", "n": 1}]},
    {"prompt": "b", "answer": "1", "rank": 2, "score": None, "mixed": 3, "empty": {}},
    {"prompt": "c", "answer": "2", "rank": 3, "score": 0.5, "mixed": "x", "big": 2**70},
]
COLUMNS = ("prompt", "answer", "rank", "score", "chat", "mixed", "empty", "big")
FULL = [{key: row.get(key) for key in COLUMNS} for row in ROWS]
SETTINGS = {"gradients.second_seed": "false", "warmup.steps": "2"}


@pytest.mark.parametrize("name", ["x.jsonl", "x.json", "x.parquet", "x.csv", "x.tsv", "new/X.JSONL"])
def test_rows_are_written_as_the_ending_says(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    write_rows(path, ROWS)
    assert [file.name for file in path.parent.iterdir()] == [path.name]  # nothing partial is left
    if path.suffix.lower() == ".jsonl":
        assert [json.loads(line) for line in path.read_text("utf-8").splitlines()] == ROWS
    elif path.suffix == ".json":
        assert json.loads(path.read_text("utf-8")) == ROWS
    elif path.suffix == ".parquet":
        found = pyarrow.parquet.read_table(path).to_pylist()
        texts = [{"mixed": None, "empty": None, "big": None}, {"mixed": "3", "empty": "{}", "big": None}]
        texts.append({"mixed": "x", "empty": None, "big": str(2**70)})  # no type holds all of a column
        assert found == [row | text for row, text in zip(FULL, texts)]
    else:
        with path.open(encoding="utf-8", newline="") as file:
            head, *found = csv.reader(file, delimiter="," if path.suffix == ".csv" else "\t")
        assert head == list(COLUMNS)
        assert found[0] == [ROWS[0]["prompt"], "007", "1", "0.25", '[{"role": "user", "n": 1}]', "", "", ""]
        assert found[1][3:7] == ["", "", "3", "{}"]


@pytest.fixture
def data(tmp_path: Path) -> Path:
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in raw_rows()))
    return path


def select_from(data: Path, n: int, output: Path, *more: str) -> Result:
    sets = [word for pair in SETTINGS.items() for word in ("--set", "=".join(pair))]
    return CliRunner().invoke(
        main, ["select-from", str(data), "--model", "demo", f"-n{n}", "-o", str(output), *sets, *more]
    )


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("x.txt", "expected a name that ends in .jsonl, .json, .parquet, .csv, .tsv"),
        ("x", "the ending is the format"),
        ("mine.jsonl/x.jsonl", "which is a file"),
        ("mine.jsonl", "it would be lost"),
    ],
)
def test_an_output_that_could_not_be_written_is_refused_before_anything_runs(
    output: str, message: str, data: Path, tmp_path: Path, fake_stages: list[tuple[str, str]]
) -> None:
    done = select_from(data, 1, tmp_path / output)
    assert done.exit_code == 2
    assert message in done.stderr
    assert fake_stages == []
    assert [path.name for path in tmp_path.iterdir()] == ["mine.jsonl"]


def test_another_choice_uses_what_was_sampled(data: Path, tmp_path: Path, fake_stages: list[tuple[str, str]]) -> None:
    output = tmp_path / "chosen.parquet"
    for n, more, ran in (
        (5, (), ["data", "warmup", "rollouts", "gradients", "scores", "selection"]),
        (5, (), []),
        (3, (), ["scores", "selection"]),
        (3, ("--set", "selection.method=random"), ["selection"]),
        (4, (), ["scores", "selection"]),
    ):
        fake_stages.clear()
        done = select_from(data, n, output, *more)
        assert done.exit_code == 0, done.stderr
        assert [stage for stage, _ in fake_stages] == ran
        assert json.loads(done.stdout)["n"] == n
        rows = read_jsonl(tmp_path / "chosen.parquet.run" / "selection" / "selected.jsonl")
        assert pyarrow.parquet.read_table(output).to_pylist() == rows
        assert len(rows) == n


def test_what_was_sampled_from_another_recipe_is_refused_and_kept(
    data: Path, tmp_path: Path, fake_stages: list[tuple[str, str]]
) -> None:
    output = tmp_path / "chosen.jsonl"
    assert select_from(data, 5, output).exit_code == 0
    done = select_from(data, 4, output, "--set", "rollouts.temperature=0.5")
    assert done.exit_code == 1
    assert "rollouts.temperature: 1.0 -> 0.5" in done.stderr
    assert (tmp_path / "chosen.jsonl.run" / "selection" / "manifest.json").exists()


def test_a_run_that_has_been_trained_keeps_its_choice(
    data: Path, tmp_path: Path, fake_stages: list[tuple[str, str]]
) -> None:
    assert select_from(data, 5, tmp_path / "a.jsonl").exit_code == 0
    (tmp_path / "a.jsonl.run" / "training.partial").mkdir()
    with pytest.raises(StaleStageError, match=r"selection\.n: 5 -> 4"):
        select_from_file(data, "demo", 4, tmp_path / "a.jsonl", overrides=SETTINGS)


def test_a_format_that_is_not_known_is_an_error_of_python_too(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="the ending is the format"):
        write_rows(tmp_path / "x.xlsx", ROWS)
