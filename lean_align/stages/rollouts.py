"""Completions of the training prompts at the warm-up checkpoint, and what they can teach."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from lean_align.disk import disk_errors
from lean_align.pipeline.diagnosis import cut_lines
from lean_align.pipeline.engines import longest_of, sampling_engine
from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe, RolloutRecipe
from lean_align.scoring import unbiased_estimates
from lean_align.selection import recipe_method
from lean_align.stages.dependencies import POLICY, aimed_at, asked_for, drawn, predicts
from lean_align.stages.inputs import POOL, ROLLOUTS, TARGET, Sampled, read_groups, reward
from lean_align.stages.predicted_rollouts import prediction_lines, sample_in_rounds
from lean_align.stages.prompt_states import STATES
from lean_align.stages.rollout_facts import completion_tokens, rollout_facts, rollout_lines
from lean_align.types import Group


def run(stage: StageRun) -> None:
    """Sample the pool."""
    sample(stage, POOL)


def sample(stage: StageRun, which: Sampled) -> None:
    """Write `rollouts.jsonl`: as many completions of each prompt as the recipe's allocation gives it."""
    from lean_align.rollouts import Sampling, complete, complete_sequentially

    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    settings = recipe.rollouts
    sampling = replace(Sampling.of_rollouts(recipe), stage=which.rollouts)
    prompts, path = which.prompts(run_dir), folder.path / ROLLOUTS
    record = recorder(folder, "rollouts")
    # without a warm-up the policy's adapter is a fresh one, which changes nothing before it is trained
    adapter = run_dir / "warmup" / "adapter" if recipe.warmup.steps > 0 else None
    longest = longest_of(prompts, settings.max_new_tokens)
    prediction: dict[str, Any] = {}
    if which == POOL and predicts(recipe):
        end_names, prediction = sample_in_rounds(stage, sampling, record)
    else:
        with sampling_engine(recipe, folder, adapter, longest, sampling.slots, record) as engine:
            rest = (reward, disk_errors, record)
            if settings.allocation == "sequential":
                complete_sequentially(engine, prompts, path, sampling, settings.first_generations, *rest)
            else:
                complete(engine, prompts, path, sampling, *rest)
            end_names = engine.encoder.end_names
    groups = read_groups(run_dir, which, path)
    facts = rollout_facts(groups) | allocation_facts(groups, settings, recipe.selection_generations)
    if prediction:
        n_left = prediction["n_pool"] - prediction["n_sampled"]
        facts |= {"prediction": prediction, "completions_saved": n_left * recipe.selection_generations}
    folder.counts |= facts
    shares = {"completions": facts["share_truncated"]}
    cut = cut_lines(which.rollouts, shares, "rollouts.max_new_tokens", end_names)
    for line in (
        *rollout_lines(facts, groups, which.rollouts),
        *cut,
        *_allocation_lines(facts, settings, which.rollouts),
        *(prediction_lines(prediction) if prediction else ()),
    ):
        say(line)


def allocation_facts(groups: Sequence[Group], settings: RolloutRecipe, total: int) -> dict[str, Any]:
    """What was drawn, and what an undecided prompt gets in all, `total`.

    Returns
    -------
    dict
        allocation; num_generations; generated_tokens; completions_saved, against num_generations of every prompt (what
        they would have been long is not known); n_stopped, prompts without the later completions; mean_reward, the mean
        over prompts of the unbiased success rate, which for `fixed` is the mean over completions.
    """
    first = settings.first_generations if settings.allocation == "sequential" else total
    drawn = [len(group.completions) for group in groups]
    success_rate, _ = unbiased_estimates([int(sum(group.rewards)) for group in groups], drawn, first, total)
    return {
        "allocation": settings.allocation,
        "num_generations": total,
        "generated_tokens": completion_tokens(groups),
        "completions_saved": total * len(groups) - sum(drawn),
        "n_stopped": sum(n < total for n in drawn),
        "mean_reward": float(success_rate.mean()),
    }


def _allocation_lines(facts: dict[str, Any], settings: RolloutRecipe, stage: str) -> list[str]:
    if settings.allocation != "sequential":
        return []
    return [
        f"{stage}: {facts['n_stopped']} of {facts['n_prompts']} prompts stopped after "
        f"{settings.first_generations} equal rewards, which saved {facts['completions_saved']} of "
        f"{facts['n_prompts'] * facts['num_generations']} completions"
    ]


def _more_keys(recipe: Recipe) -> tuple[str, ...]:
    """Of predicted rollouts also what is to be chosen, and how gradients are taken."""
    if not predicts(recipe):
        return drawn(recipe)
    rows = () if recipe_method(recipe).ranks_by == "learnability" else ("gradients",)
    return (*drawn(recipe), *rows, "selection.method", "selection.n", *aimed_at(recipe))


def _unread(recipe: Recipe) -> tuple[str, ...]:
    """The target, where no prediction aims at it."""
    aims = predicts(recipe) and recipe_method(recipe).ranks_by == "target"
    return () if aims else (TARGET.rollouts, TARGET.gradients)


STAGE = Stage(
    "rollouts",
    "rollout",
    "Sample completions for every prompt, and reward them.",
    run,
    (*POLICY, "rollouts"),
    ("data", "warmup", TARGET.rollouts, TARGET.gradients, STATES),
    more_keys=_more_keys,
    unread=_unread,
    needed=asked_for("rollouts"),
    samples=True,
    work="rollouts",
)
