"""The LearnAlign score, exactly, in two passes over the store.

    S_ij = V_i V_j cos(phi_i, phi_j),   score_i = (1/n) sum_j S_ij      (j = i included)

With unit rows u_i and m = (1/n) sum_j V_j u_j this is score_i = V_i <u_i, m>: one pass adds up m, one
takes the inner products.  Memory is O(proj_dim) plus one block of rows; sums are kept in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.store import GradientStore
from lean_align.types import Scores

BLOCK_ROWS = 1024


def learnability(success_rate: ArrayLike) -> NDArray[np.float64]:
    """V = p (1 - p) of success rates p in [0, 1]; (n,) float64 in [0, 0.25]."""
    p = np.asarray(success_rate, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"success_rate has shape {p.shape} and range {_range(p)}; expected (n,) within [0, 1].")
    return p * (1.0 - p)


def score_prompts(
    rows: GradientStore | ArrayLike,
    success_rate: ArrayLike,
    prompt_ids: Sequence[str] | None = None,
    block_rows: int = BLOCK_ROWS,
) -> Scores:
    """Score every prompt.

    Parameters
    ----------
    rows : GradientStore or (n, k) array
        Unit rows (float16 or wider); zero rows where learnability is 0.
    success_rate : (n,) float
        In [0, 1], in the order of the rows.
    prompt_ids : sequence of str, optional
        Names of the rows; a store brings its own, an array is numbered.
    block_rows : int
        Rows in memory at a time, 20 * k bytes each while they are read and multiplied.

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        When lengths differ, a success rate is outside [0, 1], or a row is not finite.

    Notes
    -----
    METHOD: score of LearnAlign (arXiv 2506.11480), row mean of S in closed form.
    """
    source = rows if isinstance(rows, GradientStore) else _ArrayRows(np.asarray(rows), prompt_ids)
    p = np.asarray(success_rate, dtype=np.float64)
    v, ids = learnability(p), source.prompt_ids
    if not len(v) == len(ids) == len(source):
        raise ValueError(f"got {len(v)} success rates and {len(ids)} ids for {len(source)} rows; expected one a row.")
    mean = _weighted_mean(_finite_blocks(source, block_rows), v)
    alignment = np.empty(len(v))
    for start, block in _finite_blocks(source, block_rows):
        alignment[start : start + len(block)] = _row_products(block, mean)
    score = v * alignment
    return Scores(ids, p, v, alignment, score, rank_scores(score, ids))


def rank_scores(score: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each score, 1 the highest; equal scores are ranked by prompt_id."""
    order = np.lexsort((np.asarray(prompt_ids), -score))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def _weighted_mean(
    blocks: Iterator[tuple[int, NDArray[np.float64]]], v: NDArray[np.float64]
) -> NDArray[np.float64] | float:
    total: NDArray[np.float64] | float = 0.0
    for start, block in blocks:
        total = total + (v[start : start + len(block), None] * block).sum(axis=0)
    return total / max(1, len(v))


def _row_products(block: NDArray[np.float64], mean: NDArray[np.float64] | float) -> NDArray[np.float64]:
    # einsum adds up each row by itself: BLAS may round a row differently in a block of another height
    products: NDArray[np.float64] = np.einsum("ik,k->i", block, np.broadcast_to(mean, block.shape[1:]))
    return products


class _ArrayRows:
    """An array behind the interface of a store."""

    def __init__(self, array: NDArray[np.float64], prompt_ids: Sequence[str] | None) -> None:
        if array.ndim != 2:
            raise ValueError(f"rows have shape {array.shape}; expected (n, k).")
        width = len(str(max(0, len(array) - 1)))
        numbered = tuple(f"{i:0{width}d}" for i in range(len(array)))
        self.array, self.prompt_ids = array, numbered if prompt_ids is None else tuple(prompt_ids)

    def __len__(self) -> int:
        return len(self.array)

    def blocks(self, block_rows: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
        for start in range(0, len(self), block_rows):
            yield start, self.array[start : start + block_rows]


def _finite_blocks(source: GradientStore | _ArrayRows, block_rows: int) -> Iterator[tuple[int, NDArray[np.float64]]]:
    for start, rows in source.blocks(block_rows):
        block = np.asarray(rows, dtype=np.float64)
        bad = np.flatnonzero(~np.isfinite(block).all(axis=1))
        if len(bad):
            row = start + int(bad[0])
            raise ValueError(f"row {row} ({source.prompt_ids[row]}) holds NaN or Inf; expected unit rows.")
        yield start, block


def _range(p: NDArray[np.float64]) -> str:
    return f"[{p.min()}, {p.max()}]" if p.size else "empty"
