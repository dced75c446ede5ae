"""Runs that version 0.1.0 made (`make_old_run.py`): finished stages are taken over, and the rest is made."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest
from forked import Done, command
from make_old_run import GOLDEN, SETTINGS

STAGES = ("data", "warmup", "rollouts", "gradients", "scores", "selection", "training", "evaluation", "report")


def unpacked(name: str, folder: Path) -> Path:
    """The run of an archive."""
    with tarfile.open(GOLDEN / f"{name}.tar.gz") as archive:
        archive.extractall(folder, filter="data")
    return folder / "run"


def continued(name: str, folder: Path) -> tuple[Path, Done]:
    """The run of an archive, and what the command that made it says today."""
    run_dir = unpacked(name, folder)
    sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
    return run_dir, command("run", "demo", "--run-dir", run_dir, *sets)


def finished_before(done: Done) -> list[str]:
    return [line.split(":")[0] for line in done.stderr.splitlines() if line.endswith(": already finished")]


@pytest.mark.slow
def test_a_run_of_before_gets_its_report(tmp_path: Path) -> None:
    run_dir, done = continued("old_run", tmp_path)
    assert done.returncode == 0, done.stderr
    assert finished_before(done) == [*STAGES[:-1]]
    summary = json.loads((run_dir / "summary.json").read_text())
    assert list(summary["stages"]) == [*STAGES[:-1]]
    assert summary["accuracy"]["trained"]["n"] == SETTINGS["data.demo_test"]
    assert (run_dir / "report" / "index.html").is_file()


@pytest.mark.slow
def test_half_a_run_of_before_is_finished(tmp_path: Path) -> None:
    """Its later stages are made from what the whole run's were, and choose the same prompts."""
    half, done = continued("old_half", tmp_path / "half")
    assert done.returncode == 0, done.stderr
    assert finished_before(done) == [*STAGES[:4]]
    whole = unpacked("old_run", tmp_path / "whole")
    for name in STAGES[:-1]:
        new, old = (json.loads((run_dir / name / "manifest.json").read_text()) for run_dir in (half, whole))
        assert list(new) == list(old)
        assert {**new["inputs"], "stages": [*new["inputs"]["stages"]]} == {
            **old["inputs"],
            "stages": [*old["inputs"]["stages"]],
        }
    new, old = (
        [json.loads(line)["prompt_id"] for line in (run_dir / "selection/selected.jsonl").read_text().splitlines()]
        for run_dir in (half, whole)
    )
    assert new == old
