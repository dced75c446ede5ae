"""The final training, on the chosen prompts."""

from __future__ import annotations

from lean_align.artifacts import read_jsonl
from lean_align.data import prompts_from_rows
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.report.run_wording import drawn_sentence
from lean_align.stages.dependencies import POLICY, SAMPLED, aimed_at, drawn, kept_rows, no_warmup
from lean_align.stages.inputs import SELECTED
from lean_align.stages.online import drawn_counts, online_keys
from lean_align.stages.rounds import train_in_rounds
from lean_align.stages.trainings import keep_log, train_policy


def run(stage: StageRun) -> None:
    """Train on the chosen prompts, in rounds or drawing from the pool where the recipe says so."""
    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    if recipe.selection.rounds > 1:
        train_in_rounds(stage)
        return
    prompts = prompts_from_rows(read_jsonl(run_dir / "selection" / SELECTED))
    start = "warmup" if recipe.training.init == "warmup" else None
    log = train_policy(recipe, recipe.training, start, prompts, "training", folder)
    keep_log(folder, log, prompts, recipe.training.steps)
    if recipe.selection.online:
        from lean_align.grpo import read_rewards

        folder.counts["online"] = drawn_counts(read_rewards(folder.path), log)
        say(f"training: {drawn_sentence(folder.counts['online'], len(prompts))}")


def _more_keys(recipe: Recipe) -> tuple[str, ...]:
    """A training in rounds takes rollouts and gradients of its own; adapters of steps are kept where they are asked
    for."""
    kept = ("evaluation.at_steps",) if recipe.kept_steps else ()
    if recipe.selection.rounds == 1:
        return (*kept_rows(recipe.training), *online_keys(recipe), *kept)
    return ("rollouts", "gradients", "selection.method", "selection.n", *drawn(recipe), *aimed_at(recipe), *kept)


STAGE = Stage(
    "training",
    "train",
    "Train on the chosen prompts with GRPO.",
    run,
    (*POLICY, "training", "selection.rounds", *SAMPLED),
    ("selection", "warmup"),
    more_keys=_more_keys,
    unread=no_warmup,
    trains="training",
    shared=False,
    for_selection=False,
    work="training",
)
