"""Prompts that an online selection draws, step by step, and what it is told of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.online import OnlineSelector, StepOrder
from lean_align.types import Group, Prompt


class DrawnSeries:
    """The series of one step after another; each has every prompt of the pool once.

    Parameters
    ----------
    prompts : sequence of Prompt
        The pool, in the selector's order.
    selector : OnlineSelector
        Changed in place.
    """

    def __init__(self, prompts: Sequence[Prompt], selector: OnlineSelector) -> None:
        self.prompts, self.selector = prompts, selector
        self._order = StepOrder(np.empty(0, dtype=np.int64), np.empty(0, dtype=bool))

    def begin(self, step: int) -> None:
        """Draw the order of a step, counted from 0."""
        self._order = self.selector.order(step)

    def take(self, first: int, n: int) -> list[Prompt]:
        """The prompts at places [first, first + n) of the step; fewer where the pool ends."""
        return [self.prompts[place] for place in self._order.places[first : first + n].tolist()]

    def facts(self, n: int) -> dict[str, float]:
        """Of the first n prompts of a step that has begun: how many were drawn to explore, and are met first now."""
        new = self.selector.posterior.last[self._order.places[:n]] < 0
        return {"explored": int(self._order.explored[:n].sum()), "first_met": int(new.sum())}

    def observe(self, step: int, groups: Sequence[Group], rows: Mapping[int, NDArray[np.float16]]) -> None:
        """Tell the selection how a step's groups went, with the rows of those that have one, by place in the step.

        With a KL term groups of equal rewards have a gradient too, which says nothing of the prompt.
        """
        for i, group in enumerate(groups):
            row = rows.get(i) if len(set(group.rewards)) > 1 else None
            self.selector.observe(step, self.selector.place_of[group.prompt.prompt_id], group.rewards, row)

    def state(self) -> dict[str, Any]:
        """The selection's state, of tensors and plain values."""
        found = self.selector.state_dict()
        return {**found, "arrays": {name: torch.from_numpy(array) for name, array in found["arrays"].items()}}

    def restore(self, state: Mapping[str, Any], source: str) -> None:
        """Go on from a state.

        Raises
        ------
        DataError
            When it is of another run, pool or projection.
        """
        arrays = {name: tensor.numpy() for name, tensor in state["arrays"].items()}
        self.selector.load_state_dict({**state, "arrays": arrays}, source)
