"""The prompts that the policy solves about half of the time.

    value_i = V_i = p_i (1 - p_i)      (n,), in [0, 1/4]

With G completions V has G/2 + 1 levels or so: most choices are made by the tie rule, prompt_id.

Source: sampling for learnability, arXiv 2502.12272; V alone in LearnAlign, arXiv 2506.11480.

Differs from arXiv 2502.12272 in:

1. V is taken once, before training, and the highest are kept; there it is taken again as the policy changes, and
   prompts are drawn from a set of the best.
2. Under sequential rollouts V is the unbiased estimate.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest learnability."""
    return best(pool, given(pool.learnability(), "rewards"), n, f"the {n} highest V_i of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="learnability",
    needs=frozenset({"rollouts"}),
    choose=choose,
    source="arXiv 2502.12272; V alone in LearnAlign, arXiv 2506.11480",
    departures=("taken once, before training",),
    ranks_by="learnability",
)
