"""Stages that write in milliseconds what the real ones take minutes for: for tests of what joins them.

Learnability, gradients and the effect of a training are made up: a training helps with the share of its prompts that
have learnability above 0.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from lean_align.artifacts import read_jsonl, stage_folder, write_json, write_jsonl
from lean_align.evaluation.at_steps import FILE, StepAccuracy
from lean_align.evaluation.figures import evaluation_summary
from lean_align.evaluation.problem_sets import run_sets
from lean_align.evaluation.solving import BASE, SECONDS, TRAINED
from lean_align.pipeline.graph import stored_recipe
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe
from lean_align.rng import rng_for
from lean_align.stages import GRAPH, run_stage
from lean_align.stages.inputs import POOL as POOL_SIDE
from lean_align.stages.inputs import TARGET, Sampled
from lean_align.store import StoreWriter

POOL, PROBLEMS, WANTED, PROJ_DIM = 40, 60, 8, 8


def write_stage(stage: Stage, run_dir: Path) -> None:
    """Write one stage of a run."""
    recipe = stored_recipe(run_dir)
    with stage_folder(run_dir, stage.folder, GRAPH.stage_inputs(stage, recipe, run_dir)) as folder:
        folder.beside = stage.beside
        if stage.folder == "scores":
            stage.run(StageRun(recipe, run_dir, folder, GRAPH))
        else:
            WRITERS[stage.folder](recipe, run_dir, folder.path)
        if stage.folder == "training":
            folder.counts |= {"n_prompts": 10, "steps": recipe.training.steps}
            folder.counts |= tokens_of(recipe.training.steps)
        if stage.folder == "warmup":
            folder.counts |= tokens_of(recipe.warmup.steps)
        if stage.folder == "rollouts":
            folder.counts |= {"generated_tokens": 1000}
        if stage.folder == "target_rollouts":
            folder.counts |= {"generated_tokens": 200}
        if stage.folder == "target":
            folder.counts |= {"n_problems": WANTED, "n_in_pool": 1, "n_near": 0}
        if stage.folder == "gradients":
            folder.counts |= {"trained_tokens": 600}
        if stage.folder == "data":
            folder.counts |= {"n_train": POOL, "n_dropped": 0, "dropped_by_reason": {}}
        if stage.folder == "evaluation":
            folder.counts |= {SECONDS: {}}


def tokens_of(steps: int) -> dict[str, int]:
    """What a training of some steps is said to have taken."""
    return {"generated_tokens": 7 * steps, "trained_tokens": 5 * steps}


def raw_rows(split: str = "train", n: int = POOL) -> list[dict[str, str]]:
    """The rows that the data stage is said to have read."""
    words = ("apple", "river", "stone", "cloud", "lamp", "chair", "horse", "piano")
    return [{"prompt": f"{split} {words[i % 8]} number {i}?", "answer": str(i)} for i in range(n)]


def _data(recipe: Recipe, run_dir: Path, folder: Path) -> None:
    for split, n in (("train", POOL), ("test", PROBLEMS)):
        rows = [{"prompt_id": f"{split}-{i:03d}", **row} for i, row in enumerate(raw_rows(split, n))]
        write_jsonl(folder / f"{split}.jsonl", rows)
    kinds = {f"train-{i:03d}": {"kind": "target" if i % 2 else "unlike", "wrong": i == 3} for i in range(POOL)}
    write_json(folder / "kinds.json", kinds)
    host = {"processor": "a processor"}
    write_json(run_dir / "run.json", {"git_commit": "abc", "device": "cpu", "host": host, "seed": recipe.seed})
    write_json(run_dir / "plan.json", {})


def _warmup(recipe: Recipe, run_dir: Path, folder: Path) -> None:
    _training_files(recipe.warmup.steps, folder, 0.3, "train-000")


def _target(recipe: Recipe, run_dir: Path, folder: Path) -> None:
    rows = [{"prompt_id": f"target-{i:03d}", **row} for i, row in enumerate(raw_rows("wanted", WANTED))]
    write_jsonl(folder / "target.jsonl", rows)
    write_jsonl(folder / "near_matches.jsonl", [])
    write_json(folder / "in_both.json", {"train-002": ["target-001"]})


def _rollouts(recipe: Recipe, run_dir: Path, folder: Path, which: Sampled = POOL_SIDE) -> None:
    rng, rows = rng_for(recipe.seed, f"fake {which.rollouts}"), []
    for i, prompt in enumerate(read_jsonl(run_dir / which.file)):
        rate = (0.0, 0.5, 1.0, 0.3)[i % 4]
        for g in range(recipe.selection_generations):
            reward = float(rng.random() < rate)
            rows.append({"prompt_id": prompt["prompt_id"], "index": g, "n_tokens": 5 + i % 7 + g, "reward": reward})
    write_jsonl(folder / "rollouts.jsonl", rows)


def _gradients(recipe: Recipe, run_dir: Path, folder: Path, which: Sampled = POOL_SIDE) -> None:
    by_prompt: dict[str, list[float]] = {}
    for row in read_jsonl(run_dir / which.rollouts / "rollouts.jsonl"):
        by_prompt.setdefault(row["prompt_id"], []).append(row["reward"])
    rng = rng_for(recipe.seed, f"fake {which.gradients}")
    with StoreWriter.open(folder, list(by_prompt), PROJ_DIM) as store:
        for i, rewards in enumerate(by_prompt.values()):
            learnable = 0 < sum(rewards) < len(rewards)
            store.write(i, (rng.standard_normal(PROJ_DIM) + 1.0).astype(np.float32) * learnable)
        store.flush()


def _training(recipe: Recipe, run_dir: Path, folder: Path) -> None:
    chosen = read_jsonl(run_dir / "selection" / "selected.jsonl")[0]["prompt_id"]
    _training_files(recipe.training.steps, folder, 0.5, chosen)
    for step in recipe.kept_steps:
        kept = folder / "at_steps" / f"step-{step}"
        kept.mkdir(parents=True)
        (kept / "adapter_model.safetensors").write_bytes(f"weights of step {step}".encode())


def _training_files(steps: int, folder: Path, reward: float, prompt_id: str) -> None:
    (folder / "adapter").mkdir()
    (folder / "adapter" / "adapter_model.safetensors").write_bytes(b"weights")
    rows = range(1, steps + 1)
    write_jsonl(folder / "log.jsonl", [{"step": step, "reward": reward, "trained_tokens": 5} for step in rows])
    own = {"prompt_ids": [prompt_id], "rewards": [[1.0, 0.0]], "n_tokens": [[3, 4]]}
    write_jsonl(folder / "rewards.jsonl", [{"step": step, **own} for step in rows])


def _evaluation(recipe: Recipe, run_dir: Path, folder: Path) -> None:
    chosen = read_jsonl(run_dir / "selection" / "selected.jsonl")
    helped = np.mean([int(row["prompt_id"].split("-")[1]) % 2 for row in chosen])
    for model, rate in (("base", 0.4), ("trained", 0.4 + 0.3 * helped)):
        if (folder / model).exists():  # lent
            continue
        rng = rng_for(recipe.seed if model == "trained" else 0, f"fake evaluation of {model}")
        (folder / model).mkdir()
        rows = [
            {"prompt_id": problem["prompt_id"], "index": 0, "reward": float(rng.random() < rate), "n_tokens": 9}
            for problem in read_jsonl(run_dir / "data" / "test.jsonl")
        ]
        rows = [row | {"completion": "The answer is 1.", "finished": True} for row in rows]
        write_jsonl(folder / model / "demo.jsonl", rows)
    last = recipe.training.steps
    steps = [StepAccuracy(step, "demo", 20, 0.4 + 0.3 * float(helped) * step / last) for step in recipe.evaluated_steps]
    if steps:
        write_jsonl(folder / FILE, [asdict(step) for step in steps])
    sets = run_sets(recipe, run_dir / "data" / "test.jsonl", {})
    summary = evaluation_summary(sets, {model: folder / model for model in (BASE, TRAINED)}, recipe.seed)
    write_json(folder / "summary.json", summary)


WRITERS = {
    "data": _data,
    "target": _target,
    "target_rollouts": partial(_rollouts, which=TARGET),
    "target_gradients": partial(_gradients, which=TARGET),
    "warmup": _warmup,
    "rollouts": _rollouts,
    "gradients": _gradients,
    "training": _training,
    "evaluation": _evaluation,
}


def put_in_place(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """Run the fakes in the place of stages' processes; returns the list of (stage, run folder) that ran."""
    ran: list[tuple[str, str]] = []

    def in_child(stage: Stage, run_dir: Path) -> None:
        if stage.folder in ("selection", "report"):
            run_stage(stage.command, run_dir)
        else:
            write_stage(stage, run_dir)
        ran.append((stage.folder, run_dir.name))

    monkeypatch.setattr(sys.modules["lean_align.pipeline.execution"], "run_in_child", in_child)
    return ran
