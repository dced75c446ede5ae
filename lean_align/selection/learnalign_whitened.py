"""LearnAlign in the metric of the gradients' second moment: a direction that many prompts share counts once.

    score_i = V_i u_i^T (C + lambda I)^-1 m,    C = (1/n) sum_j V_j u_j u_j^T,    m = (1/n) sum_j V_j u_j      (n,)

with prompt i left out of C and of m, and lambda = selection.whiten_ridge x trace(C).  `lean_align.scoring.whitening`
has the equations, and why the prompt is left out.

Source: ours, after LearnAlign, arXiv 2506.11480; natural gradient, Amari 1998.

Differs from LearnAlign in:

1. The inner product is that of (C + lambda I)^-1.
2. j = i is left out.
"""

from __future__ import annotations

from lean_align.scoring.whitening import WhitenedScores, whitened_scores
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given

RIDGE_KEY = "selection.whiten_ridge"


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest whitened scores."""
    v = given(pool.learnability(), "rewards")
    found = whitened_scores(given(pool.gradients, "gradients"), v, ridge=pool.whiten_ridge)
    return best(pool, found.score, n, f"the {n} highest V_i <u_i, m> {how_whitened(found)}")


def how_whitened(found: WhitenedScores) -> str:
    """What an explanation says of the metric."""
    return f"whitened with lambda = {found.ridge:g} trace(C) over {found.n_rows} gradients, j = i left out"


METHOD = SelectionMethod(
    name="learnalign-whitened",
    needs=frozenset({"gradients"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480",
    departures=("whitened by the gradients' second moment", "j = i left out"),
    keys=(RIDGE_KEY,),
)
