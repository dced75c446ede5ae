"""Unsloth's real trainer: the losses of trl's, a plain adapter, resumed after a kill; and a whole run beside vLLM."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest

from tests.stack_children import command_line, environment, in_child, lean_align

pytestmark = pytest.mark.stack
SETTINGS = {
    "data.demo_train": 32,
    "data.demo_test": 8,
    "selection.n": 8,
    "warmup.n_prompts": 16,
    "warmup.steps": 5,
    "warmup.beta": 0.04,  # so that the loss is more than the advantages' zero sum
    "warmup.save_steps": 1,
}
UNSLOTH = {"warmup.backend": "unsloth"}


def warm_up(folder: Path, settings: dict, recipe: str = "demo") -> subprocess.CompletedProcess[str]:
    done = lean_align("run", recipe, "--run-dir", folder, "--stop-after", "warmup", settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    return done


def log_of(folder: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (folder / "warmup/log.jsonl").read_text().splitlines()]


def assert_same_losses(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    """Equal rewards show equal completions; then losses and gradient norms are equal but for rounding."""
    assert [row["reward"] for row in ours] == [row["reward"] for row in theirs]
    assert max(row["grad_norm"] for row in ours) > 1e-3
    for key, absolute in (("loss", 1e-5), ("grad_norm", 1e-5), ("kl", 1e-5)):
        a, b = ([row[key] for row in rows] for rows in (ours, theirs))
        assert np.allclose(a, b, rtol=5e-3, atol=absolute), key


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """The demo's warm-up in 4-bit, by trl and by Unsloth."""
    folder = tmp_path_factory.mktemp("unsloth")
    warm_up(folder / "trl", SETTINGS | {"warmup.backend": "trl"})
    done = warm_up(folder / "unsloth", SETTINGS | UNSLOTH)
    (folder / "log.txt").write_text(done.stderr)
    return folder


def test_the_losses_are_those_of_trl_on_the_same_completions(runs, capfd):
    ours, theirs = log_of(runs / "unsloth"), log_of(runs / "trl")
    assert len(ours) == SETTINGS["warmup.steps"]
    assert max(abs(row["loss"]) for row in ours) > 1e-5
    assert_same_losses(ours, theirs)
    banner = next(line for line in (runs / "log.txt").read_text().splitlines() if line.startswith("Unsloth "))
    with capfd.disabled():
        print(f"\n{banner[:160]}")


def test_the_manifest_says_which_backend_trained(runs):
    for name, expected in (("trl", {"backend": "trl"}), ("unsloth", {"backend": "unsloth", "fast_inference": False})):
        counts = json.loads((runs / name / "warmup/manifest.json").read_text())["counts"]
        assert expected.items() <= counts["backend"].items()


def test_stock_peft_loads_the_adapter_to_the_same_logits(runs):
    found = {
        backend: np.array(in_child("logits", run_dir=str(runs / "unsloth"), stage="warmup", backend=backend)[0])
        for backend in ("unsloth", "stock", "base")
    }
    assert np.abs(found["unsloth"] - found["stock"]).max() < 1e-4
    assert np.abs(found["base"] - found["stock"]).max() > 0.01


def killed_after_a_checkpoint(folder, settings):
    """Whether the warm-up was cut off: killed once its first checkpoint is whole, and not ended before."""
    command = command_line("run", "demo", "--run-dir", folder, "--stop-after", "warmup", settings=settings)
    mark = folder / "warmup.partial/checkpoints/checkpoint-2/complete"
    with subprocess.Popen(command, stderr=subprocess.DEVNULL, env=environment(), start_new_session=True) as process:
        while process.poll() is None and not mark.exists():
            time.sleep(0.05)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    return not (folder / "warmup").exists()


def test_a_killed_training_goes_on_from_its_checkpoint(runs, tmp_path):
    folder = tmp_path / "killed"
    shutil.copytree(runs / "unsloth", folder, ignore=shutil.ignore_patterns("warmup"))
    settings = SETTINGS | UNSLOTH
    while not killed_after_a_checkpoint(folder, settings):
        shutil.rmtree(folder / "warmup")
    assert (folder / "warmup.partial/checkpoints/checkpoint-2/complete").exists()
    warm_up(folder, settings)
    assert log_of(folder) == log_of(runs / "unsloth")
    first, second = ((f / "warmup/adapter/adapter_model.safetensors").read_bytes() for f in (folder, runs / "unsloth"))
    assert first == second


def test_smollm2_trains_in_4_bit_with_the_losses_of_trl(smollm2, tmp_path):
    """Sums that a 135M model gets right now and then, in float32, so that both draw the same completions."""
    rows = [{"question": f"What is {a} plus {a + 2}?", "answer": str(2 * a + 2)} for a in range(3, 19)]
    data = tmp_path / "sums.jsonl"
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "model.name": str(smollm2),
        "model.quantization": "nf4",
        "model.dtype": "float32",
        "data.train_path": str(data),
        "data.test_path": str(data),
        "data.config": None,
        "data.limit": 8,
        "data.test_limit": 4,
        "selection.n": 4,
        "rollouts.max_new_tokens": 24,
        "rollouts.num_generations": 4,
        "warmup.n_prompts": 8,
        "warmup.steps": 3,
        "warmup.prompts_per_step": 4,
        "warmup.micro_batch": 8,
        "warmup.learning_rate": 1e-3,
        "warmup.beta": 0.04,
    }
    warm_up(tmp_path / "trl", settings | {"warmup.backend": "trl"}, "gsm8k-cpu")
    warm_up(tmp_path / "unsloth", settings | UNSLOTH, "gsm8k-cpu")
    assert_same_losses(log_of(tmp_path / "unsloth"), log_of(tmp_path / "trl"))


def test_a_whole_run_with_both(tmp_path, capfd):
    """`lean-align run demo` with Unsloth and vLLM: every stage, and a better model."""
    folder = tmp_path / "run"
    settings = {"training.backend": "unsloth", "warmup.backend": "unsloth", "rollouts.engine": "vllm"}
    done = lean_align("run", "demo", "--run-dir", folder, settings=settings)
    assert done.returncode == 0, done.stderr[-3000:]
    summary = json.loads((folder / "summary.json").read_text())
    counts = {
        stage: json.loads((folder / stage / "manifest.json").read_text())["counts"]
        for stage in ("warmup", "rollouts", "training", "evaluation")
    }
    assert {counts[stage]["backend"]["backend"] for stage in ("warmup", "training")} == {"unsloth"}
    assert {counts[stage]["engine"]["engine"] for stage in ("rollouts", "evaluation")} == {"vllm"}
    accuracy = summary["accuracy"]
    assert accuracy["difference"]["interval"][0] > 0
    assert (folder / "report/index.html").exists()
    with capfd.disabled():
        base, trained = accuracy["base"]["accuracy"], accuracy["trained"]["accuracy"]
        print(f"\nwhole run with Unsloth and vLLM: {base:.3f} -> {trained:.3f} in {summary['total_wall_seconds']} s")


def test_bench_measures_both_ways_of_both(tmp_path):
    output = tmp_path / "figures.json"
    small = {"rollouts.max_new_tokens": 24, "training.prompts_per_step": 4, "training.micro_batch": 16}
    done = lean_align("bench", "demo", "--prompts", "4", "--steps", "2", "-o", output, settings=small)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(output.read_text())
    assert [row.get("note") for row in found["rows"]] == [None] * 6
    assert set(found["ratios"]) == {"vllm / transformers", "lean / trl", "unsloth / trl", "unsloth / lean"}
    assert all(ratio > 0 for ratio in found["ratios"].values())
    assert [row["chosen"]["version"] for row in found["rows"] if row["way"] == "unsloth"] == ["2026.10.9"]
