"""The LearnAlign score, exactly, in two passes over the store.

    S_ij = V_i V_j cos(phi_i, phi_j),   score_i = (1/n) sum_j S_ij      (j = i included)

With unit rows u_i and m = (1/n) sum_j V_j u_j this is score_i = V_i <u_i, m>: one pass adds up m, one
takes the inner products.  Beside it, without prompt i itself,

    leave_one_out_i = (1/(n-1)) sum_{j != i} S_ij = (n score_i - V_i^2 |u_i|^2) / (n - 1)

Memory is O(proj_dim) plus one chunk of rows a thread, and a few numbers a prompt.  An array is computed in
float64.  A float16 store is widened to float32 for the products and for the sums inside a chunk; chunks
are added up in float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring.rows import Chunks, Source, as_source
from lean_align.types import FloatArray, Scores

_SMALL, _LARGEST = 1e-6, 40_000.0  # learnability and length of a row beyond which a chunk is looked at number by number
_DOT_COLUMNS = 8192  # BLAS cuts a longer product between its threads, and rounds by their number


def learnability(success_rate: ArrayLike) -> NDArray[np.float64]:
    """V = p (1 - p) of success rates p in [0, 1]; (n,) float64 in [0, 0.25]."""
    p = np.asarray(success_rate, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"success_rate has shape {p.shape} and range {_range(p)}; expected (n,) within [0, 1].")
    return p * (1.0 - p)


def score_prompts(
    rows: Source | ArrayLike,
    success_rate: ArrayLike,
    prompt_ids: Sequence[str] | None = None,
    block_rows: int | None = None,
    threads: int | None = None,
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

    Memory: block_rows * k * 6 bytes a thread (8 for an array), by default 3 MiB (4 MiB); 3 * threads sums
    of 8 k bytes; about 70 n bytes of results.
    """
    source = as_source(rows, prompt_ids)
    p = np.asarray(success_rate, dtype=np.float64)
    v, ids = learnability(p), source.prompt_ids
    if not len(v) == len(ids) == len(source):
        raise ValueError(f"got {len(v)} success rates and {len(ids)} ids for {len(source)} rows; expected one a row.")
    chunks = Chunks(source, block_rows, threads)
    mean, self_terms = _weighted_mean(chunks, v)
    alignment = _alignments(chunks, mean)
    score = v * alignment
    leave_one_out = (len(v) * score - self_terms) / (len(v) - 1) if len(v) > 1 else np.zeros(len(v))
    return Scores(ids, p, v, alignment, score, rank_scores(score, ids), leave_one_out)


def rank_scores(score: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each score, 1 the highest; equal scores are ranked by prompt_id."""
    order = np.lexsort((np.asarray(prompt_ids), -score))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def _weighted_mean(chunks: Chunks, v: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """m, (k,) float64, and each prompt's own term V_i^2 |u_i|^2, (n,) float64."""
    self_terms = np.zeros(len(v))
    weights = v / chunks.scale

    def add_up(starts: range) -> NDArray[np.float64]:
        total = np.zeros(chunks.source.proj_dim)
        for start in starts:
            v_rows = v[start : start + chunks.height]
            block = _weighted(chunks, start, weights, check=bool(v_rows.min() < _SMALL))
            terms = _row_products(block, block)
            if not (terms <= _LARGEST**2 * v_rows**2).all():  # widened by its bits, Inf is 65,536 and NaN is more
                block = _weighted(chunks, start, weights, check=True)
            self_terms[start : start + len(block)] = terms
            total += _column_sums(block)
        return total

    mean = np.zeros(chunks.source.proj_dim)
    for total in chunks.map(add_up):
        mean += total
    return mean / max(1, len(v)), self_terms


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


def _alignments(chunks: Chunks, mean: NDArray[np.float64]) -> NDArray[np.float64]:
    """<u_i, m> of each row, (n,) float64."""
    alignment, scaled = np.empty(len(chunks.source)), mean / chunks.scale
    narrow = scaled.astype(np.float32)

    def take_products(starts: range) -> None:
        for start in starts:
            block = chunks.load(start, check=False)
            alignment[start : start + len(block)] = _row_products(
                block, narrow if block.dtype == np.float32 else scaled
            )

    for _ in chunks.map(take_products):
        pass
    return alignment


def _row_products(block: FloatArray, other: FloatArray) -> NDArray[np.float64]:
    """Inner products of rows, each row by itself: a matrix product may round a row by the height of its block."""
    products = np.zeros(len(block))
    for start in range(0, block.shape[1], _DOT_COLUMNS):
        columns = slice(start, start + _DOT_COLUMNS)
        products += np.vecdot(block[:, columns], other[..., columns])
    return products


def _range(p: NDArray[np.float64]) -> str:
    return f"[{p.min()}, {p.max()}]" if p.size else "empty"
