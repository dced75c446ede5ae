"""The prompts that the policy itself rates highest, with the certainty of its rating.

    value_i = rating of prompt i      (n,), as the stage `ratings` takes it

Source: SelectIT, arXiv 2402.16705.

Differs from SelectIT in:

1. One model rates, the policy; the source also averages over models of several sizes.
2. What is rated is a question with the policy's own completion, not a written answer.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest rating."""
    return best(pool, given(pool.rating, "rating"), n, f"the {n} highest ratings of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="selectit",
    needs=frozenset({"ratings"}),
    choose=choose,
    source="SelectIT, arXiv 2402.16705",
    departures=("one model rates", "the policy's own completion is rated"),
)
