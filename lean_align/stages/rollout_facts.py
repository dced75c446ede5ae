"""What the rollouts of a run can teach: shares of prompts and completions, in numbers and in words."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lean_align.errors import NothingToLearnError
from lean_align.stages.inputs import POOL, Sampled, read_groups
from lean_align.types import Group
from lean_align.verify import extract_answer

FEW = 0.1
SAMPLE_COMPLETIONS = 3
SAMPLE_CHARACTERS = 400


def groups_to_learn(run_dir: Path, which: Sampled = POOL) -> list[Group]:
    """Every group of the rollouts of some prompts.

    Raises
    ------
    NothingToLearnError
        When no group has rewards that differ.
    """
    groups = read_groups(run_dir, which)
    if not any(group.learnability > 0 for group in groups):
        lines = rollout_lines(rollout_facts(groups), groups, which.rollouts)
        raise NothingToLearnError("\n".join(lines) + f"\nThe rollouts are kept in {run_dir / which.rollouts}.")
    return groups


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


def rollout_lines(facts: dict[str, Any], groups: Sequence[Group], stage: str = "rollouts") -> list[str]:
    """The facts in words; with few or no learnable prompts also the likely reason, and sample completions."""
    lines = [
        f"{stage}: {facts['share_learnable']:.1%} of {facts['n_prompts']} prompts can teach (success rate between 0 "
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
