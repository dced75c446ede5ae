"""LearnAlign, near-duplicate gradients discounted: greedy.

    value_i = score_i (1 - max_{s chosen} max(0, cos(u_i, u_s)))   where score_i > 0,   value_i = score_i elsewhere

The prompt of highest value is chosen, values change, and so on, n times; ties by prompt_id.  Rows u are (n, k).  A
negative score is not discounted: that would raise it.

A discount only grows, so that a value taken earlier bounds the value now.  The bounds lie in a heap; its top is
recomputed, and chosen if it stays on top.  That is the plain greedy choice, exactly, and most prompts are seldom looked
at.

Source: ours, after LearnAlign, arXiv 2506.11480; the lazy evaluation is Minoux's (1978).

Differs from LearnAlign in:

1. Of prompts that ask for the same step the first counts in full, the next hardly.

Memory: 4 N k bytes of chosen rows; about 250 n of bounds.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lean_align.scoring.score import row_products
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool, given

Rows = NDArray[np.float16] | NDArray[np.float32] | NDArray[np.float64]


def choose(pool: SelectionPool, n: int) -> Choice:
    """The greedy choice by score and by distance from what was chosen."""
    return diverse_choice(pool, given(pool.scores, "scores").score, n, "highest scores")


def diverse_choice(pool: SelectionPool, score: NDArray[np.float64], n: int, what: str) -> Choice:
    """The greedy choice by any score, (pool,) float64; `what` names it in the explanation."""
    order, at_choice = greedy_order(given(pool.gradients, "gradients").rows, score, pool.prompt_ids, n)
    values = np.full(len(pool), np.nan)  # others have none: it depends on what was chosen before
    values[order] = at_choice
    return Choice(order, values, f"the {n} {what}, discounted by the cosine with those chosen before")


def greedy_order(
    rows: Rows, score: NDArray[np.float64], prompt_ids: Sequence[str], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Choose n rows lazily.

    Parameters
    ----------
    rows : (pool, k) float
        Mapped from disk or in memory; one is read at a time.
    score : (pool,) float64
    prompt_ids : sequence of str
    n : int

    Returns
    -------
    (n,) int64
        Indices, best first.
    (n,) float64
        Value of each when it was chosen; it never rises.
    """
    name_rank = np.argsort(np.argsort(np.asarray(prompt_ids)))
    chosen = _Chosen(n, rows.shape[1])
    heap = [(-value, name, i) for i, (value, name) in enumerate(zip(score.tolist(), name_rank.tolist()))]
    heapq.heapify(heap)
    looked_at, nearest = np.zeros(len(score), dtype=np.int64), np.zeros(len(score))
    order: list[int] = []
    values: list[float] = []
    while len(order) < n:
        bound, name, i = heap[0]
        if bound < 0 and looked_at[i] < len(order):
            nearest[i] = max(nearest[i], chosen.nearest(rows[i], int(looked_at[i])))
            looked_at[i] = len(order)
            heapq.heapreplace(heap, (-float(score[i]) * (1 - min(1.0, nearest[i])), name, i))
            continue
        heapq.heappop(heap)
        chosen.add(rows[i])
        order.append(i)
        values.append(-bound)
    return np.array(order, dtype=np.int64), np.array(values)


class _Chosen:
    """Unit rows of the prompts chosen so far."""

    def __init__(self, n: int, proj_dim: int) -> None:
        self.rows, self.count = np.empty((n, proj_dim), dtype=np.float32), 0

    def add(self, row: Rows) -> None:
        self.rows[self.count] = unit(row)
        self.count += 1

    def nearest(self, row: Rows, start: int) -> float:
        """Largest cosine with the chosen from number `start` on, at least 0."""
        return max(0.0, float(row_products(self.rows[start : self.count], unit(row)).max()))


def unit(row: Rows) -> NDArray[np.float32]:
    """A row at length 1, (k,) float32: float16 leaves it at 1 only to three digits.  A zero row stays zero."""
    wide = np.asarray(row, dtype=np.float32)
    norm = np.linalg.norm(wide)
    return wide / norm if norm > 0 else wide


METHOD = SelectionMethod(
    name="learnalign-diverse",
    needs=frozenset({"scores", "gradients"}),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480",
    departures=("greedy, discounted by the cosine with those chosen before",),
    ranks_by="score",
)
