"""The prompts whose questions surprise the policy most.

    value_i = exp(-(1/|x_i|) sum_t log pi(x_i,t | x_i,<t))      (n,), of the question x_i

Source: perplexity as a criterion of selection, arXiv 2309.04564.

Differs from arXiv 2309.04564 in:

1. Perplexity is the policy's own, of the question; there a reference model's, of pretraining text.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest perplexity."""
    return best(pool, given(pool.perplexity, "perplexity"), n, f"the {n} questions of highest perplexity")


METHOD = SelectionMethod(
    name="top-ppl",
    needs=frozenset({"perplexity"}),
    choose=choose,
    source="after arXiv 2309.04564",
    departures=("the policy's perplexity of the question",),
)
