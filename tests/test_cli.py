"""The command line in this process: how it lists commands, what it prints for people and programs, how it fails."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from lean_align.artifacts import safe_name
from lean_align.cli import common, main
from lean_align.cli.groups import DEBUG, EVERYDAY
from lean_align.errors import REASON_FILE, RecipeError, StageError
from lean_align.report import Summary, evaluation_lines

COST = {"wall_seconds": 12.0, "peak_rss_bytes": 2**30, "peak_vram_bytes": None}
SUMMARY: dict[str, Any] = {
    "recipe": "demo",
    "seed": 3,
    "selection": {"method": "learnalign", "n": 64, "pool_size": 256},
    "benchmark": "demo",
    "accuracy": {
        "base": {"correct": 310, "n": 500, "accuracy": 0.62, "interval": [0.577, 0.661]},
        "trained": {"correct": 380, "n": 500, "accuracy": 0.76, "interval": [0.721, 0.795]},
        "difference": {"difference": 0.14, "interval": [0.1, 0.18], "wins": 90, "losses": 20, "p_value": 0.0},
    },
    "benchmarks": {},
    "mean": None,
    "rollouts": None,
    "stages": {"data": COST, "rollouts": COST | {"wall_seconds": 100.0, "generated_tokens": 12345}},
    "total_wall_seconds": 112.0,
    "peak_rss_bytes": 2**30,
}


def invoke(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is printed is read by a person."""
    monkeypatch.setattr(common, "on_terminal", lambda: True)


def planted(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    """`lean-align run` meets an error."""

    def run(*given: Any) -> None:
        raise error

    monkeypatch.setattr("lean_align.stages.run", run)


def test_everyday_commands_come_before_the_stages() -> None:
    text = invoke("--help").stdout
    places = [text.index(f"\n  {name} ") for name in main.list_commands(click.Context(main))]
    assert places == sorted(places)
    assert set(EVERYDAY) < set(main.commands)
    assert text.index("\n  bench ") < text.index("Stages of a run:") < text.index("\n  prepare ")
    assert "the same command continues a run." in " ".join(text.split())  # whole sentences


@pytest.mark.parametrize("name", sorted(main.list_commands(None)))
def test_every_command_has_an_example(name: str) -> None:
    assert f"Example:\n\n      lean-align {name} " in invoke(name, "--help").stdout.replace(
        f"lean-align {name}\n", f"lean-align {name} \n"
    )


def test_a_run_ends_with_a_table_for_people_and_with_json_for_programs(
    monkeypatch: pytest.MonkeyPatch, terminal: None, tmp_path: Path
) -> None:
    monkeypatch.setattr("lean_align.stages.run", lambda *given: SUMMARY)
    text = invoke("run", "demo", "--run-dir", tmp_path / "r").stdout
    for part in ("LearnAlign chose 64 of 256 prompts, seed 3", "62.0 [57.7, 66.1]", "76.0 [72.1, 79.5]"):
        assert part in text
    for part in ("+14.0 [+10.0, +18.0]", "p < 0.001", "1 min 40 s", "12,345", "1.0 GiB", "1 min 52 s"):
        assert part in text
    assert text.endswith(f"report: {tmp_path / 'r' / 'report' / 'index.html'}\n")
    assert max(map(len, text.splitlines()[:-1])) <= 100
    assert json.loads(invoke("run", "demo", "--json").stdout) == SUMMARY
    monkeypatch.setattr(common, "on_terminal", lambda: False)
    assert json.loads(invoke("run", "demo").stdout) == SUMMARY


def test_a_run_on_benchmarks_and_a_card_has_its_rows_and_columns(
    monkeypatch: pytest.MonkeyPatch, terminal: None
) -> None:
    score = {"value": 0.5, "interval": [0.4, 0.6]}
    tree = evaluation(("base", "trained"))["benchmarks"]["gsm8k"]
    mean = {"base": score, "trained": score, "difference": None}
    more = {"accuracy": None, "benchmarks": {"gsm8k": tree, "crux": tree | {"title": "CRUX"}}, "mean": mean}
    stages = {"rollouts": COST | {"peak_vram_bytes": 3 * 2**30}}
    monkeypatch.setattr("lean_align.stages.run", lambda *given: SUMMARY | more | {"stages": stages})
    text = invoke("run", "demo").stdout
    assert [line.split()[0] for line in text.splitlines() if "50.0 [40.0, 60.0]" in line] == ["GSM8K", "CRUX", "Mean"]
    assert "GPU memory" in text
    assert "3.0 GiB" in text


def test_a_run_that_stops_early_says_what_is_finished(monkeypatch: pytest.MonkeyPatch, terminal: None) -> None:
    monkeypatch.setattr("lean_align.stages.run", lambda *given: {"run_dir": "runs/demo", "finished": ["data"]})
    assert invoke("run", "demo", "--stop-after", "prepare").stdout == "finished: data\nrun folder: runs/demo\n"


def evaluation(models: tuple[str, ...], **more: Any) -> dict[str, Any]:
    """summary.json of an evaluation on GSM8K."""
    decoding = {"num_samples": 1, "temperature": 0.0, "top_p": 1.0, "max_new_tokens": 64}
    score = {"metric": "pass@1", "value": 0.5, "interval": [0.4, 0.6], "interval_kind": "Wilson", "n": 100}
    score |= {"num_samples": 1, "n_correct": 50, "n_truncated": 30, "n_unanswered": 0, "mean_tokens": 9.0}
    score |= {"pass_at_k": {"1": 0.5}}
    tree = {"title": "GSM8K", "n": 100, "decoding": decoding, "models": dict.fromkeys(models, score)}
    return {"benchmarks": {"gsm8k": tree | {"difference": None} | more}, "mean": None, "model": {"name": "demo"}}


def test_an_evaluation_is_a_table_for_people_markdown_when_asked_and_json_for_programs(
    monkeypatch: pytest.MonkeyPatch, terminal: None
) -> None:
    found = SimpleNamespace(summary=evaluation(("demo",)), table=SimpleNamespace(markdown=lambda: "| Method |"))
    monkeypatch.setattr("lean_align.evaluation.evaluate_model", lambda *given: found)
    head, _, row, *notes = invoke("evaluate", "demo").stdout.splitlines()
    assert head.split() == ["%", "right", "[95", "%]", "problems", "metric", "demo", "cut", "off"]
    assert row.split() == ["GSM8K", "100", "pass@1", "50.0", "[40.0,", "60.0]", "30.0", "%"]
    assert notes[0].startswith("- Completions that were cut off at the token limit: GSM8K, demo 30.0 %.")
    assert invoke("evaluate", "demo", "--markdown").stdout == "| Method |\n"
    assert invoke("evaluate", "demo", "--markdown", "--json").exit_code == 2
    monkeypatch.setattr(common, "on_terminal", lambda: False)
    assert json.loads(invoke("evaluate", "demo").stdout) == found.summary


def test_an_evaluation_against_another_shows_the_difference() -> None:
    difference = {"difference": -0.1, "interval": [-0.2, 0.0], "wins": 1, "losses": 2, "p_value": 0.04}
    head, _, row, *_ = evaluation_lines(Summary.from_json(evaluation(("a", "b"), difference=difference)))
    assert head.split()[6:] == ["a", "b", "cut", "off", "difference"]
    assert row.endswith("\N{MINUS SIGN}10.0 [\N{MINUS SIGN}20.0, 0.0]  p = 0.040")


@pytest.mark.parametrize(
    "words",
    [
        ("run", "demo", "--run-dir", ""),
        ("results", ""),
        ("report", ""),
        ("evaluate", "demo", "-o", ""),
        ("select-from", "", "--model", "demo", "-n", "1", "-o", "x.jsonl"),
        ("compare", "demo", "--run-dir", ""),
    ],
)
def test_an_empty_path_is_not_the_working_directory(words: tuple[str, ...]) -> None:
    done = invoke(*words)
    assert done.exit_code == 2
    assert "it is empty; expected a path" in done.stderr


@pytest.mark.parametrize(
    ("file", "message"),
    [("adapter_config.json", "is an adapter, not a model"), ("comparison.yaml", "is a comparison, not a run")],
)
def test_what_is_no_model_is_not_evaluated_as_one(file: str, message: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("{}")
    done = invoke("evaluate", tmp_path, "--benchmarks", "gsm8k")
    assert done.exit_code == 1
    assert message in done.stderr


def test_a_run_is_no_comparison(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("name: demo\n")
    done = invoke("compare", "demo", "--run-dir", tmp_path)
    assert done.exit_code == 1
    assert "is a run, not a comparison" in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["recipe.yaml"]


def test_a_file_that_cannot_be_written_is_refused_before_anything_is_measured(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("lean_align.machine.throughput.measure_throughput", lambda *given: pytest.fail("measured"))
    assert "which is a file" in invoke("bench", "demo", "-o", tmp_path / "file" / "x.json").stderr


def test_an_empty_list_is_wrong_usage() -> None:
    for words in (("evaluate", "demo", "--benchmarks", ","), ("compare", "demo", "--methods", "")):
        done = invoke(*words)
        assert done.exit_code == 2
        assert "names nothing" in done.stderr


def test_recipes_are_a_list_for_people(terminal: None) -> None:
    lines = invoke("recipes").stdout.splitlines()
    assert any(line.startswith("demo ") for line in lines)
    assert set(json.loads(invoke("recipes", "--json").stdout)) == {line.split()[0] for line in lines}


@pytest.mark.parametrize(
    ("error", "status", "message"),
    [
        (StageError("no memory"), 1, "Error: no memory\n"),
        (RecipeError("no such key"), 2, "Error: no such key\n"),
        (PermissionError(13, "Permission denied", "runs/demo"), 1, "Error: Permission denied: runs/demo\n"),
        (ValueError("odd"), 1, "Error: ValueError in unknown place: odd\nThis error was not expected."),
    ],
)
def test_an_error_is_a_message_and_a_status(
    error: Exception, status: int, message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    planted(monkeypatch, error)
    monkeypatch.setattr(traceback_of(), "extract_tb", lambda trace: [])
    monkeypatch.setenv(REASON_FILE, str(tmp_path / "reason"))
    done = invoke("run", "demo")
    assert done.exit_code == status
    assert done.stderr.startswith(message)
    assert (tmp_path / "reason").read_text() == done.stderr.removeprefix("Error: ").rstrip("\n")


def traceback_of() -> Any:
    from lean_align.cli import groups

    return groups.traceback


def test_an_error_that_nobody_foresaw_names_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, ZeroDivisionError("division by zero"))
    assert "ZeroDivisionError in lean_align/cli/running.py, line " in invoke("run", "demo").stderr


@pytest.mark.parametrize("words", [("--debug", "run", "demo"), ("run", "demo", "--debug")])
def test_debug_shows_tracebacks_wherever_it_stands(words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """The processes of stages get it by the environment, which is as it was afterwards."""
    seen = []

    def run(*given: Any) -> None:
        seen.append(os.environ.get(DEBUG))
        raise StageError("no memory")

    monkeypatch.setattr("lean_align.stages.run", run)
    assert isinstance(invoke(*words).exception, StageError)
    assert seen == ["1"]
    assert DEBUG not in os.environ


def test_an_interruption_says_in_one_line_how_to_continue(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, KeyboardInterrupt())
    done = invoke("run", "demo", "--run-dir", "my runs/a")
    assert done.exit_code == 130
    assert done.stderr == (
        "Interrupted. What is finished is kept; to continue: lean-align run demo --run-dir 'my runs/a'\n"
    )
    monkeypatch.setenv(REASON_FILE, "reason")  # a stage of a run: the run says it
    assert (invoke("run", "demo").exit_code, invoke("run", "demo").stderr) == (130, "")


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("gsm8k-cpu", "gsm8k-cpu"),
        ("my run.v2", "my run.v2"),
        ("../../evil", "__.._evil"),
        ("..", "_"),
        ("", "_"),
        ("/etc/passwd", "_etc_passwd"),
        ("a\nb\\c", "a_b_c"),
        ("é" * 200, "é" * 100),
    ],
)
def test_a_name_is_one_file_below_its_folder(name: str, safe: str) -> None:
    assert safe_name(name) == safe
    assert len(Path("runs", safe).parts) == 2
