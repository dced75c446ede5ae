"""The prompts whose completions are longest.

    value_i = (1/G) sum_g |o_ig|      (n,), tokens

Source: the token-length baseline of LearnAlign, arXiv 2506.11480; long answers as a criterion: arXiv 2402.04833.

Differs from LearnAlign in:

1. The length is that of the policy's own completions, which a pool without written solutions has; the paper does not
   say whose.  A completion that was cut off counts as long as the limit.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n longest."""
    return best(pool, given(pool.n_tokens, "n_tokens"), n, f"the {n} longest mean completions of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="token-length",
    needs=frozenset({"rollouts"}),
    choose=choose,
    source="baseline of LearnAlign, arXiv 2506.11480; arXiv 2402.04833",
    departures=("length of the policy's own completions",),
)
