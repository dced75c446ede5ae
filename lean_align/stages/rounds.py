"""Selection in stages: the final training is cut into stretches, and before each the subset is chosen again.

Round 1 trains on the run's own selection.  Round r > 1 is a run of its own, in `training/rounds/r`: its "warm-up" is
the adapter that round r - 1 left, so that completions, gradients and scores are those of the current policy, and its
training goes on from that adapter.

Differs from a training on one subset, at the same number of steps, in: 1. the optimiser starts afresh at each round
(Adam's moments are of the prompts before); 2. a schedule of the learning rate is run through once per round; 3. each
round draws its noise from a seed of its own.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew
from lean_align.artifacts import StageFolder, file_hash, read_json, read_jsonl, read_manifest, stage_folder, write_jsonl
from lean_align.errors import StaleStageError
from lean_align.pipeline.execution import run_stages
from lean_align.pipeline.graph import Graph
from lean_align.pipeline.stage import TOKENS, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.rng import seed_for

ROUNDS = "rounds"
LOGS = ("log.jsonl", "rewards.jsonl")
_ADAPTER = "adapter/adapter_model.safetensors"
_TAKEN_OVER = ("data", "warmup")
"""Stages that a later round takes from elsewhere, under other names."""


def train_in_rounds(stage: StageRun) -> None:
    """Train in `selection.rounds` stretches; leaves what a training leaves, and what the selections cost in counts."""
    recipe, folder, graph = stage.recipe, stage.folder, stage.graph
    before, done, counts = stage.run_dir, 0, dict[str, Any]({"generated_tokens": 0, "training_seconds": 0.0})
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in LOGS}
    for number, steps in enumerate(stretches(recipe.training.steps, recipe.selection.rounds), start=1):
        round_dir, own = folder.path / ROUNDS / str(number), round_recipe(recipe, number, steps, done)
        say(f"training: round {number} of {recipe.selection.rounds}, {steps} steps")
        _begin(graph, own, round_dir, before, number)
        run_stages(graph, own, round_dir, stop_after="train")
        if number > 1:
            _add_costs(graph, own, round_dir, counts, done)
        _keep_adapters(recipe, round_dir, folder.path, done, steps)
        for name, found in rows.items():
            found += [row | {"step": row["step"] + done} for row in read_jsonl(round_dir / "training" / name)]
        _add_training(round_dir, folder, counts)
        before, done = round_dir, done + steps
    shutil.copytree(before / "training" / "adapter", folder.path / "adapter", dirs_exist_ok=True)
    for name, found in rows.items():
        write_jsonl(folder.path / name, found)
    n_prompts = read_json(before / "training" / "manifest.json")["counts"]["n_prompts"]
    folder.counts |= {"n_prompts": n_prompts, "steps": done, "rounds": recipe.selection.rounds, **counts}


def stretches(steps: int, rounds: int) -> list[int]:
    """Steps of each round, equal but for one: 20 in 3 rounds are 7, 7 and 6."""
    return [steps // rounds + (i < steps % rounds) for i in range(rounds)]


def round_recipe(recipe: Recipe, number: int, steps: int, done: int = 0) -> Recipe:
    """The recipe of a round's own run, which begins after `done` steps."""
    at_steps = tuple(step - done for step in recipe.evaluation.at_steps if 0 < step - done <= steps)
    own = replace(
        recipe,
        selection=replace(recipe.selection, rounds=1),
        training=replace(recipe.training, steps=steps),
        evaluation=replace(recipe.evaluation, at_steps=at_steps),
    )
    if number == 1:
        return own
    warmup = recipe.warmup if recipe.warmup.steps else replace(recipe.warmup, steps=1)
    seed = seed_for(recipe.seed, "round", number) % 2**31
    return replace(own, seed=seed, warmup=warmup, training=replace(own.training, init="warmup"))


def _begin(graph: Graph, own: Recipe, round_dir: Path, before: Path, number: int) -> None:
    """Lay the run of a round: the run's finished stages in the first, data and the current adapter in a later one."""
    round_dir.mkdir(parents=True, exist_ok=True)
    if number == 1:
        for stage in graph.stages:
            source, link = before / stage.folder, round_dir / stage.folder
            if read_manifest(source) is not None and stage.folder != "training" and not link.is_symlink():
                link.symlink_to(os.path.relpath(source, round_dir))
        return
    _copy_stage(graph, own, round_dir, "data", before / "data")
    _copy_stage(graph, own, round_dir, "warmup", before / "training")
    made, wanted = (file_hash(d / _ADAPTER) for d in (round_dir / "warmup", before / "training"))
    if made != wanted:
        raise StaleStageError(f"{round_dir} was not begun from the adapter that {before} left. {made_anew(round_dir)}")


def _copy_stage(graph: Graph, own: Recipe, round_dir: Path, name: str, source: Path) -> None:
    """Take a finished stage over as one of this run: its files, under the inputs that this run's recipe gives it."""
    if (round_dir / name).exists():
        return
    inputs = graph.stage_inputs(graph.by_folder[name], own, round_dir)
    with stage_folder(round_dir, name, inputs, resumable=False) as folder:
        outputs = read_json(source / "manifest.json")["outputs"]
        for output in outputs:
            (folder.path / output).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / output, folder.path / output)
        folder.counts |= read_json(source / "manifest.json")["counts"]


def _keep_adapters(recipe: Recipe, round_dir: Path, folder: Path, done: int, steps: int) -> None:
    """Take over the adapters that a round kept, under the steps of the whole training."""
    from lean_align.grpo import kept_adapter

    training = round_dir / "training"
    for step in recipe.kept_steps:
        if 0 < step - done <= steps:
            own = kept_adapter(training, step - done) if step - done < steps else training / "adapter"
            shutil.copytree(own, kept_adapter(folder, step), dirs_exist_ok=True)


def _add_training(round_dir: Path, folder: StageFolder, counts: dict[str, Any]) -> None:
    manifest = read_json(round_dir / "training" / "manifest.json")
    folder.earlier_peak_rss_bytes = max(folder.earlier_peak_rss_bytes, manifest["peak_rss_bytes"])
    vram = [p for p in (folder.earlier_peak_vram_bytes, manifest["peak_vram_bytes"]) if p is not None]
    folder.earlier_peak_vram_bytes = max(vram, default=None)
    counts["generated_tokens"] += manifest["counts"]["generated_tokens"]
    counts["trained_tokens"] = counts.get("trained_tokens", 0) + manifest["counts"].get("trained_tokens", 0)
    counts["training_seconds"] = round(counts["training_seconds"] + manifest["wall_seconds"], 3)


def _add_costs(graph: Graph, own: Recipe, round_dir: Path, costs: dict[str, Any], done: int) -> None:
    """Add what a later round's selection took to `selection_seconds` and `selection_tokens`, and to `reselections`."""
    spent = {"after_step": done, "seconds": 0.0, **dict.fromkeys(TOKENS, 0)}
    for stage in graph.needed_stages(own):
        manifest = read_manifest(round_dir / stage.folder)
        if manifest is not None and stage.for_selection and stage.folder not in _TAKEN_OVER:
            spent["seconds"] = round(spent["seconds"] + manifest["wall_seconds"], 3)
            for kind in TOKENS:
                spent[kind] += manifest["counts"].get(kind) or 0
    costs["selection_seconds"] = round(costs.get("selection_seconds", 0.0) + spent["seconds"], 3)
    costs["selection_tokens"] = costs.get("selection_tokens", 0) + spent["generated_tokens"]
    costs.setdefault("reselections", []).append(spent)
