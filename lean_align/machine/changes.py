"""The keys of a recipe with which a stage fits."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from lean_align.recipe import Recipe, TrainerRecipe


def changes_that_fit(name: str, recipe: Recipe, fits: Callable[[Recipe], bool]) -> tuple[str, ...]:
    """Keys and values with which a stage fits, in the order in which they cost least; none when none helps."""
    changed: dict[str, Any] = {}
    for key, value in _candidates(name, recipe):
        changed[key] = value
        if fits(_with_keys(recipe, changed)):
            for other in list(changed):  # what turns out not to be needed stays as it was
                fewer = {k: v for k, v in changed.items() if k != other}
                changed = fewer if fits(_with_keys(recipe, fewer)) else changed
            return tuple(f"{k}={str(v).lower()}" for k, v in changed.items())
    return ()


def _with_keys(recipe: Recipe, changed: Mapping[str, Any]) -> Recipe:
    for key, value in changed.items():
        recipe = with_key(recipe, key, value)
    return recipe


def _candidates(name: str, recipe: Recipe) -> Iterator[tuple[str, Any]]:
    section = getattr(recipe, name)
    if name in ("rollouts", "evaluation"):
        least = recipe.selection_generations if name == "rollouts" else 1
        yield from _halves(f"{name}.batch_size", section.batch_size, least)
        return
    if not section.gradient_checkpointing:
        yield f"{name}.gradient_checkpointing", True
    if name == "gradients":
        yield from _halves("gradients.token_budget", section.token_budget, 256)
        yield from _halves("gradients.logprob_chunk", section.logprob_chunk, 64)
        return
    yield from _smaller_batches(name, section, recipe.rollouts.num_generations)


def _smaller_batches(name: str, trainer: TrainerRecipe, num_generations: int) -> Iterator[tuple[str, Any]]:
    """First what is sampled at once, down to the larger of a micro-batch and a group; then the micro-batch."""
    step = trainer.prompts_per_step * num_generations
    unit, at_once = math.lcm(trainer.micro_batch, num_generations), trainer.sampled_at_once(num_generations)
    for _, size in _halves("", at_once, unit):
        fitting = next(n for n in range(size // unit * unit, 0, -unit) if step % n == 0)
        yield f"{name}.sampling_batch", fitting
    yield from _halves(f"{name}.micro_batch", trainer.micro_batch, 1)


def _halves(key: str, value: int, least: int) -> Iterator[tuple[str, int]]:
    while value // 2 >= least:
        value //= 2
        yield key, value


def with_key(recipe: Recipe, key: str, value: Any) -> Recipe:
    """The recipe with one dotted key changed."""
    section, field = key.split(".")
    changed = dataclasses.replace(getattr(recipe, section), **{field: value})
    return dataclasses.replace(recipe, **{section: changed})
