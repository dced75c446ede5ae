"""LearnAlign with an aim: the prompts that can be learnt, and whose gradients agree with those of a target.

    score_i = V_i <u_i, m_T>,   m_T = (1/|T|) sum_{j in T} V_j u_j      (n,)

T are the labelled problems that `selection.target` names.  Of a prompt that is one of them its own term is left out of
m_T.  Everything else is LearnAlign's.

Source: ours, after LearnAlign (arXiv 2506.11480) and LESS (arXiv 2402.04333).

Differs from LearnAlign in:

1. The mean is over the target, not over the pool, and j = i is left out.

Differs from LESS in:

1. Gradients are of a policy that is trained by rewards, at one checkpoint, and weighed by learnability on both sides.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from lean_align.scoring.aimed import aimed_alignment
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest aimed scores."""
    target = given(pool.target, "target")
    explanation = f"the {n} highest scores V_i <u_i, m_T> of {len(pool)} prompts, m_T of {len(target)} problems"
    return best(pool, aimed_scores(pool), n, explanation)


def aimed_scores(pool: SelectionPool, rows: str = "gradients") -> NDArray[np.float64]:
    """V_i <u_i, m_T> of each prompt, (n,) float64; with rows "features", over hidden states."""
    target, v = given(pool.target, "target"), given(pool.learnability(), "rewards")
    found = given(getattr(pool, rows), rows), target.rows(rows)
    return v * aimed_alignment(*found, target.learnability, target.in_both)


METHOD = SelectionMethod(
    name="learnalign-target",
    needs=frozenset({"gradients", "target"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480, and LESS, arXiv 2402.04333",
    departures=("aligned with a target, j = i left out",),
    ranks_by="target",
)
