"""The LearnAlign score, exactly, in two passes over the store.

    S_ij = V_i V_j cos(phi_i, phi_j),   score_i = (1/n) sum_j S_ij      (j = i included)

With unit rows u_i and m = (1/n) sum_j V_j u_j this is score_i = V_i <u_i, m>: one pass adds up m, one
takes the inner products.  Alongside it, without prompt i itself,

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
from lean_align.scoring.weighted import alignments, weighted_mean
from lean_align.types import Scores

MOST_LEARNABLE = 0.5  # an unbiased estimate from two completions is 0 or 1/2


def learnability(success_rate: ArrayLike) -> NDArray[np.float64]:
    """V = p (1 - p) of success rates p in [0, 1]; (n,) float64 in [0, 0.25]."""
    p = np.asarray(success_rate, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"success_rate has shape {p.shape} and range {_range(p)}; expected (n,) within [0, 1].")
    return p * (1.0 - p)


def learnability_or_estimate(success_rate: ArrayLike, estimate: ArrayLike | None) -> NDArray[np.float64]:
    """An estimate of V as (n,) float64, or p (1 - p) where there is none.

    Raises
    ------
    ValueError
        When the estimate is not one number in [-1/2, 1/2] a success rate.
    """
    plug_in = learnability(success_rate)
    if estimate is None:
        return plug_in
    v = np.asarray(estimate, dtype=np.float64)
    if v.shape != plug_in.shape or not np.all(np.abs(v) <= MOST_LEARNABLE):
        raise ValueError(
            f"learnability has shape {v.shape} and range {_range(v)}; expected {plug_in.shape}, one per success rate, "
            f"within [-{MOST_LEARNABLE}, {MOST_LEARNABLE}]."
        )
    return v


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


def rank_scores(score: NDArray[np.float64], prompt_ids: Sequence[str]) -> NDArray[np.int64]:
    """Rank of each score, 1 the highest; equal scores are ranked by prompt_id."""
    order = np.lexsort((np.asarray(prompt_ids), -score))
    rank = np.empty(len(score), dtype=np.int64)
    rank[order] = np.arange(1, len(score) + 1)
    return rank


def _range(p: NDArray[np.float64]) -> str:
    return f"[{p.min()}, {p.max()}]" if p.size else "empty"
