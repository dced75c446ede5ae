"""Each stage: read from the run folder, call the method, write to the run folder.

A function here takes the recipe, the run folder and the stage's folder, and leaves counts for the
manifest.  Heavy modules are imported by the stages that need them: report and selection run without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lean_align.advice import removal
from lean_align.artifacts import (
    StageFolder,
    read_manifest,
    stage_folder,
    write_json,
)
from lean_align.errors import StageError
from lean_align.evaluation.figures import evaluation_summary
from lean_align.evaluation.problems import load_benchmarks, run_sets
from lean_align.evaluation.solving import BASE, TRAINED, drop_clock, keep_problems, sample_sets
from lean_align.pipeline.data_stage import prepare
from lean_align.pipeline.environment import made_by, set_threads
from lean_align.pipeline.gradient_stage import take_gradients
from lean_align.pipeline.graph import BY_COMMAND, is_finished, needed_stages, stage_inputs, stored_recipe
from lean_align.pipeline.locks import stage_lock
from lean_align.pipeline.results import write_results
from lean_align.pipeline.rollout_stage import sample_rollouts
from lean_align.pipeline.score_stage import score_stage
from lean_align.pipeline.selection_stage import select_stage
from lean_align.pipeline.signal_stages import take_features, take_perplexities, take_ratings, take_reward_curves
from lean_align.pipeline.training_stages import train_selected, warm_up
from lean_align.pipeline.workers import add_workers, run_rows
from lean_align.progress import say
from lean_align.recipe import Recipe


def run_stage(command: str, run_dir: Path, rows: tuple[int | None, int | None] | None = None) -> dict[str, Any]:
    """Run one stage of a run folder in this process, unless it is finished.

    Parameters
    ----------
    command : str
        `prepare`, `warmup`, `rollout`, `gradients`, `score`, `select`, `train`, `evaluate` or `report`.
    run_dir : Path
    rows : tuple of int or None, optional
        For `gradients`: only these rows, first and after the last; other processes may do others.

    Returns
    -------
    dict
        The stage's counts; with `rows`, while others are open, how many.

    Raises
    ------
    StageError
        When stages before it have not finished, or the recipe does without it.
    """
    stage, recipe = BY_COMMAND[command], stored_recipe(run_dir)
    if stage not in needed_stages(recipe):
        raise StageError(
            f"the recipe does without {command} (selection.method {recipe.selection.method}, "
            f"warmup.steps {recipe.warmup.steps}); nothing to do."
        )
    if is_finished(stage, recipe, run_dir):
        say(f"{stage.folder}: finished before; to have it made again: {removal(run_dir / stage.folder)}")
        return dict((read_manifest(run_dir / stage.folder) or {})["counts"])
    if command not in ("score", "select", "report"):
        set_threads(recipe)
    if rows is not None:
        return run_rows(stage, recipe, run_dir, rows)
    inputs = stage_inputs(stage, recipe, run_dir)
    with stage_lock(run_dir):
        if (finished := read_manifest(run_dir / stage.folder)) is not None:  # by a worker, while this process waited
            return dict(finished["counts"])
        with stage_folder(run_dir, stage.folder, inputs, stage.resumable) as folder:
            folder.made_by, folder.beside = made_by(), stage.beside
            _STAGES[command](recipe, run_dir, folder)
            add_workers(folder)
    return folder.counts


def _evaluate(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    benchmarks = load_benchmarks(recipe)
    keep_problems(benchmarks, folder)
    sets = run_sets(recipe, run_dir / "data" / "test.jsonl", benchmarks)
    sample_sets(recipe, sets, {BASE: None, TRAINED: run_dir / "training" / "adapter"}, folder)
    tree = evaluation_summary(sets, {model: folder.path / model for model in (BASE, TRAINED)}, recipe.seed)
    write_json(folder.path / "summary.json", tree)
    folder.counts |= {"n_problems": {problems.name: len(problems.prompts) for problems in sets}}
    drop_clock(folder)


def _report(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    folder.counts |= write_results(recipe, run_dir, folder.path, [s.folder for s in needed_stages(recipe)])


_STAGES: dict[str, Callable[[Recipe, Path, StageFolder], None]] = {
    "prepare": prepare,
    "warmup": warm_up,
    "rollout": sample_rollouts,
    "gradients": take_gradients,
    "score": score_stage,
    "perplexity": take_perplexities,
    "ratings": take_ratings,
    "features": take_features,
    "reward-curves": take_reward_curves,
    "select": select_stage,
    "train": train_selected,
    "evaluate": _evaluate,
    "report": _report,
}
