"""How far each prompt's gradient points where that of a target does, exactly.

    m_T = (1/|T|) sum_{j in T} w_j u_j,   a_i = <u_i, m_T>

u are unit rows: (n, k) of the pool, (|T|, k) of the target.  w_j is the learnability V_j of the target's problems, or 1
for their plain mean.  Where prompt i of the pool is a problem of the target too, its own terms are left out, so that it
does not vote for itself:

    m_T without i = (1/(|T| - c)) sum_{j in T, j != i} w_j u_j,      c the problems of the target that prompt i is

Source: the aim of LESS (arXiv 2402.04333), in reinforcement learning with verifiable rewards.

Differs from LESS in:

1. One mean over the target, where LESS takes the largest of several tasks' scores.
2. Rows are policy gradients at one checkpoint, and each problem of the target counts by what can be learned from it.

Memory: as `score_prompts` for either set of rows; 8 k bytes a prompt in both, one at a time.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.scoring.row_chunks import Chunks, Source, as_source
from lean_align.scoring.score import alignments, weighted_mean
from lean_align.store.gradient_store import FirstColumns, GradientStore


def aimed_alignment(
    rows: Source | ArrayLike,
    target: Source | ArrayLike,
    weights: ArrayLike,
    in_both: Mapping[int, Sequence[int]] | None = None,
    threads: int | None = None,
) -> NDArray[np.float64]:
    """Inner product of each row with the target's weighted mean, <u_i, m_T>, j = i left out.

    Parameters
    ----------
    rows : GradientStore, FirstColumns or (n, k) array
        Unit rows of the pool; zero rows where there is no gradient.
    target : GradientStore, FirstColumns or (m, k) array
        Likewise of the target's problems, by the same projection.
    weights : (m,) float
        In [-1, 1], of the target's problems: their learnability, or 1.
    in_both : mapping of int to sequence of int, optional
        Row of a prompt in the pool -> its rows in the target, for prompts that are in both.
    threads : int, optional
        As many as there are processors when not given.  The result does not depend on it.

    Returns
    -------
    (n,) float64

    Raises
    ------
    ValueError
        When rows differ in length, or are not finite, or the weights are not one number in [-1, 1] a problem.
    """
    source, aim = as_source(rows, None), as_source(target, None)
    if source.proj_dim != aim.proj_dim:
        raise ValueError(
            f"the pool's rows have {source.proj_dim} numbers and the target's {aim.proj_dim}; expected rows of one "
            "projection."
        )
    mean = target_mean(aim, weights, threads)
    alignment = alignments(Chunks(source, threads=threads), mean)
    for place, own in (in_both or {}).items():
        alignment[place] = _row(source, place) @ mean_without(aim, weights, mean, own)
    return alignment


def target_mean(target: Source | ArrayLike, weights: ArrayLike, threads: int | None = None) -> NDArray[np.float64]:
    """m_T = (1/|T|) sum_j w_j u_j, (k,) float64; parameters and errors as for `aimed_alignment`."""
    aim, w = as_source(target, None), np.asarray(weights, dtype=np.float64)
    if w.shape != (len(aim),) or not np.all(np.abs(w) <= 1):
        raise ValueError(f"weights have shape {w.shape}; expected ({len(aim)},), a number in [-1, 1] for each problem.")
    return weighted_mean(Chunks(aim, threads=threads), w)[0]


def mean_without(
    target: Source | ArrayLike, weights: ArrayLike, mean: NDArray[np.float64], left_out: Sequence[int]
) -> NDArray[np.float64]:
    """m_T over the problems that are not left out, (k,) float64; 0 where none is left.

    Parameters
    ----------
    target, weights
        As for `target_mean`.
    mean : (k,) float64
        What `target_mean` gave.
    left_out : sequence of int
        Rows of the target, each once.
    """
    aim, w = as_source(target, None), np.asarray(weights, dtype=np.float64)
    n, n_left = len(aim), len(aim) - len(left_out)
    if n_left == 0:
        return np.zeros_like(mean)
    total = n * mean - sum((w[j] * _row(aim, j) for j in left_out), np.zeros_like(mean))
    return total / n_left


def _row(source: Source, place: int) -> NDArray[np.float64]:
    own: NDArray[np.floating]
    if isinstance(source, FirstColumns):
        own = source.rows_between(place, place + 1)[0]
    else:
        own = (source.rows if isinstance(source, GradientStore) else source.array)[place]
    row: NDArray[np.float64] = np.asarray(own, dtype=np.float64)
    return row
