"""A short training of a fresh adapter on a random subset: where the policy stands whose gradients are taken."""

from __future__ import annotations

from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe
from lean_align.rng import rng_for
from lean_align.selection.registry import recipe_method
from lean_align.stages.dependencies import POLICY, SAMPLED, kept_rows
from lean_align.stages.inputs import read_prompts
from lean_align.stages.trainings import keep_log, train_policy


def run(stage: StageRun) -> None:
    """Train on a seeded random subset of the pool."""
    recipe, trainer, pool = stage.recipe, stage.recipe.warmup, read_prompts(stage.run_dir, "train")
    chosen = rng_for(recipe.seed, "warmup").permutation(len(pool))[: trainer.n_prompts]
    prompts = [pool[i] for i in chosen]
    log = train_policy(recipe, trainer, None, prompts, "warmup", stage.folder)
    keep_log(stage.folder, log, prompts, trainer.steps)


def _needed(recipe: Recipe) -> bool:
    needs = recipe_method(recipe).needs
    return recipe.warmup.steps > 0 and ("rollouts" in needs or recipe.training.init != "base")


STAGE = Stage(
    "warmup",
    "warmup",
    "Train briefly on a random subset.",
    run,
    (*POLICY, "warmup", *SAMPLED),
    ("data",),
    more_keys=lambda recipe: kept_rows(recipe.warmup),
    needed=_needed,
    trains="warmup",
    work="training",
)
