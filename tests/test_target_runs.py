"""Runs that aim, on the embedded model: the choice against the plain formula, a kill in each stage, and the report."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from test_end_to_end import BEGUN, killed_and_continued, lines_in, run

from lean_align.scoring.tables import read_table
from lean_align.stages import GRAPH

AIMED = {"selection.method": "learnalign-target", "selection.target": "held-out:8", "gradients.second_seed": "false"}
STAGES = ("target", "target_rollouts", "target_gradients")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("aimed") / "run"
    done = run(run_dir, settings=AIMED)
    assert done.returncode == 0, done.stderr
    return run_dir


def rows_and_v(run_dir: Path, prefix: str) -> tuple[list[str], NDArray[np.float64], NDArray[np.float64]]:
    """Ids, rows and V of the pool, or with the prefix `target_` of the target."""
    store = run_dir / f"{prefix}gradients"
    ids, rewards = json.loads((store / "prompt_ids.json").read_text()), dict[str, list[float]]()
    for line in (run_dir / f"{prefix}rollouts" / "rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    p = np.array([np.mean(rewards[i]) for i in ids])
    return ids, np.load(store / "projected.npy").astype(np.float64), p * (1 - p)


def test_the_choice_is_that_of_the_plain_formula(whole: Path) -> None:
    ids, rows, v = rows_and_v(whole, "")
    target_ids, target, w = rows_and_v(whole, "target_")
    assert (len(ids), len(target_ids)) == (24, 8)
    assert json.loads((whole / "target" / "in_both.json").read_text()) == {}
    score = np.array([sum(v[i] * w[j] * (rows[i] @ target[j]) for j in range(8)) / 8 for i in range(24)])
    table = read_table(whole / "selection" / "values.parquet")
    assert list(table["prompt_id"]) == ids
    assert np.abs(np.asarray(table["value"]) - score).max() < 1e-6 * np.abs(score).max()
    best = sorted(range(24), key=lambda i: (-score[i], ids[i]))[:6]
    selected = [json.loads(line) for line in (whole / "selection" / "selected.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in selected] == [ids[i] for i in best]


def test_the_report_has_a_row_on_the_target(whole: Path) -> None:
    _, rows, _ = rows_and_v(whole, "")
    _, target, w = rows_and_v(whole, "target_")
    mean = (w[:, None] * target).mean(axis=0)
    cosines = rows @ mean / np.linalg.norm(mean)
    summary = json.loads((whole / "summary.json").read_text())
    found = summary["selection"]["target"]
    assert (found["source"], found["n_problems"], found["n_in_pool"], found["n_near"]) == ("held-out:8", 8, 0, 0)
    assert found["n_learnable"] == np.sum(w > 0)
    assert found["learnability"] == pytest.approx(w.mean())
    assert found["alignment_pool"] == pytest.approx(cosines.mean(), abs=1e-6)
    assert found["alignment_chosen"] > found["alignment_pool"]
    page = (whole / "report" / "index.html").read_text()
    assert "<code>held-out:8</code>" in page
    assert list(json.loads((whole / "summary.json").read_text())["stages"])[:4] == [
        "data",
        "target",
        "warmup",
        STAGES[1],
    ]


def test_the_pool_is_that_of_a_run_that_does_not_aim(whole: Path, tmp_path: Path) -> None:
    done = run(tmp_path / "run", "--stop-after", "prepare", settings={"selection.method": "random"})
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "data" / "train.jsonl").read_bytes() == (whole / "data" / "train.jsonl").read_bytes()


BEGUN_HERE = {
    "target_rollouts": lambda partial: lines_in(partial / "rollouts.jsonl"),
    "target_gradients": BEGUN["gradients"],
}


@pytest.mark.parametrize("name", STAGES)
def test_a_run_killed_in_a_stage_of_the_target_gives_the_same_files(whole: Path, tmp_path: Path, name: str) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    order = [stage.folder for stage in GRAPH.stages]
    for later in order[order.index(name) :]:
        if later not in ("warmup", "rollouts", "gradients"):  # which do not read the target
            shutil.rmtree(run_dir / later, ignore_errors=True)
    err = killed_and_continued(name, run_dir, whole, AIMED, BEGUN_HERE.get(name))
    assert (f"{name}: continuing at" in err) == (name in BEGUN_HERE)


def test_a_target_that_is_changed_afterwards_is_refused(whole: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    path = run_dir / "target" / "target.jsonl"
    path.write_text(path.read_text().replace("How many", "How much"))
    done = run(run_dir, settings=AIMED)
    assert done.returncode == 1
    assert "target.jsonl was changed after it was written" in done.stderr


def test_another_target_is_refused_with_what_to_delete(whole: Path) -> None:
    done = run(whole, settings={**AIMED, "selection.target": "held-out:9"})
    assert done.returncode == 1
    assert "selection.target: 'held-out:8' -> 'held-out:9'" in done.stderr
    assert all(str(whole / name) in done.stderr for name in (*STAGES, "selection"))
    assert str(whole / "rollouts") not in done.stderr


def test_a_bad_target_is_named_before_anything_heavy_runs(tmp_path: Path) -> None:
    data = tmp_path / "wanted.jsonl"
    data.write_text(json.dumps({"prompt": "1+1?", "answer": "2"}) + "\n")
    done = run(tmp_path / "run", settings={**AIMED, "selection.target": data})
    assert done.returncode == 1
    assert "has 1 usable problems; expected at least 4" in done.stderr
    assert not (tmp_path / "run" / "warmup.partial").exists()
    done = run(tmp_path / "none", settings={"selection.method": "learnalign-target", "selection.target": "null"})
    assert done.returncode == 2
    assert "selection.target is null" in done.stderr
    assert not (tmp_path / "none" / "data").exists()


def test_hidden_states_are_compared_with_those_of_the_target(whole: Path, tmp_path: Path) -> None:
    """From the same rollouts; no gradients of either are taken."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for name in ("gradients", "target_gradients", "selection", "training", "evaluation", "report"):
        shutil.rmtree(run_dir / name)
    settings = {**AIMED, "selection.method": "feature-similarity-target"}
    done = run(run_dir, "--stop-after", "select", settings=settings)
    assert done.returncode == 0, done.stderr
    assert "target_gradients" not in json.loads(done.stdout)["finished"]
    v, w = rows_and_v(whole, "")[2], rows_and_v(whole, "target_")[2]
    rows, target = (np.load(run_dir / name / "projected.npy").astype(float) for name in ("features", "target_features"))
    score = v * (rows @ (w[:, None] * target).mean(axis=0))
    table = read_table(run_dir / "selection" / "values.parquet")
    np.testing.assert_allclose(table["value"], score, rtol=0, atol=1e-6 * np.abs(score).max())
