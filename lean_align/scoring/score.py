"""The LearnAlign score, exactly, in two passes over the store.

    S_ij = V_i V_j cos(phi_i, phi_j),   score_i = (1/n) sum_j S_ij      (j = i included)

With unit rows u_i and m = (1/n) sum_j V_j u_j this is score_i = V_i <u_i, m>: one pass adds up m, one
takes the inner products.  Alongside it, without prompt i itself,

    leave_one_out_i = (1/(n-1)) sum_{j != i} S_ij = (n score_i - V_i^2 |u_i|^2) / (n - 1)

Memory is O(proj_dim) plus one chunk of rows a thread, and a few numbers a prompt.  An array is computed in
float64.  A float16 store is widened to float32 for the products and for the sums inside a chunk; chunks
are added up in float64.

`weighted_alignment` is <u_i, (1/n) sum_j w_j u_j>, with any weights w_j.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring.estimates import learnability_or_estimate
from lean_align.scoring.ranks import rank_scores
from lean_align.scoring.row_chunks import Chunks, Source, as_source
from lean_align.types import FloatArray, Scores

_SMALL, _LARGEST = 1e-6, 40_000.0  # weight and length of a row beyond which a chunk is looked at number by number
_DOT_COLUMNS = 8192  # BLAS cuts a longer product between its threads, and rounds by their number


def score_prompts(
    rows: Source | ArrayLike,
    success_rate: ArrayLike,
    prompt_ids: Sequence[str] | None = None,
    block_rows: int | None = None,
    threads: int | None = None,
    learnability: ArrayLike | None = None,
) -> Scores:
    """Score every prompt.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (n, k) array
        Unit rows; zero rows where learnability is 0.
    success_rate : (n,) float
        In [0, 1], in the order of the rows.
    prompt_ids : sequence of str, optional
        Names of the rows; a store brings its own, an array is numbered.
    block_rows : int, optional
        Rows that a thread reads at a time; as many as its cache holds when not given.
    threads : int, optional
        As many as there are processors when not given.  The result does not depend on it.
    learnability : (n,) float, optional
        Estimates of V to take in place of p (1 - p), in [-1/2, 1/2]: an unbiased one may leave [0, 1/4].

    Returns
    -------
    Scores

    Raises
    ------
    ValueError
        When lengths differ, a success rate or an estimate is outside its range, or a row is not finite.

    Notes
    -----
    METHOD: score of LearnAlign (arXiv 2506.11480), row mean of S in closed form.

    Memory: block_rows * k * 6 bytes a thread (8 for an array), by default 3 MiB (4 MiB); 3 * threads sums
    of 8 k bytes; about 70 n bytes of results.
    """
    source = as_source(rows, prompt_ids)
    p = np.asarray(success_rate, dtype=np.float64)
    v, ids = learnability_or_estimate(p, learnability), source.prompt_ids
    if not len(v) == len(ids) == len(source):
        raise ValueError(f"got {len(v)} success rates and {len(ids)} ids for {len(source)} rows; expected one per row.")
    chunks = Chunks(source, block_rows, threads)
    mean, self_terms = weighted_mean(chunks, v)
    alignment = alignments(chunks, mean)
    score = v * alignment
    leave_one_out = (len(v) * score - self_terms) / (len(v) - 1) if len(v) > 1 else np.zeros(len(v))
    return Scores(ids, p, v, alignment, score, rank_scores(score, ids), leave_one_out)


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
