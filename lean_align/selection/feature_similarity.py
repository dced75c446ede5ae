"""LearnAlign with hidden states in place of gradients.

    S_ij = V_i V_j cos(h_i, h_j),   score_i = (1/n) sum_j S_ij      (n,)

h_i (hidden size,) is the mean hidden state of prompt i, as the stage `features` takes it.

Source: the feature-similarity ablation of LearnAlign, arXiv 2506.11480.

Differs from LearnAlign in:

1. The paper does not say which layer and which tokens; those are the stage's choice.
2. Hidden states are not centred: what all prompts have in common raises every cosine, and V decides more than it does
   with gradients.
"""

from __future__ import annotations

from lean_align.scoring.score import score_prompts
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest scores over hidden states."""
    p, v = given(pool.success_rate(), "rewards"), pool.learnability()
    scores = score_prompts(given(pool.features, "features"), p, learnability=v)
    return best(pool, scores.score, n, f"the {n} highest V_i <h_i, m> over hidden states of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="feature-similarity",
    needs=frozenset({"features"}),
    choose=choose,
    source="ablation of LearnAlign, arXiv 2506.11480",
    departures=("layer and tokens are our choice",),
)
