"""How long the rest of a comparison will take, from the cells that this call has made."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from lean_align.compare.facts import CellFacts
from lean_align.progress import duration


@dataclass
class Pace:
    """Seconds of finished cells; the first of a seed makes the stages that the others share, so it counts apart."""

    firsts: list[float] = field(default_factory=list)
    others: list[float] = field(default_factory=list)

    @contextmanager
    def timed(self, first: bool) -> Iterator[None]:
        """Time a cell; one that fails says nothing about the others."""
        began = time.monotonic()
        yield
        (self.firsts if first else self.others).append(time.monotonic() - began)

    def to_go(self, cells: Sequence[bool]) -> str:
        """`, about 25 min to go`, of cells that are each the first of their seed or not; empty before one has ended."""
        if not self.firsts and not self.others:
            return ""
        means = {True: np.mean(self.firsts or self.others), False: np.mean(self.others or self.firsts)}
        return f", about {duration(float(sum(means[first] for first in cells)))} to go"


def outcome(facts: CellFacts) -> str:
    """`61.2 % right, the base 55.0 %`."""
    own, base = (100 * np.mean(list(rewards.values())) for rewards in (facts.rewards, facts.base_rewards))
    return f"{own:.1f} % right, the base {base:.1f} %"
