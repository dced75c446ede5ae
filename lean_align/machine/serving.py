"""Whether a recipe's model can be sampled from, differentiated and trained: asked before anything costs."""

from __future__ import annotations

from lean_align.choices import choose_engine
from lean_align.gradients.paths import SHARED, gradient_path, why_plain
from lean_align.policy.families import family_of
from lean_align.policy.output_layer import backbone_of
from lean_align.policy.shapes import model_config, shape_policy
from lean_align.recipe import Recipe
from lean_align.rollouts.support import PLAIN, rollout_path
from lean_align.selection import find_method


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
        When it completes no text, cannot be decoded or differentiated, or takes no adapter on `lora.target_modules`.
    """
    family = family_of(model_config(recipe.model))
    notes = []
    engine = recipe.rollouts.engine
    if engine != "vllm" and choose_engine(engine) != "vllm":  # which decodes in its own way
        path = rollout_path(family, longest).or_refuse()
        notes += [path.reason] if path.name != PLAIN else []
    shaped = shape_policy(recipe.model, recipe.lora, 1)
    if "gradients" in find_method(recipe.selection.method).needs:
        backbone_of(shaped.causal_lm)
        if gradient_path(family) != SHARED and recipe.gradients.share_prompt:
            notes.append(f"{why_plain(family)}: gradients compute the prompt anew for each completion, which is slower")
    return tuple(notes)
