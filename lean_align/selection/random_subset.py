"""A subset at random: the control that every method has to beat.

n of the pool's prompts without replacement, from a generator of (seed, "selection").  The n are the head of one
permutation, so that a larger subset contains the smaller.

Source: the random baseline of LearnAlign, arXiv 2506.11480.

Differs from LearnAlign in:

1. Nothing; the paper says no more than that it is random.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from lean_align.rng import rng_for
from lean_align.selection.method import Choice, SelectionMethod, check_n, describe
from lean_align.selection.pool import SelectionPool
from lean_align.types import Selection


def choose(pool: SelectionPool, n: int) -> Choice:
    """n at random."""
    order = rng_for(pool.seed, "selection").permutation(len(pool))[:n].astype(np.int64, copy=False)
    return Choice(order, None, f"{n} at random, seed {pool.seed}")


METHOD = SelectionMethod(
    name="random", needs=frozenset(), choose=choose, source="baseline of LearnAlign, arXiv 2506.11480"
)


def select_random(prompt_ids: Sequence[str], n: int, seed: int) -> Selection:
    """Draw n prompts without replacement from a generator of (seed, "selection")."""
    check_n(n, len(prompt_ids))
    pool = SelectionPool(tuple(prompt_ids), tuple(prompt_ids), seed)
    return describe(METHOD.name, pool, choose(pool, n))
