"""LearnAlign: the prompts that can be learnt, and whose gradients agree with those of the pool.

    S_ij = V_i V_j cos(phi_i, phi_j),   score_i = (1/n) sum_j S_ij      (j = i included)

V_i = p_i (1 - p_i) is the learnability, phi_i (k,) the projected policy gradient of prompt i; scores are (n,).  They
are computed in `lean_align.scoring`; here the highest are taken, ties by prompt_id.

Source: LearnAlign, arXiv 2506.11480.

Differs from LearnAlign in:

1. Gradients are of LoRA parameters, and projected; the paper trains all weights.
2. The row mean is computed in closed form, without the n x n matrix.
3. When fewer than n prompts score above 0, others are chosen too: every method gives n prompts.
"""

from __future__ import annotations

from lean_align.selection.method import Choice, SelectionMethod, best, check_n, describe
from lean_align.selection.pool import SelectionPool, given
from lean_align.types import Scores, Selection


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n highest scores."""
    score = given(pool.scores, "scores").score
    return best(pool, score, n, f"the {n} highest scores V_i <u_i, m> of {len(pool)} prompts")


METHOD = SelectionMethod(
    name="learnalign",
    needs=frozenset({"scores"}),
    choose=choose,
    source="LearnAlign, arXiv 2506.11480",
    departures=("LoRA gradients, projected", "row mean in closed form"),
    ranks_by="score",
)


def select_top(scores: Scores, n: int) -> Selection:
    """Keep the n prompts of highest score, ties by prompt_id.

    Parameters
    ----------
    scores : Scores
    n : int
        In [1, number of prompts].

    Returns
    -------
    Selection
        Best first.

    Raises
    ------
    RecipeError
        When there are fewer than n prompts.

    Notes
    -----
    Prompts of learnability 0 score 0.  They are chosen when fewer than n prompts score above 0, as the
    method says; `n_without_signal` counts them.
    """
    check_n(n, len(scores.prompt_ids))
    pool = SelectionPool(scores.prompt_ids, scores.prompt_ids, seed=0, scores=scores)
    return describe(METHOD.name, pool, choose(pool, n))
