"""The order in which a training meets its prompts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from lean_align.rng import rng_for
from lean_align.types import Prompt


class Series(Protocol):
    """Prompts by their place."""

    def take(self, first: int, n: int) -> Sequence[Prompt]:
        """The prompts at places [first, first + n); fewer where the series ends."""
        ...


class PromptSeries:
    """An endless series of passes over some prompts, each in a seeded order of its own.

    Parameters
    ----------
    prompts : sequence of Prompt
        Not empty.
    seed, stage : int, str
        What the orders are drawn from.
    """

    def __init__(self, prompts: Sequence[Prompt], seed: int, stage: str) -> None:
        self.prompts, self.seed, self.stage = prompts, seed, stage
        self._order: list[Prompt] = []

    def take(self, first: int, n: int) -> list[Prompt]:
        """The prompts at places [first, first + n) of the series."""
        while len(self._order) < first + n:
            epoch = len(self._order) // len(self.prompts)
            order = rng_for(self.seed, f"{self.stage}.order", epoch).permutation(len(self.prompts))
            self._order += [self.prompts[i] for i in order]
        return self._order[first : first + n]


def training_order(prompts: Sequence[Prompt], n: int, seed: int, stage: str) -> list[Prompt]:
    """The first n prompts of a `PromptSeries`."""
    return PromptSeries(prompts, seed, stage).take(0, n)
