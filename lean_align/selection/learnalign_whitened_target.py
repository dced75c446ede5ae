"""LearnAlign with an aim, in the metric of the pool's second moment.

    score_i = V_i u_i^T (C + lambda I)^-1 m_T      (n,)
    C = (1/n) sum_j V_j u_j u_j^T over the pool,    m_T = (1/|T|) sum_{j in T} V_j u_j

T are the problems that `selection.target` names.  Prompt i is left out of C, and of m_T where it is one of them.
lambda = selection.whiten_ridge x trace(C).  Of what the target asks for, the directions that many prompts of the pool
share count less, and those that few of them have count more.

Source: ours, after LearnAlign (arXiv 2506.11480) and LESS (arXiv 2402.04333); natural gradient, Amari 1998.

Differs from `learnalign-target` in:

1. The inner product is that of (C + lambda I)^-1 (`lean_align.scoring.whitening`).
"""

from __future__ import annotations

from lean_align.scoring.aimed import mean_without, target_mean
from lean_align.scoring.whitening import Aim, whitened_scores
from lean_align.selection.learnalign_whitened import RIDGE_KEY, how_whitened
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest whitened scores towards the target."""
    target, v = given(pool.target, "target"), given(pool.learnability(), "rewards")
    rows = target.rows("gradients")
    mean = target_mean(rows, target.learnability)
    own = {i: mean - mean_without(rows, target.learnability, mean, found) for i, found in target.in_both.items()}
    found = whitened_scores(given(pool.gradients, "gradients"), v, Aim(mean, own), pool.whiten_ridge)
    explanation = f"the {n} highest V_i <u_i, m_T> {how_whitened(found)}, m_T of {len(target)} problems"
    return best(pool, found.score, n, explanation)


METHOD = SelectionMethod(
    name="learnalign-whitened-target",
    needs=frozenset({"gradients", "target"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480, and LESS, arXiv 2402.04333",
    departures=("aligned with a target", "whitened by the pool's second moment", "j = i left out"),
    keys=(RIDGE_KEY,),
)
