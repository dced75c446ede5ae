"""The online selection of a run's final training: what it is made for, and what it drew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder, canonical_json, read_inputs, text_hash
from lean_align.errors import RecipeError
from lean_align.online import OnlineSelector, OnlineSettings
from lean_align.recipe import Recipe
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.grpo import TrainerSettings


def online_keys(recipe: Recipe) -> tuple[str, ...]:
    """Keys that a training depends on where it draws its prompts; none names one that has its default."""
    chosen = recipe.selection
    if not chosen.online:
        return ()
    own = (field for field in fields(chosen) if field.name.startswith("online"))
    return tuple(f"selection.{field.name}" for field in own if getattr(chosen, field.name) != field.default)


def online_selector(
    recipe: Recipe, settings: TrainerSettings, prompts: Sequence[Prompt], folder: StageFolder
) -> OnlineSelector | None:
    """What draws the prompts of a training; None of one that is not the final training of an online selection.

    Parameters
    ----------
    recipe : Recipe
    settings : TrainerSettings
    prompts : sequence of Prompt
        The pool.
    folder : StageFolder
        Whose counts have the projection of the rows that are kept.

    Raises
    ------
    RecipeError
        When a step is larger than the pool.
    """
    chosen = recipe.selection
    if not chosen.online or settings.stage != "training":
        return None
    if settings.trainer.prompts_per_step > len(prompts):
        raise RecipeError(
            f"training.prompts_per_step is {settings.trainer.prompts_per_step} and the pool has {len(prompts)} "
            "prompts; expected no more, since an online step meets no prompt twice. Lower it, or take more prompts."
        )
    made_from = read_inputs(folder.path)
    identity = {
        "run": text_hash(canonical_json(None if made_from is None else made_from["inputs"])),
        "pool": text_hash(canonical_json([[prompt.prompt, prompt.answer] for prompt in prompts])),
        "projection": canonical_json(folder.counts["projection"]),
    }
    online = OnlineSettings(chosen.online_discount, chosen.online_exploration, chosen.online_prior_strength)
    aligned = chosen.online_score == "learnalign"
    proj_dim = recipe.gradients.proj_dim if aligned else None
    ids = [prompt.prompt_id for prompt in prompts]
    return OnlineSelector(ids, recipe.seed, settings.stage, online, identity, proj_dim)


def drawn_counts(rewards: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, float]]) -> dict[str, int]:
    """What an online training drew: prompts in all, distinct ones, those drawn to explore, and groups with spread.

    Parameters
    ----------
    rewards, log : sequence of mapping
        Rows of its `rewards.jsonl` and `log.jsonl`; a step on the completions of the one before has no prompts.
    """
    ids = [prompt_id for row in rewards for prompt_id in row["prompt_ids"]]
    explored = sum(int(logged["explored"]) for row, logged in zip(rewards, log, strict=True) if row["prompt_ids"])
    spread = sum(len(set(group)) > 1 for row in rewards for group in row["rewards"])
    return {"n_drawn": len(ids), "n_met": len(set(ids)), "n_explored": explored, "n_with_spread": spread}
