"""Every prompt in random order, and a training that replaces groups without a spread of rewards: what many use instead
of a choice.

The pool in a permutation from a generator of (seed, "selection", "dynamic-sampling").  The training takes its prompts
with `training.refill`: where all rewards of a prompt are equal, the next prompt is sampled in its place.  Nothing is
spent before the training; the further prompts are its own cost.

Source: dynamic sampling of DAPO, arXiv 2503.14476, section 3.2.

Differs from DAPO in:

1. Dynamic sampling alone: neither its clipping, nor its loss over tokens, nor its shaping of lengths.
2. Further prompts are sampled up to a budget of tokens (`training.refill_tokens`), not until the step is full.
"""

from __future__ import annotations

import numpy as np

from lean_align.rng import rng_for
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool

NAME = "dynamic-sampling"


def choose(pool: SelectionPool, n: int) -> Choice:
    """Every prompt, in random order; n is not looked at."""
    order = rng_for(pool.seed, "selection", NAME).permutation(len(pool)).astype(np.int64, copy=False)
    return Choice(order, None, f"every prompt of the pool, in random order, seed {pool.seed}")


METHOD = SelectionMethod(
    name=NAME,
    needs=frozenset(),
    choose=choose,
    source="DAPO, arXiv 2503.14476",
    departures=("dynamic sampling alone, not DAPO's loss and clipping", "further prompts up to a budget of tokens"),
    keeps_all=True,
    trains_with={"refill": True},
)
