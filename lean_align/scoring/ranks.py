"""Ranks of scores, and how far two rankings of the same prompts agree."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lean_align.statistics.correlations import spearman
from lean_align.types import Scores


def rank_scores(score: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each score, 1 the highest; equal scores are ranked by prompt_id."""
    order = np.lexsort((np.asarray(prompt_ids), -score))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def selection_change(scores_a: Scores, scores_b: Scores, n: int) -> float:
    """Share of the n best prompts of one scoring that the other does not select, in [0, 1].

    Raises
    ------
    ValueError
        When the two do not score the same prompts in the same order.
    """
    if scores_a.prompt_ids != scores_b.prompt_ids:
        raise ValueError("the two scorings have different prompts, or another order; expected equal prompt_ids.")
    if not 1 <= n <= len(scores_a.prompt_ids):
        raise ValueError(f"n is {n}; expected 1 to {len(scores_a.prompt_ids)}, the number of prompts.")
    return float(1 - ((scores_a.rank <= n) & (scores_b.rank <= n)).sum() / n)


def rank_correlation(scores_a: Scores, scores_b: Scores) -> float | None:
    """Spearman's correlation of two scorings over the learnable prompts; None where there are fewer than two."""
    learnable = scores_a.learnability > 0
    return spearman(scores_a.rank[learnable], scores_b.rank[learnable])
