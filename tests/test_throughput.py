"""The figures of `lean-align bench`: its table, its ratios, and what it writes; the stack tests run it."""

from __future__ import annotations

import json
import subprocess

import pytest
from click.testing import CliRunner

from lean_align.cli import main
from lean_align.errors import StageError
from lean_align.grpo import read_rewards
from lean_align.machine import pieces
from lean_align.machine import throughput as measuring
from lean_align.machine.throughput import Throughput
from lean_align.recipe import load_recipe
from lean_align.stages import run

MACHINE = {"device": "cpu", "versions": {}, "host": {}}
SIZES = {"n_prompts": 4, "steps": 3, "max_new_tokens": 64, "num_generations": 8}
ABOUT = {"machine": MACHINE, "recipe": "demo", "model": "demo", "settings": {}, "date": "", "command": "", **SIZES}
PEAKS = {"load_seconds": 1.0, "peak_rss_bytes": 2**30, "peak_vram_bytes": None}
ROWS = (
    {"work": "training", "way": "lean", "steps_per_hour": 250.0, **PEAKS},
    {"work": "training", "way": "trl", "steps_per_hour": 100.0, **PEAKS},
    {"work": "training", "way": "unsloth", "note": "not installed"},
    {"work": "rollouts", "way": "transformers", "completion_tokens_per_second": 150.0, **PEAKS},
    {"work": "rollouts", "way": "vllm", "completion_tokens_per_second": 300.0, **PEAKS, "peak_vram_bytes": 2**31},
    {"work": "gradients", "way": "", "tokens_per_second": 50.0, **PEAKS},
)


def test_ratios_are_of_ways_that_both_ran():
    found = Throughput(**ABOUT, turns=1, rows=ROWS)
    assert found.ratios() == {"vllm / transformers": 2.0, "lean / trl": 2.5}
    assert found.as_json()["ratios"] == found.ratios()


def test_backends_are_compared_two_by_two():
    rows = (*ROWS[:2], {"work": "training", "way": "unsloth", "steps_per_hour": 125.0, **PEAKS})
    found = Throughput(**ABOUT, turns=1, rows=rows)
    assert found.ratios() == {"lean / trl": 2.5, "unsloth / trl": 1.25, "unsloth / lean": 0.5}
    assert "lean / trl: 2.50 x as fast" in found.lines()


def test_the_table_names_rates_units_peaks_and_what_did_not_run():
    text = "\n".join(Throughput(**ABOUT, turns=1, rows=ROWS).lines())
    assert "100.0 steps an hour" in text
    assert "300.0 tokens a second peak RAM 1.0 GiB, VRAM 2.0 GiB" in text
    assert "unsloth       not installed" in text


@pytest.fixture
def children(monkeypatch):
    """The pieces' processes, replaced: the decode loop fails, the others print their row last."""
    rates = {"training": "steps_per_hour", "rollouts": "completion_tokens_per_second", "gradients": "tokens_per_second"}

    def child(command, **options):
        _, _, _, work, arguments = command
        assert set(json.loads(arguments)) == {"run_dir", "way"} | ({"steps"} if work == "training" else set())
        if json.loads(arguments)["way"] == "transformers":
            return subprocess.CompletedProcess(command, 1, "", "Traceback\nMemoryError: too much\n\n")
        return subprocess.CompletedProcess(command, 0, f"a library's word\n{json.dumps({rates[work]: 5.0, **PEAKS})}\n")

    monkeypatch.setattr(measuring.subprocess, "run", child)
    monkeypatch.setattr(measuring, "find_spec", lambda name: None)
    monkeypatch.setattr(measuring, "run", lambda *arguments, **options: {})
    monkeypatch.setattr(measuring, "read_json", lambda path: MACHINE)


def test_trainings_can_be_timed_alone(children, tmp_path):
    output = tmp_path / "figures.json"
    done = CliRunner().invoke(main, ["bench", "demo", "--training-only", "-o", str(output)])
    assert done.exit_code == 0, done.output
    ways = [(row["work"], row["way"]) for row in json.loads(output.read_text())["rows"]]
    assert ways == [("training", way) for way in ("lean", "trl", "unsloth")]


def test_the_command_prints_and_writes_every_way_and_a_way_that_fails_is_a_row(children, tmp_path):
    output = tmp_path / "figures.json"
    done = CliRunner().invoke(main, ["bench", "demo", "--prompts", "4", "-o", str(output)])
    assert done.exit_code == 0, done.output
    written = json.loads(output.read_text())
    notes = {(row["work"], row["way"]): row.get("note") for row in written["rows"]}
    assert notes == {
        ("training", "lean"): None,
        ("training", "trl"): None,
        ("training", "unsloth"): "not installed",
        ("rollouts", "transformers"): "failed: MemoryError: too much",
        ("rollouts", "vllm"): "not installed",
        ("gradients", ""): None,
    }
    assert "failed: MemoryError: too much" in done.output
    assert written["settings"] == {}
    assert (written["n_prompts"], written["turns"], written["max_new_tokens"]) == (4, 1, 64)


def test_turns_are_timed_one_after_the_other_and_the_table_shows_their_spread(children, monkeypatch, tmp_path):
    """Planted: the rates of each way are 1, 2, 6 in turn."""
    child, calls = measuring.subprocess.run, []

    def in_turn(command, **options):
        calls.append(command[3])
        done = child(command, **options)
        rate = (1.0, 2.0, 6.0)[calls.count(command[3]) - 1] if command[3] == "gradients" else 5.0
        return subprocess.CompletedProcess(command, done.returncode, done.stdout.replace("5.0", str(rate)), done.stderr)

    monkeypatch.setattr(measuring.subprocess, "run", in_turn)
    output = tmp_path / "figures.json"
    done = CliRunner().invoke(main, ["bench", "demo", "--turns", "3", "--set", "seed=4", "-o", str(output)])
    assert done.exit_code == 0, done.output
    assert calls == ["training", "training", "rollouts", "gradients"] * 3
    written = json.loads(output.read_text())
    gradients = next(row for row in written["rows"] if row["work"] == "gradients")
    assert (gradients["tokens_per_second"], gradients["rates"]) == (2.0, [1.0, 2.0, 6.0])
    assert "2.0 tokens a second (1.0 to 6.0) peak" in done.output
    assert written["settings"] == {"seed": "4"}


def test_a_recipe_that_cannot_be_prepared_says_that_nothing_was_measured(monkeypatch, tmp_path):
    def fail(*arguments, **options):
        raise StageError("the prepare stage failed. What was finished before is kept in /tmp/x.")

    monkeypatch.setattr(measuring, "run", fail)
    done = CliRunner().invoke(main, ["bench", "demo", "-o", str(tmp_path / "figures.json")])
    assert done.exit_code == 1
    assert "nothing was measured" in done.output
    assert "kept in" not in done.output
    assert not (tmp_path / "figures.json").exists()


def test_a_training_step_is_timed_with_a_gradient_of_every_group(tmp_path):
    settings = {"data.limit": 4, "data.test_limit": 1, "training.prompts_per_step": 2, "training.micro_batch": 16}
    recipe = load_recipe("demo", settings | {"selection.method": "full", "rollouts.max_new_tokens": 8})
    run(recipe, tmp_path / "run", stop_after="prepare")
    found = pieces.training(tmp_path / "run", "lean", 2)
    assert found["chosen"]["backend"] == "lean"
    assert found["steps_per_hour"] > 0
    rewards = read_rewards(tmp_path / "run" / "training-lean")
    assert [len(row["rewards"]) for row in rewards] == [2, 2]
    assert all(set(group) == {0.0, 1.0} for row in rewards for group in row["rewards"])
