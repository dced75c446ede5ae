"""Completions of the training prompts at the warm-up checkpoint, and what they can teach."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lean_align.disk import disk_errors
from lean_align.pipeline.diagnosis import cut_lines
from lean_align.pipeline.engines import longest_of, sampling_engine
from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import RolloutRecipe
from lean_align.scoring import unbiased_estimates
from lean_align.stages.dependencies import POLICY, asked_for, drawn
from lean_align.stages.inputs import read_groups, read_prompts, reward
from lean_align.types import Group
from lean_align.verify import extract_answer

ROLLOUTS = "rollouts.jsonl"
FEW = 0.1
SAMPLE_COMPLETIONS = 3
SAMPLE_CHARACTERS = 400


def run(stage: StageRun) -> None:
    """Write `rollouts.jsonl`: as many completions of each prompt as the recipe's allocation gives it."""
    from lean_align.rollouts import Sampling, complete, complete_sequentially

    recipe, run_dir, folder = stage.recipe, stage.run_dir, stage.folder
    settings = recipe.rollouts
    sampling = Sampling.of_rollouts(recipe)
    prompts, path = read_prompts(run_dir, "train"), folder.path / ROLLOUTS
    record = recorder(folder, "rollouts")
    # without a warm-up the policy's adapter is a fresh one, which changes nothing before it is trained
    adapter = run_dir / "warmup" / "adapter" if recipe.warmup.steps > 0 else None
    longest = longest_of(prompts, settings.max_new_tokens)
    with sampling_engine(recipe, folder, adapter, longest, sampling.slots, record) as engine:
        rest = (reward, disk_errors, record)
        if settings.allocation == "sequential":
            complete_sequentially(engine, prompts, path, sampling, settings.first_generations, *rest)
        else:
            complete(engine, prompts, path, sampling, *rest)
        end_names = engine.encoder.end_names
    groups = read_groups(run_dir, path)
    facts = rollout_facts(groups) | allocation_facts(groups, settings, recipe.selection_generations)
    folder.counts |= facts
    shares = {"completions": facts["share_truncated"]}
    cut = cut_lines("rollouts", shares, "rollouts.max_new_tokens", end_names)
    for line in (*rollout_lines(facts, groups), *cut, *_allocation_lines(facts, settings)):
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
        "generated_tokens": sum(c.n_tokens for group in groups for c in group.completions),
        "completions_saved": total * len(groups) - sum(drawn),
        "n_stopped": sum(n < total for n in drawn),
        "mean_reward": float(success_rate.mean()),
    }


def _allocation_lines(facts: dict[str, Any], settings: RolloutRecipe) -> list[str]:
    if settings.allocation == "fixed":
        return []
    return [
        f"rollouts: {facts['n_stopped']} of {facts['n_prompts']} prompts stopped after "
        f"{settings.first_generations} equal rewards, which saved {facts['completions_saved']} of "
        f"{facts['n_prompts'] * facts['num_generations']} completions"
    ]


def rollout_facts(groups: Sequence[Group]) -> dict[str, Any]:
    """Shares of prompts and completions that matter for learning.

    Returns
    -------
    dict
        n_prompts, num_generations, n_completions, tokens; share_learnable, share_all_wrong,
        share_all_right (of prompts); share_truncated, share_unparsable, mean_reward (of completions).
    """
    completions = [completion for group in groups for completion in group.completions]
    n, total = len(groups), len(completions)
    return {
        "n_prompts": n,
        "num_generations": len(groups[0].completions),
        "n_completions": total,
        "tokens": sum(c.n_tokens for c in completions),
        "share_learnable": sum(g.learnability > 0 for g in groups) / n,
        "share_all_wrong": sum(g.success_rate == 0 for g in groups) / n,
        "share_all_right": sum(g.success_rate == 1 for g in groups) / n,
        "share_truncated": sum(not c.finished for c in completions) / total,
        "share_unparsable": sum(extract_answer(c.completion) is None for c in completions) / total,
        "mean_reward": sum(c.reward for c in completions) / total,
    }


def rollout_lines(facts: dict[str, Any], groups: Sequence[Group]) -> list[str]:
    """The facts in words; with few or no learnable prompts also the likely reason, and sample completions."""
    lines = [
        f"rollouts: {facts['share_learnable']:.1%} of {facts['n_prompts']} prompts can teach (success rate between 0 "
        f"and 1), {facts['share_all_wrong']:.1%} are always wrong, {facts['share_all_right']:.1%} always right; "
        f"{facts['share_truncated']:.1%} of completions truncated, {facts['share_unparsable']:.1%} without an answer"
    ]
    if facts["share_learnable"] > FEW:
        return lines
    word = "Nothing" if facts["share_learnable"] == 0 else "Little"
    lines.append(f"{word} can be learned from these rollouts. {_advice(facts)}")
    for group in groups[:SAMPLE_COMPLETIONS]:
        completion = group.completions[0]
        text = completion.completion[:SAMPLE_CHARACTERS]
        lines.append(f"  {group.prompt.prompt_id}, gold {group.prompt.answer}, reward {completion.reward:g}: {text!r}")
    return lines


def _advice(facts: dict[str, Any]) -> str:
    if facts["share_truncated"] > 0.5:
        return "Most completions hit the token limit: raise rollouts.max_new_tokens."
    if facts["share_unparsable"] > 0.5:
        return "Most completions hold no answer: state the answer's form in data.prompt_template or system_prompt."
    if facts["share_all_right"] > facts["share_all_wrong"]:
        return "The prompts are too easy for this model: take harder ones, or a smaller model."
    return "The prompts are too hard for this model: take easier ones, a stronger model, or a longer warm-up."


STAGE = Stage(
    "rollouts",
    "rollout",
    "Sample completions for every prompt, and reward them.",
    run,
    (*POLICY, "rollouts"),
    ("data", "warmup"),
    more_keys=drawn,
    needed=asked_for("rollouts"),
    samples=True,
    work="rollouts",
)
