"""The held-out problems and benchmarks, solved by the base model and by the trained one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lean_align.artifacts import write_json
from lean_align.benchmarks import find_benchmarks, protocol_of, source_of
from lean_align.evaluation.at_steps import evaluate_steps
from lean_align.evaluation.figures import evaluation_summary
from lean_align.evaluation.problem_sets import load_benchmarks, run_sets
from lean_align.evaluation.solving import BASE, TRAINED, drop_clock, keep_problems, sample_sets
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe
from lean_align.stages.dependencies import POLICY, file_hashes, no_warmup


def run(stage: StageRun) -> None:
    """Write each model's completions of every set, and `summary.json`; the steps' where the recipe names some."""
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    benchmarks = load_benchmarks(recipe)
    keep_problems(benchmarks, folder)
    sets = run_sets(recipe, run_dir / "data" / "test.jsonl", benchmarks)
    sample_sets(recipe, sets, {BASE: None, TRAINED: run_dir / "training" / "adapter"}, folder)
    adapters = step_adapters(recipe, run_dir)
    if adapters:
        evaluate_steps(recipe, sets[0], adapters, folder)
    tree = evaluation_summary(sets, {model: folder.path / model for model in (BASE, TRAINED)}, recipe.seed)
    write_json(folder.path / "summary.json", tree)
    folder.counts |= {"n_problems": {problems.name: len(problems.prompts) for problems in sets}}
    drop_clock(folder)


def step_adapters(recipe: Recipe, run_dir: Path) -> dict[int, Path | None]:
    """The adapter of each step that is evaluated; None of a start that is the base."""
    steps = recipe.evaluated_steps
    if not steps:
        return {}
    from lean_align.grpo import kept_adapter

    training = run_dir / "training"
    start = run_dir / "warmup" / "adapter" if recipe.training.init == "warmup" else None
    found: dict[int, Path | None] = {step: kept_adapter(training, step) for step in steps}
    return found | {0: start, recipe.training.steps: training / "adapter"}


def _unread(recipe: Recipe) -> tuple[str, ...]:
    """The warm-up, unless its adapter is evaluated as the start."""
    return no_warmup(recipe) if recipe.evaluated_steps else ("warmup",)


def _more_inputs(recipe: Recipe) -> dict[str, Any]:
    found = find_benchmarks(recipe.evaluation.benchmarks)
    sources = {source_of(benchmark, recipe.evaluation.data_dir) for benchmark in found}
    protocols = {benchmark.name: protocol_of(benchmark) for benchmark in found}
    return {"data_files": file_hashes(sources), "benchmarks": protocols}


STAGE = Stage(
    "evaluation",
    "evaluate",
    "Solve the held-out problems and benchmarks.",
    run,
    (*POLICY, "evaluation", "rollouts.max_new_tokens", "rollouts.engine", "rollouts.vllm_adapter"),
    ("data", "warmup", "training"),
    unread=_unread,
    more_inputs=_more_inputs,
    samples=True,
    shared=False,
    for_selection=False,
    work="evaluation",
)
