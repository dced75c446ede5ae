"""How much of a selection would change with other prompts in the pool, or with another projection.

The score is a mean over the pool, score_i = V_i (1/n) sum_j V_j <u_i, u_j>.  A bootstrap replicate draws the
n prompts j again, with replacement, so that prompt j counts w_j times:

    score_i^b = V_i <u_i, m^b>,   m^b = (1/n) sum_j w_j^b V_j u_j

and the N best of each replicate are compared with the N best of the whole pool.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.rng import rng_for
from lean_align.scoring.estimates import learnability_or_estimate
from lean_align.scoring.row_chunks import Chunks, Source, as_source


@dataclass(frozen=True)
class SelectionStability:
    """What a bootstrap over the pool says about its N best prompts.

    Attributes
    ----------
    n : int
        Prompts selected (N).
    overlap : (n_bootstrap,) float64, in [0, 1]
        Share of the N best that each replicate selects too.
    inclusion : (pool,) float64, in [0, 1]
        Share of the replicates that select each prompt.
    """

    n: int
    overlap: NDArray[np.float64]
    inclusion: NDArray[np.float64]

    @property
    def mean_overlap(self) -> float:
        """Mean of `overlap`."""
        return float(self.overlap.mean())

    @property
    def low_overlap(self) -> float:
        """5 % quantile of `overlap`."""
        return float(np.quantile(self.overlap, 0.05))


def selection_stability(
    rows: Source | ArrayLike,
    success_rate: ArrayLike,
    n: int,
    n_bootstrap: int = 32,
    seed: int = 0,
    prompt_ids: Sequence[str] | None = None,
    threads: int | None = None,
    learnability: ArrayLike | None = None,
) -> SelectionStability:
    """Bootstrap the selection of the n best prompts over the pool.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (pool, k) array
        As for `score_prompts`.
    success_rate : (pool,) float
    n : int
        Prompts to select, in [1, pool].
    n_bootstrap : int
        Replicates (B), at least 1.
    seed : int
        Replicate b draws its counts from (seed, "bootstrap", b).
    prompt_ids : sequence of str, optional
        Names of the rows of an array.
    threads : int, optional
    learnability : (pool,) float, optional
        Estimates of V; p (1 - p) when not given.

    Returns
    -------
    SelectionStability

    Raises
    ------
    ValueError
        When n or n_bootstrap is out of range, or lengths differ.

    Notes
    -----
    Memory: 12 B bytes a prompt (counts in float32, scores in float64); 8 B k bytes of means, and as much for
    each of 3 sums a thread; a chunk of rows a thread as in `score_prompts`.
    """
    source, v = as_source(rows, prompt_ids), learnability_or_estimate(success_rate, learnability)
    if len(v) != len(source):
        raise ValueError(f"got {len(v)} success rates for {len(source)} rows; expected one per row.")
    if not 1 <= n <= len(v) or n_bootstrap < 1:
        raise ValueError(f"n is {n} and n_bootstrap {n_bootstrap}; expected 1 to {len(v)} and at least 1.")
    counts = np.ones((n_bootstrap + 1, len(v)), dtype=np.float32)  # the last row is the pool itself
    for b in range(n_bootstrap):
        drawn = rng_for(seed, "bootstrap", b).integers(len(v), size=len(v))
        counts[b] = np.bincount(drawn, minlength=len(v))
    found = v * _replicate_alignments(Chunks(source, None, threads), counts, v)
    chosen = _best(found, source.prompt_ids, n)
    return SelectionStability(n, (chosen[:-1] & chosen[-1]).sum(axis=1) / n, chosen[:-1].mean(axis=0, dtype=np.float64))


def _replicate_alignments(chunks: Chunks, counts: NDArray[np.float32], v: NDArray[np.float64]) -> NDArray[np.float64]:
    """<u_i, m^b> of every replicate and prompt, (B, n) float64."""
    k, pool = chunks.source.proj_dim, len(v)
    weights = v / chunks.scale

    def add_up(starts: range) -> NDArray[np.float64]:
        total = np.zeros((len(counts), k))
        for start in starts:
            block = chunks.load(start, check=True)
            rows = slice(start, start + len(block))
            weighted = counts[:, rows] * weights[rows]
            total += (weighted.astype(np.float32) if block.dtype == np.float32 else weighted) @ block
        return total

    means = np.zeros((len(counts), k))
    for total in chunks.map(add_up):
        means += total
    means /= pool * chunks.scale
    alignments = np.empty((len(counts), pool))
    narrow = means.astype(np.float32)

    def take_products(starts: range) -> None:
        for start in starts:
            block = chunks.load(start, check=False)
            means_as_block = narrow if block.dtype == np.float32 else means
            alignments[:, start : start + len(block)] = means_as_block @ block.T

    for _ in chunks.map(take_products):
        pass
    return alignments


def _best(scores: NDArray[np.float64], prompt_ids: Sequence[str], n: int) -> NDArray[np.bool_]:
    """Which prompts are among the n best of each row; equal scores go by prompt_id."""
    by_name = np.argsort(np.asarray(prompt_ids), kind="stable")
    chosen = np.zeros(scores.shape, dtype=np.bool_)
    for row, values in zip(chosen, scores):
        row[by_name[np.argsort(-values[by_name], kind="stable")[:n]]] = True
    return chosen
