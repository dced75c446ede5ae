"""How completions are drawn, the windows of prompts that are decoded and written as one, and what decodes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from lean_align.recipe import Recipe
from lean_align.rng import rng_for
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn.

    Attributes
    ----------
    num_generations : int
        Completions per prompt: G, or those of one pass of a sequential allocation.
    temperature : float
        0 is greedy decoding.
    max_new_tokens : int
        Longest completion, its end token included.
    batch_size : int
        Completions decoded at the same time; all of a prompt fit even where it is smaller.
    seed, stage : int, str
        What the noise is drawn from, besides prompt_id and index.
    window : int
        Completions that share a continuous batch and are written together.
    top_p : float
        Tokens are drawn from the smallest set whose probabilities add up to it; 1 is all of them.
    first_index : int
        Index of each prompt's first completion: a completion's noise is that of its index, whichever pass draws it.
    """

    num_generations: int
    temperature: float
    max_new_tokens: int
    batch_size: int
    seed: int
    stage: str
    window: int = 512
    top_p: float = 1.0
    first_index: int = 0

    @classmethod
    def of_rollouts(cls, recipe: Recipe) -> Sampling:
        """That of a recipe's rollouts: what success rates and gradients are taken from."""
        settings, count = recipe.rollouts, recipe.selection_generations
        drawn = count, settings.temperature, settings.max_new_tokens
        return cls(*drawn, settings.batch_size, recipe.seed, "rollouts", settings.window)

    @classmethod
    def of_evaluation(
        cls,
        recipe: Recipe,
        problems: str,
        num_samples: int,
        max_new_tokens: int,
        temperature: float = 0.0,
        top_p: float = 1.0,
    ) -> Sampling:
        """That of a set of problems, by its name: the noise is the same for every model."""
        settings, drawn = recipe.evaluation, (num_samples, temperature, max_new_tokens)
        return cls(*drawn, settings.batch_size, recipe.seed, problems, settings.window, top_p)

    @property
    def indices(self) -> range:
        """Indices of the completions of each prompt."""
        return range(self.first_index, self.first_index + self.num_generations)

    @property
    def slots(self) -> int:
        """Rows of the batch: `batch_size`, or `num_generations` where that is more."""
        return max(self.batch_size, self.num_generations)

    def noise(self, prompt_id: str, index: int) -> NDArray[np.float64]:
        """Uniforms in [0, 1) of one completion, (max_new_tokens,) float64."""
        return rng_for(self.seed, self.stage, f"{prompt_id}/{index}").random(self.max_new_tokens)


def make_windows(
    prompts: Sequence[Prompt], lengths: Sequence[int], sampling: Sampling
) -> tuple[tuple[Prompt, ...], ...]:
    """Cut prompts into windows of similar length.

    Parameters
    ----------
    prompts : sequence of Prompt
    lengths : sequence of int
        Tokens of each prompt.
    sampling : Sampling
        `window` counts completions; a window holds at least one prompt.

    Returns
    -------
    tuple of tuple of Prompt
        Longest prompts first, so that memory runs out at once or never; equal lengths by prompt_id.
    """
    per_window = max(1, sampling.window // sampling.num_generations)
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], prompts[i].prompt_id))
    return tuple(
        tuple(prompts[i] for i in order[start : start + per_window]) for start in range(0, len(order), per_window)
    )


Groups = Sequence[Sequence[tuple[int, ...]]]


class Engine(Protocol):
    """Samples the completions of some prompts.

    Attributes
    ----------
    encoder : PromptEncoder
    eos_token_ids : tuple of int
        Any of them ends a completion.
    """

    @property
    def encoder(self) -> PromptEncoder: ...  # noqa: D102

    @property
    def eos_token_ids(self) -> tuple[int, ...]: ...  # noqa: D102

    def with_encoder(self, encoder: PromptEncoder) -> Engine:
        """The same engine, with prompts put to it in another way."""
        ...

    def sample(self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[int], None]) -> Groups:
        """Token ids by prompt and index, an end token the last; `advance` is told how many have just ended."""
        ...
