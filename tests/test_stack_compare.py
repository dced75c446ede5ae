"""`lean-align compare` with real stages on the embedded model: every kind of stage, rounds, a kill, and the report."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.stack

METHODS = "learnalign,ifd,selectit,feature-similarity,limr,learnalign+selection.rounds=2"
SEQUENTIAL = "learnalign-diverse+rollouts.allocation=sequential"
SMALL = {
    "selection.n": 10,
    "selection.curve_epochs": 1,
    "data.demo_train": 32,
    "data.demo_test": 40,
    "warmup.steps": 4,
    "training.steps": 2,
    "training.save_steps": 1,
    "gradients.second_seed": "false",
}


def command(folder: Path) -> list[str]:
    settings = [word for key, value in SMALL.items() for word in ("--set", f"{key}={value}")]
    methods = ["--methods", f"{METHODS},{SEQUENTIAL}", "--seeds", "1", "--run-dir", str(folder)]
    return [sys.executable, "-m", "lean_align", "compare", "demo", *methods, *settings, "--json"]


def killed_when(path: Path, folder: Path) -> None:
    """Begin the comparison and end it without warning as soon as `path` is there."""
    running = subprocess.Popen(command(folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not path.exists() and running.poll() is None:
        time.sleep(0.2)
    assert running.poll() is None, "it ended before it could be killed"
    running.send_signal(signal.SIGKILL)
    running.wait()


def test_a_comparison_that_was_killed_goes_on_to_its_end(tmp_path: Path) -> None:
    killed_when(tmp_path / "seed-0" / "ifd@10" / "training.partial" / "checkpoints", tmp_path)
    first = tmp_path / "seed-0" / "learnalign@10"
    before = (first / "training" / "manifest.json").read_bytes()
    done = subprocess.run(command(tmp_path), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout)
    assert (found["n_done"], found["n_cells"], found["faults"]) == (7, 7, [])
    assert (first / "training" / "manifest.json").read_bytes() == before
    assert (tmp_path / "compare" / "index.html").exists()
    costs = {method["label"]: method["cost"] for method in found["methods"]}
    rounds, sequential = "learnalign@10+selection.rounds=2", SEQUENTIAL.replace("+", "@10+")
    assert costs[rounds]["generated_tokens"] > costs["learnalign@10"]["generated_tokens"]
    assert costs[sequential]["generated_tokens"] < costs["learnalign@10"]["generated_tokens"]
    curves = json.loads((tmp_path / "seed-0" / "limr@10" / "reward_curves" / "manifest.json").read_text())
    assert costs["limr@10"]["generated_tokens"] == curves["counts"]["generated_tokens"]
    again = tmp_path / "seed-0" / rounds / "training" / "rounds" / "2" / "selection" / "selected.jsonl"
    assert len(again.read_text().splitlines()) == 10
