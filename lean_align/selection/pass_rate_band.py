"""Prompts at random among those that are neither too easy nor too hard.

    0.1 < p_i < 0.9      (p_i the mean reward of prompt i's completions)

Source: Open-R1 (https://github.com/huggingface/open-r1, scripts/pass_rate_filtering), whose bounds these are.

Differs from Open-R1 in:

1. Open-R1 keeps all that pass; here n of them are drawn, the head of one permutation of (seed, "selection",
   "pass-rate-band").
2. When fewer than n pass, the others are drawn from outside the band, and the explanation says how many.
"""

from __future__ import annotations

import numpy as np

from lean_align.rng import rng_for
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool, given

LOWEST, HIGHEST = 0.1, 0.9


def choose(pool: SelectionPool, n: int) -> Choice:
    """n at random from the band; the rest from outside."""
    p = given(pool.success_rate(), "rewards")
    inside = (p > LOWEST) & (p < HIGHEST)
    drawn = rng_for(pool.seed, "selection", "pass-rate-band").permutation(len(pool))
    order = np.concatenate([drawn[inside[drawn]], drawn[~inside[drawn]]])[:n].astype(np.int64, copy=False)
    n_inside = int(inside.sum())
    explanation = f"{min(n, n_inside)} at random of {n_inside} prompts with {LOWEST} < p < {HIGHEST}"
    return Choice(order, None, explanation + (f", {n - n_inside} from outside" if n > n_inside else ""))


METHOD = SelectionMethod(
    name="pass-rate-band",
    needs=frozenset({"rollouts"}),
    choose=choose,
    source="Open-R1, scripts/pass_rate_filtering",
    departures=("n drawn from the band, filled up from outside",),
)
