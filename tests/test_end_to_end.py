"""The real command on the embedded model: whole, killed in every stage, and met with bad input."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest

SMALL = {
    "data.demo_train": 24,
    "data.demo_test": 12,
    "rollouts.batch_size": 32,
    "rollouts.window": 64,
    "rollouts.max_new_tokens": 40,
    "warmup.n_prompts": 12,
    "warmup.steps": 2,
    "warmup.prompts_per_step": 4,
    "warmup.micro_batch": 16,
    "warmup.save_steps": 1,
    "gradients.proj_dim": 256,
    "selection.n": 6,
    "training.steps": 3,
    "training.prompts_per_step": 4,
    "training.micro_batch": 16,
    "training.save_steps": 1,
    "evaluation.batch_size": 4,
    "evaluation.window": 6,
}
STAGES = ("data", "warmup", "rollouts", "gradients", "scores", "selection", "training", "evaluation", "report")
MEASURED = ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes")


def command(run_dir: Path, *more: str, recipe: str = "demo", settings: dict | None = None) -> list[str]:
    sets = [part for key, value in {**SMALL, **(settings or {})}.items() for part in ("--set", f"{key}={value}")]
    return [sys.executable, "-m", "lean_align", "run", recipe, "--run-dir", str(run_dir), *sets, *more]


def run(run_dir: Path, *more: str, **options) -> subprocess.CompletedProcess:
    return subprocess.run(command(run_dir, *more, **options), capture_output=True, text=True)


def comparable(run_dir: Path) -> dict[str, object]:
    """Every file of a run, without what was measured."""
    files: dict[str, object] = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if not path.is_file() or name in (".lock", "report/index.html"):
            continue
        if name.endswith("manifest.json"):
            manifest = {k: v for k, v in json.loads(path.read_text()).items() if k not in MEASURED}
            manifest["outputs"].pop("index.html", None)
            files[name] = manifest
        elif name == "summary.json":
            summary = json.loads(path.read_text())
            files[name] = {k: v for k, v in summary.items() if k not in ("stages", "total_wall_seconds", *MEASURED)}
        else:
            files[name] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    done = run(run_dir)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((run_dir / "summary.json").read_text())
    return run_dir


def test_the_run_folder_holds_what_it_should(whole):
    for name in (
        "recipe.yaml",
        "run.json",
        "summary.json",
        "rollouts/rollouts.jsonl",
        "gradients/projected.npy",
        "gradients/norms.npy",
        "gradients/written.npy",
        "gradients/prompt_ids.json",
        "scores/scores.parquet",
        "selection/selected.jsonl",
        "training/adapter/adapter_model.safetensors",
        "training/adapter/adapter_config.json",
        "evaluation/base/demo.jsonl",
        "evaluation/trained/demo.jsonl",
        "evaluation/summary.json",
        "report/index.html",
        *(f"{stage}/manifest.json" for stage in STAGES),
    ):
        assert (whole / name).is_file(), name
    assert not list(whole.glob("*.partial"))


def test_each_stage_ran_in_a_process_of_its_own_with_its_own_peak(whole):
    peaks = {s: json.loads((whole / s / "manifest.json").read_text())["peak_rss_bytes"] for s in STAGES}
    assert peaks["selection"] < 400 * 2**20 < peaks["training"] < 3 * 2**30


def test_scores_equal_the_full_matrix(whole):
    rows = np.load(whole / "gradients/projected.npy").astype(np.float64)
    ids = json.loads((whole / "gradients/prompt_ids.json").read_text())
    rewards: dict[str, list[float]] = {}
    for line in (whole / "rollouts/rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    p = np.array([np.mean(rewards[i]) for i in ids])
    v = p * (1 - p)
    norms = np.linalg.norm(rows, axis=1)
    assert np.array_equal(norms > 0, v > 0)
    assert np.allclose(norms[norms > 0], 1, atol=2e-3)
    matrix = np.outer(v, v) * (rows @ rows.T)
    table = pyarrow.parquet.read_table(whole / "scores/scores.parquet").to_pydict()
    assert table["prompt_id"] == ids
    assert np.abs(matrix.mean(axis=1) - table["score"]).max() < 1e-12
    best = sorted(range(len(ids)), key=lambda i: (-matrix.mean(axis=1)[i], ids[i]))[:6]
    selected = [json.loads(line) for line in (whole / "selection/selected.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in selected] == [ids[i] for i in best]
    assert list(selected[0]) == ["prompt", "answer", "prompt_id", "score", "rank"]


def test_a_plain_peft_user_can_load_the_adapter(whole):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lean_align.policy import DEMO_MODEL

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(DEMO_MODEL), whole / "training/adapter")
    assert sum("lora" in name for name, _ in model.named_parameters()) == 56


def test_the_same_command_on_a_finished_run_changes_nothing(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("manifest.json")}
    done = run(whole)
    assert done.returncode == 0
    assert "finished before" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("manifest.json")} == before


def test_a_changed_recipe_is_refused_with_what_changed(whole):
    done = run(whole, settings={"rollouts.temperature": 0.9})
    assert done.returncode == 1
    assert "rollouts.temperature: 1.0 -> 0.9" in done.stderr
    assert "Traceback" not in done.stderr
    assert "temperature: 1.0" in (whole / "recipe.yaml").read_text()


def _kill_in(stage: str, run_dir: Path, delay: float) -> bool:
    """Start the command, end it with SIGKILL inside a stage; whether the stage was cut off."""
    with subprocess.Popen(command(run_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        partial = run_dir / f"{stage}.partial" / "inputs.json"
        while not partial.exists() and process.poll() is None:
            time.sleep(0.0005)
        time.sleep(delay)
        process.kill()
    return not (run_dir / stage).exists()


def test_killed_in_every_stage_the_files_are_those_of_an_uninterrupted_run(whole, tmp_path):
    run_dir, rng = tmp_path / "run", random.Random(20251123)
    quick = ("data", "scores", "selection", "report")
    cut = [stage for stage in STAGES if _kill_in(stage, run_dir, 0 if stage in quick else rng.uniform(0.5, 4))]
    assert set(cut) >= {"warmup", "rollouts", "training"}, cut
    done = run(run_dir)
    assert done.returncode == 0, done.stderr
    expected, found = comparable(whole), comparable(run_dir)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def test_a_killed_parent_leaves_no_child_behind(tmp_path):
    run_dir = tmp_path / "run"
    with subprocess.Popen(command(run_dir), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while not (run_dir / ".lock").exists():
            time.sleep(0.01)
        time.sleep(0.2)
        child = int((run_dir / ".lock").read_text())
        process.kill()
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline and os.path.exists(f"/proc/{child}/stat"):
        time.sleep(0.05)
    assert not os.path.exists(f"/proc/{child}/stat")


def test_random_selection_runs_without_gradients(tmp_path):
    done = run(tmp_path / "run", "--stop-after", "select", settings={"selection.method": "random"})
    assert json.loads(done.stdout)["finished"] == ["data", "selection"]
    assert len((tmp_path / "run/selection/selected.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("rows", "settings", "status", "message"),
    [
        ("", {}, 1, "has no rows"),
        ('{"prompt": "1+1?", "answer": "2"}\n{"prompt": "2+2?"}\n', {}, 1, "row 2 has no answer"),
        ('{"prompt": "1+1?", "answer": "2"}\n{"prompt"\n', {}, 1, "line 2 is not valid JSON"),
        ('{"prompt": "1+1?", "answer": "2"}\n', {"selection.n": 2}, 2, "selection.n is 2 and the pool has 1"),
        ("PROMPT", {}, 1, "exceed the context"),
    ],
)
def test_bad_data_is_named_before_anything_heavy_runs(tmp_path, rows, settings, status, message):
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "word " * 600, "answer": "2"}) if rows == "PROMPT" else rows)
    paths = {"data.train_path": data, "data.test_path": data, "selection.n": 1}
    done = run(tmp_path / "run", settings={**paths, **settings})
    assert done.returncode == (1 if status == 2 else status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_when_nothing_can_be_learned_it_says_why_and_keeps_the_rollouts(tmp_path):
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {i}.", "answer": "123456"}) + "\n" for i in range(8)))
    paths = {"data.train_path": data, "data.test_path": data, "warmup.steps": 0, "selection.n": 2}
    done = run(tmp_path / "run", settings=paths)
    assert done.returncode == 1
    assert "0.0% of 8 prompts can teach" in done.stderr
    assert "Nothing can be learned from these rollouts." in done.stderr
    assert done.stderr.count("gold 123456, reward 0:") >= 3
    assert (tmp_path / "run/rollouts/rollouts.jsonl").exists()


def test_select_from_writes_the_chosen_prompts(tmp_path):
    data = tmp_path / "mine.jsonl"
    with data.open("w") as file:
        for line in (Path(__file__).parent / "golden" / "prompts.jsonl").read_text().splitlines():
            file.write(line + "\n")
    output = tmp_path / "selected.jsonl"
    sets = {**SMALL, "model.dtype": "float32", "warmup.n_prompts": 8}
    arguments = [part for key, value in sets.items() if key != "selection.n" for part in ("--set", f"{key}={value}")]
    base = [
        sys.executable,
        "-m",
        "lean_align",
        "select-from",
        str(data),
        "--model",
        "demo",
        "-n",
        "3",
        "-o",
        str(output),
    ]
    done = subprocess.run([*base, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 3
    assert len(output.read_text().splitlines()) == 3


def test_select_from_never_writes_over_what_it_reads(tmp_path):
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "1+1?", "answer": "2"}) + "\n")
    before = data.read_bytes()
    base = [sys.executable, "-m", "lean_align", "select-from", str(data), "--model", "demo", "-n", "1"]
    done = subprocess.run([*base, "-o", str(data)], capture_output=True, text=True)
    assert done.returncode == 2
    assert "it would be lost" in done.stderr
    assert data.read_bytes() == before


def test_a_corrected_data_file_is_taken_by_the_same_command(tmp_path):
    data = tmp_path / "mine.jsonl"
    paths = {"data.train_path": data, "data.test_path": data, "selection.n": 1}
    data.write_text('{"prompt": "1+1?"}\n')
    assert run(tmp_path / "run", "--stop-after", "prepare", settings=paths).returncode == 1
    data.write_text('{"prompt": "1+1?", "answer": "2"}\n')
    done = run(tmp_path / "run", "--stop-after", "prepare", settings=paths)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
