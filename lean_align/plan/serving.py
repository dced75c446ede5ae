"""Whether a recipe's model can be sampled from, differentiated and trained: asked before anything costs."""

from __future__ import annotations

from lean_align.policy.families import family_of
from lean_align.policy.shapes import model_config, shape_policy
from lean_align.recipe import Recipe
from lean_align.rollouts.support import PLAIN, rollout_path


def check_model_serves(recipe: Recipe, longest: int | None = None) -> tuple[str, ...]:
    """Refuse a model that a later stage would, from its configuration and a copy of it that holds no numbers.

    Parameters
    ----------
    recipe : Recipe
    longest : int, optional
        Tokens of the longest prompt with a completion; without it every window counts as shorter.

    Returns
    -------
    tuple of str
        What is done otherwise than for a plain decoder, and why.

    Raises
    ------
    ModelError
        When it completes no text, cannot be decoded, or takes no adapter on `lora.target_modules`.
    """
    family = family_of(model_config(recipe.model))
    notes = []
    if recipe.rollouts.engine != "vllm":  # which decodes in its own way
        path = rollout_path(family, longest).or_refuse()
        notes += [path.reason] if path.name != PLAIN else []
    shape_policy(recipe.model, recipe.lora, 1)
    return tuple(notes)
