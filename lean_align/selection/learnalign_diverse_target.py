"""LearnAlign with an aim, near-duplicate gradients discounted: greedy.

    value_i = score_i (1 - max_{s chosen} max(0, cos(u_i, u_s))),   score_i = V_i <u_i, m_T>

score_i is that of `learnalign-target`; the rest is `learnalign-diverse`.

Source: ours, after LearnAlign, arXiv 2506.11480.

Differs from `learnalign-diverse` in:

1. Scores are aimed at the target, and j = i is left out.
"""

from __future__ import annotations

from lean_align.selection.learnalign_diverse import diverse_choice
from lean_align.selection.learnalign_target import aimed_scores
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool


def choose(pool: SelectionPool, n: int) -> Choice:
    """The greedy choice by aimed score and by distance from what was chosen."""
    return diverse_choice(pool, aimed_scores(pool), n, "highest aimed scores")


METHOD = SelectionMethod(
    name="learnalign-diverse-target",
    needs=frozenset({"gradients", "target"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480",
    departures=("aligned with a target, j = i left out", "greedy, discounted by the cosine with those chosen before"),
    ranks_by="target",
)
