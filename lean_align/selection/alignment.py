"""The prompts whose gradients agree with those of the pool, learnability left out.

    value_i = (1/n) sum_j cos(phi_i, phi_j) = <u_i, (1/n) sum_j u_j>      (n,)

Source: the ablation without learnability of LearnAlign, arXiv 2506.11480.

Differs from LearnAlign in:

1. A prompt with p in {0, 1} has no gradient.  Its row is zero, so that it counts in n and agrees with nothing.
"""

from __future__ import annotations

import numpy as np

from lean_align.scoring.score import weighted_alignment
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest mean cosine."""
    values = weighted_alignment(given(pool.gradients, "gradients"), np.ones(len(pool)))
    return best(pool, values, n, f"the {n} highest mean cosines of {len(pool)} gradients")


METHOD = SelectionMethod(
    name="alignment",
    needs=frozenset({"gradients"}),
    choose=choose,
    source="ablation of LearnAlign, arXiv 2506.11480",
    departures=("prompts without a gradient agree with nothing",),
)
