"""The prompts whose gradients agree with those of a target, learnability left out.

    value_i = (1/|T|) sum_{j in T} cos(phi_i, phi_j) = <u_i, (1/|T|) sum_{j in T} u_j>      (n,)

T are the labelled problems that `selection.target` names.  Of a prompt that is one of them its own term is left out.

Source: ours, after the ablation without learnability of LearnAlign, arXiv 2506.11480.

Differs from `alignment` in:

1. The mean is over the target, not over the pool, and j = i is left out.
"""

from __future__ import annotations

import numpy as np

from lean_align.scoring.aimed import aimed_alignment
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest mean cosine with the target."""
    target = given(pool.target, "target")
    rows, own = given(pool.gradients, "gradients"), target.rows("gradients")
    values = aimed_alignment(rows, own, np.ones(len(target)), target.in_both)
    return best(pool, values, n, f"the {n} highest mean cosines with {len(target)} problems of {len(pool)} gradients")


METHOD = SelectionMethod(
    name="alignment-target",
    needs=frozenset({"gradients", "target"}),
    choose=choose,
    source="ours, after an ablation of LearnAlign, arXiv 2506.11480",
    departures=("aligned with a target, j = i left out",),
)
