"""The whole pool, in its order: what a subset is compared with.

Source: the full-data baseline of LearnAlign, arXiv 2506.11480.

Differs from LearnAlign in:

1. Trainings of a comparison take equal numbers of steps, so that a large pool is not seen once through.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lean_align.selection.method import Choice, SelectionMethod, describe
from lean_align.selection.pool import SelectionPool
from lean_align.types import Selection


def choose(pool: SelectionPool, n: int) -> Choice:
    """Every prompt; n is not looked at."""
    return Choice(np.arange(len(pool), dtype=np.int64), None, "every prompt of the pool")


METHOD = SelectionMethod(
    name="full",
    needs=frozenset(),
    choose=choose,
    source="baseline of LearnAlign, arXiv 2506.11480",
    departures=("equal steps in a comparison, not one pass over the pool",),
    keeps_all=True,
)


def select_full(prompt_ids: Sequence[str]) -> Selection:
    """Keep every prompt, in the order given."""
    pool = SelectionPool(tuple(prompt_ids), tuple(prompt_ids), seed=0)
    return describe(METHOD.name, pool, choose(pool, len(pool)))
