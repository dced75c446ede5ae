"""The length question: does a method's value follow the completions' length, or the gradient's norm?

Pearson's correlation, Spearman's (ranks, ties at their average rank), and Spearman's with a third quantity held
fixed: the correlation of what a straight line in the ranks of the control leaves of the ranks of the two (partial
correlation).  With the learnability V as control it says what is left of the pull of length once V is known.
Prompts with a NaN in any quantity are left out.  A correlation is None where a side is constant, or nothing is left.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.errors import DataError

# Of what it was: a residual below that is rounding.
_NOTHING_LEFT = 1e-9


@dataclass(frozen=True)
class Correlations:
    """A method's values with another quantity over n prompts; each in [-1, 1], or None where it is not defined.

    `partial` is Spearman's correlation with the learnability held fixed.
    """

    pearson: float | None
    spearman: float | None
    partial: float | None
    n: int


def value_correlations(values: ArrayLike, quantity: ArrayLike, learnability: ArrayLike) -> Correlations:
    """How a method's values correlate with completion length or gradient norm, and how V does.

    Over the whole pool most of it may be that prompts with V = 0 have neither value nor gradient: call it for the
    prompts with V > 0 as well.

    Parameters
    ----------
    values : (n,) float
        The method's value of each prompt, higher is better.
    quantity : (n,) float
        Mean completion length in tokens, or the norm of the gradient.
    learnability : (n,) float
        V = p (1 - p).

    Returns
    -------
    Correlations

    Raises
    ------
    DataError
        When lengths differ.
    """
    a, b, v = _complete(values, quantity, learnability)
    return Correlations(pearson(a, b), spearman(a, b), partial_spearman(a, b, v), len(a))


def pearson(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of two (n,) quantities; None where one is constant or fewer than two pairs are left."""
    return _pearson(*_complete(a, b))


def spearman(a: ArrayLike, b: ArrayLike) -> float | None:
    """Pearson's correlation of average ranks; None where one side is constant."""
    return _pearson(*_ranks(*_complete(a, b)))


def partial_spearman(a: ArrayLike, b: ArrayLike, control: ArrayLike) -> float | None:
    """Spearman's correlation of a and b with `control` held fixed.

    Parameters
    ----------
    a, b, control : (n,) float

    Returns
    -------
    float or None
        None where the control leaves nothing of a or of b.

    Raises
    ------
    DataError
        When lengths differ.
    """
    ranks = _ranks(*_complete(a, b, control))
    left = [_residual(column, ranks[2]) for column in ranks[:2]]
    return None if left[0] is None or left[1] is None else _pearson(left[0], left[1])


def _complete(*columns: ArrayLike) -> list[NDArray[np.float64]]:
    """The columns without the rows in which one of them is NaN."""
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = [array.shape for array in arrays]
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise DataError(f"got quantities of shapes {shapes}; expected one number per prompt, for the same prompts.")
    known = ~np.any([np.isnan(array) for array in arrays], axis=0)
    return [array[known] for array in arrays]


def _ranks(*columns: NDArray[np.float64]) -> list[NDArray[np.float64]]:
    """Ranks from 1; equal values share the mean of their places."""
    from scipy.stats import rankdata

    return [np.asarray(rankdata(column), dtype=np.float64) for column in columns]


def _pearson(a: NDArray[np.float64], b: NDArray[np.float64]) -> float | None:
    # The mean of equal values may be off by a bit, and squares below 1e-308 are 0.
    if len(a) < 2 or any(np.ptp(column) == 0 or np.var(column) == 0 for column in (a, b)):
        return None
    r = np.corrcoef(a, b)
    return float(r[0, 1] + r[1, 0]) / 2  # they may differ in the last bit, and which is first must not matter


def _residual(ranks: NDArray[np.float64], control: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """What the best straight line in `control` leaves of `ranks`; None where that is nothing."""
    if len(ranks) < 2:
        return None
    centred, by = ranks - ranks.mean(), control - control.mean()
    left = centred - by * (float(by @ centred) / float(by @ by)) if np.ptp(control) > 0 else centred
    return left if left @ left > _NOTHING_LEFT**2 * max(1.0, float(centred @ centred)) else None
