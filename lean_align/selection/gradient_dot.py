"""The prompts whose gradients have the largest inner product with the pool's mean gradient.

    value_i = <g_i, (1/n) sum_j g_j> = |g_i| <u_i, (1/n) sum_j |g_j| u_j>      (n,)

No normalisation and no learnability: long gradients win, and the length of a gradient goes with the length of the
completions.  It is here to show that bias.

Source: influence by gradient products, TracIn, arXiv 2002.08484; LESS (arXiv 2402.04333) normalises for that reason.

Differs from TracIn in:

1. One checkpoint, the warm-up's, and the pool itself in place of test examples.
2. g is the projected LoRA gradient of the policy loss.
"""

from __future__ import annotations

import numpy as np

from lean_align.scoring.score import weighted_alignment
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of largest inner product."""
    gradients = given(pool.gradients, "gradients")
    norms = np.asarray(gradients.norms, dtype=np.float64)
    values = norms * weighted_alignment(gradients, norms)
    return best(pool, values, n, f"the {n} largest <g_i, mean g> of {len(pool)} gradients, not normalised")


METHOD = SelectionMethod(
    name="gradient-dot",
    needs=frozenset({"gradients"}),
    choose=choose,
    source="TracIn, arXiv 2002.08484",
    departures=("one checkpoint", "the pool in place of test examples", "LoRA gradients, projected"),
)
