"""LearnAlign with an aim, and with hidden states in place of gradients.

    score_i = V_i <h_i, m_T>,   m_T = (1/|T|) sum_{j in T} V_j h_j      (n,)

h_i (hidden size,) is the mean hidden state of prompt i at length 1, as the stages `features` and `target_features` take
it.  Of a prompt that is a problem of the target its own term is left out of m_T.

Source: ours, after the feature-similarity ablation of LearnAlign, arXiv 2506.11480.

Differs from `feature-similarity` in:

1. The mean is over the target, not over the pool, and j = i is left out.
"""

from __future__ import annotations

from lean_align.selection.learnalign_target import aimed_scores
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest aimed scores over hidden states."""
    explanation = f"the {n} highest V_i <h_i, m_T> over hidden states of {len(pool)} prompts, m_T of "
    return best(pool, aimed_scores(pool, "features"), n, f"{explanation}{len(given(pool.target, 'target'))} problems")


METHOD = SelectionMethod(
    name="feature-similarity-target",
    needs=frozenset({"features", "target"}),
    choose=choose,
    source="ours, after an ablation of LearnAlign, arXiv 2506.11480",
    departures=("aligned with a target, j = i left out",),
)
