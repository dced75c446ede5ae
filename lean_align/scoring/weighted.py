"""Alignment of every row with a weighted mean of all of them, in two passes over the store.

    m = (1/n) sum_j w_j u_j,   alignment_i = <u_i, m>

One pass adds up m, one takes the inner products.  Memory is O(proj_dim) plus one chunk of rows a thread.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring.rows import Chunks, Source, as_source
from lean_align.types import FloatArray

_SMALL, _LARGEST = 1e-6, 40_000.0  # weight and length of a row beyond which a chunk is looked at number by number
_DOT_COLUMNS = 8192  # BLAS cuts a longer product between its threads, and rounds by their number


def weighted_alignment(
    rows: Source | ArrayLike,
    weights: ArrayLike,
    prompt_ids: Sequence[str] | None = None,
    block_rows: int | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Inner product of each row with the weighted mean of all, <u_i, (1/n) sum_j w_j u_j>.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (n, k) array
        As for `score_prompts`.
    weights : (n,) float
        Any finite numbers: 1 for the mean cosine, the gradients' norms for their mean.
    prompt_ids : sequence of str, optional
        Names of the rows of an array.
    block_rows, threads : int, optional
        As for `score_prompts`.

    Returns
    -------
    (n,) float64

    Raises
    ------
    ValueError
        When the weights are not one finite number per row, or a row is not finite.

    Notes
    -----
    Memory: as `score_prompts`.  Weights are divided by a power of two, exactly, so that none overflows in float32.
    """
    source, w = as_source(rows, prompt_ids), np.asarray(weights, dtype=np.float64)
    if w.shape != (len(source),) or not np.isfinite(w).all():
        raise ValueError(f"weights have shape {w.shape}; expected ({len(source)},), one finite number per row.")
    largest = float(np.abs(w).max(initial=0.0))
    exponent = int(np.frexp(largest)[1])
    chunks = Chunks(source, block_rows, threads)
    mean, _ = weighted_mean(chunks, np.ldexp(w, -exponent))
    return np.ldexp(alignments(chunks, mean), exponent)


def weighted_mean(chunks: Chunks, w: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """m, (k,) float64, and each prompt's own term w_i^2 |u_i|^2, (n,) float64, for weights w in [-1, 1]."""
    self_terms = np.zeros(len(w))
    weights = w / chunks.scale

    def add_up(starts: range) -> NDArray[np.float64]:
        total = np.zeros(chunks.source.proj_dim)
        for start in starts:
            w_rows = w[start : start + chunks.height]
            block = _weighted(chunks, start, weights, check=bool(np.abs(w_rows).min() < _SMALL))
            terms = row_products(block, block)
            if not (terms <= _LARGEST**2 * w_rows**2).all():  # widened by its bits, Inf is 65,536 and NaN is more
                block = _weighted(chunks, start, weights, check=True)
            self_terms[start : start + len(block)] = terms
            total += _column_sums(block)
        return total

    mean = np.zeros(chunks.source.proj_dim)
    for total in chunks.map(add_up):
        mean += total
    return mean / max(1, len(w)), self_terms


def _weighted(chunks: Chunks, start: int, weights: NDArray[np.float64], check: bool) -> FloatArray:
    block = chunks.load(start, check)
    np.multiply(block, weights[start : start + len(block), None].astype(block.dtype), out=block)
    return block


def _column_sums(block: FloatArray) -> FloatArray:
    """Sum of the rows, by halves and in place; the block is lost.  NumPy's own sum takes twice as long."""
    height = len(block)
    while height > 1:
        half = height // 2
        np.add(block[:half], block[height - half : height], out=block[:half])
        height -= half
    first: FloatArray = block[0]
    return first


def alignments(chunks: Chunks, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """<u_i, m> of each row, (n,) float64."""
    alignment, scaled = np.empty(len(chunks.source)), mean / chunks.scale
    narrow = scaled.astype(np.float32)

    def take_products(starts: range) -> None:
        for start in starts:
            block = chunks.load(start, check=False)
            alignment[start : start + len(block)] = row_products(block, narrow if block.dtype == np.float32 else scaled)

    for _ in chunks.map(take_products):
        pass
    return alignment


def row_products(block: FloatArray, other: FloatArray) -> NDArray[np.float64]:
    """Inner products of rows, each row by itself: a matrix product may round a row by the height of its block."""
    products = np.zeros(len(block))
    for start in range(0, block.shape[1], _DOT_COLUMNS):
        columns = slice(start, start + _DOT_COLUMNS)
        products += np.vecdot(block[:, columns], other[..., columns])
    return products
