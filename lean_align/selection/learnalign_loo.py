"""LearnAlign without a prompt's agreement with itself.

    score_i = (1/(n-1)) sum_{j != i} V_i V_j cos(phi_i, phi_j)      (n,)

The term j = i, V_i^2, says nothing of the other prompts.  Where gradients of different prompts are nearly orthogonal
it is as large as all others together, and LearnAlign then ranks by V.

Source: ours; LearnAlign, arXiv 2506.11480, without the diagonal.

Differs from LearnAlign in:

1. j = i is left out, and the mean is over n - 1.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest leave-one-out scores."""
    score = given(pool.scores, "scores").leave_one_out
    return best(pool, score, n, f"the {n} highest scores, j = i left out, of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="learnalign-loo",
    needs=frozenset({"scores"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480",
    departures=("the term j = i is left out",),
    ranks_by="leave-one-out",
)
