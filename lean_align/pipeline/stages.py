"""Each stage: read from the run folder, call the method, write to the run folder.

A function here takes the recipe, the run folder and the stage's folder, and leaves counts for the
manifest.  Heavy modules are imported by the stages that need them: report and selection run without torch.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from lean_align.artifacts import (
    MANIFEST,
    StageFolder,
    disk_errors,
    read_json,
    read_jsonl,
    stage_folder,
    write_json,
    write_jsonl,
)
from lean_align.data import prompts_from_rows
from lean_align.errors import StageError
from lean_align.memory import Shortage, release_memory
from lean_align.pipeline.backends import policy_to_train, training_backend
from lean_align.pipeline.data_stage import prepare
from lean_align.pipeline.diagnosis import rollout_facts, rollout_lines
from lean_align.pipeline.engines import longest_of, sampling_engine
from lean_align.pipeline.environment import lock, set_threads
from lean_align.pipeline.evaluation import BASE, TRAINED, drop_clock, keep_problems, sample_sets
from lean_align.pipeline.figures import evaluation_summary
from lean_align.pipeline.gradient_stage import take_gradients
from lean_align.pipeline.graph import BY_COMMAND, is_finished, needed_stages, stage_inputs, stored_recipe
from lean_align.pipeline.halving import recorder, smaller_trainer
from lean_align.pipeline.inputs import read_groups, read_prompts
from lean_align.pipeline.problem_sets import load_benchmarks, run_sets
from lean_align.pipeline.results import write_results
from lean_align.pipeline.score_stage import score_stage
from lean_align.pipeline.workers import add_workers, run_rows
from lean_align.progress import say
from lean_align.recipe import Recipe, TrainerRecipe
from lean_align.types import Prompt
from lean_align.verify import verify

SELECTED = "selected.jsonl"


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
        say(f"{stage.folder}: finished before; delete {run_dir / stage.folder} to have it made again")
        return dict(read_json(run_dir / stage.folder / "manifest.json")["counts"])
    if command not in ("score", "select", "report"):
        set_threads(recipe)
    if rows is not None:
        return run_rows(stage, recipe, run_dir, rows)
    inputs = stage_inputs(stage, recipe, run_dir)
    with lock(run_dir):
        if (run_dir / stage.folder / MANIFEST).exists():  # a worker finished it while this process waited
            return dict(read_json(run_dir / stage.folder / MANIFEST)["counts"])
        with stage_folder(run_dir, stage.folder, inputs, stage.resumable) as folder:
            _STAGES[command](recipe, run_dir, folder)
            add_workers(folder)
    return folder.counts


def _reward(gold: str, completion: str) -> float:
    return verify(answer=gold, completion=completion)


def _warmup(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    from lean_align.rng import rng_for

    pool = read_prompts(run_dir, "train")
    chosen = rng_for(recipe.seed, "warmup").permutation(len(pool))[: recipe.warmup.n_prompts]
    _train_grpo(recipe, run_dir, None, [pool[i] for i in chosen], "warmup", folder)


def _train(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    start = "warmup" if recipe.training.init == "warmup" else None
    prompts = prompts_from_rows(read_jsonl(run_dir / "selection" / SELECTED))
    _train_grpo(recipe, run_dir, start, prompts, "training", folder)


def _train_grpo(
    recipe: Recipe, run_dir: Path, start: str | None, prompts: list[Prompt], stage: str, folder: StageFolder
) -> None:
    """Train from a finished stage's adapter or a fresh one, with smaller micro-batches where memory runs out."""
    trainer: TrainerRecipe = recipe.warmup if stage == "warmup" else recipe.training
    log = None
    with training_backend(recipe, trainer, run_dir, folder) as backend:
        from lean_align.grpo import train_grpo

        while log is None:
            policy = policy_to_train(recipe, trainer, run_dir, start, prompts, backend)
            found = train_grpo(policy, prompts, trainer, recipe.rollouts, _reward, folder.path, recipe.seed, stage)
            if isinstance(found, Shortage):
                del policy
                release_memory()
                trainer, halvings = smaller_trainer(trainer, recipe.rollouts.num_generations, stage, found)
                for halving in halvings:
                    recorder(folder, stage)(halving)
            else:
                log = found
    write_jsonl(folder.path / "log.jsonl", [dict(row) for row in log])
    folder.counts |= {"n_prompts": len(prompts), "steps": trainer.steps}


def _rollout(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    from lean_align.rollouts import Sampling, complete

    settings = recipe.rollouts
    sampling = Sampling(
        settings.num_generations,
        settings.temperature,
        settings.max_new_tokens,
        settings.batch_size,
        recipe.seed,
        "rollouts",
        settings.window,
    )
    prompts = read_prompts(run_dir, "train")
    path = folder.path / "rollouts.jsonl"
    record = recorder(folder, "rollouts")
    # without a warm-up the policy's adapter is a fresh one, which changes nothing before it is trained
    adapter = run_dir / "warmup" / "adapter" if recipe.warmup.steps > 0 else None
    longest = longest_of(prompts, settings.max_new_tokens)
    with sampling_engine(recipe, folder, adapter, longest, sampling.slots, record) as engine:
        complete(engine, prompts, path, sampling, _reward, disk_errors, record)
    groups = read_groups(run_dir, path)
    facts = rollout_facts(groups)
    folder.counts |= facts
    for line in rollout_lines(facts, groups):
        say(line)


def _select(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    from lean_align.pipeline.tables import read_scores, selected_rows
    from lean_align.selection import select_full, select_random, select_top

    prompts = read_prompts(run_dir, "train")
    ids, method, n = [prompt.prompt_id for prompt in prompts], recipe.selection.method, recipe.selection.n
    if method == "learnalign":
        selection = select_top(read_scores(run_dir / "scores" / "scores.parquet"), n)
    else:
        selection = select_full(ids) if method == "full" else select_random(ids, n, recipe.seed)
    write_jsonl(folder.path / SELECTED, selected_rows(selection, prompts))
    folder.counts |= {
        "method": selection.method,
        "n": len(selection.prompt_ids),
        "pool_size": selection.pool_size,
        "n_without_signal": selection.n_without_signal,
        "explanation": selection.explanation,
    }
    say(f"selection: {selection.explanation}")


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
    "warmup": _warmup,
    "rollout": _rollout,
    "gradients": take_gradients,
    "score": score_stage,
    "select": _select,
    "train": _train,
    "evaluate": _evaluate,
    "report": _report,
}
