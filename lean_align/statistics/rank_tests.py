"""Spearman's correlation of two quantities over a few items, with an interval and a test.

The interval is the middle 95 % of the correlations of resampled items (percentile bootstrap); the p-value is the share
of random orders of one side whose correlation is at least as large in size (a permutation test), and never 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics.bootstrap import percentile_interval
from lean_align.statistics.correlations import spearman

RESAMPLES, ORDERS = 2_000, 20_000
FEWEST = 4
_TOLERANCE = 1e-12


@dataclass(frozen=True)
class RankCorrelation:
    """Spearman's correlation over n items, its 95 % interval and its two-sided p-value.

    All but n are None where one side is constant, or there are fewer than 4 items.
    """

    value: float | None
    interval: tuple[float, float] | None
    p_value: float | None
    n: int


def rank_correlation_test(a: Sequence[float], b: Sequence[float], seed: int) -> RankCorrelation:
    """Correlate two quantities of the same items.

    Parameters
    ----------
    a, b : (n,) float
        Finite.
    seed : int
        Of the bootstrap and of the random orders.

    Returns
    -------
    RankCorrelation

    Raises
    ------
    DataError
        When lengths differ, or a number is not finite.
    """
    x, y = np.asarray(a, dtype=np.float64), np.asarray(b, dtype=np.float64)
    if x.shape != y.shape or x.ndim != 1 or not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise DataError(
            f"got quantities of shapes {x.shape} and {y.shape}; expected one finite number of each an item."
        )
    value = spearman(x, y) if len(x) >= FEWEST else None
    if value is None:
        return RankCorrelation(None, None, None, len(x))
    drawn = rng_for(seed, "bootstrap", "rank correlation").integers(len(x), size=(RESAMPLES, len(x)))
    draws = _correlations(_centred_ranks(x[drawn]), _centred_ranks(y[drawn]))
    interval = percentile_interval(draws[np.isfinite(draws)])
    return RankCorrelation(value, interval, _permutation_p(x, y, abs(value), seed), len(x))


def _permutation_p(x: NDArray[np.float64], y: NDArray[np.float64], reach: float, seed: int) -> float:
    ranks_x, ranks_y = _centred_ranks(x), _centred_ranks(y)
    rng = rng_for(seed, "permutations", "rank correlation")
    orders = rng.permuted(np.tile(ranks_y, (ORDERS, 1)), axis=1)
    reached = np.abs(_correlations(orders, ranks_x)) >= reach - _TOLERANCE
    return float((1 + reached.sum()) / (1 + ORDERS))


def _centred_ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks along the last axis less their mean; equal values share the mean of their places."""
    from scipy.stats import rankdata

    ranks: NDArray[np.float64] = rankdata(values, axis=-1) - (values.shape[-1] + 1) / 2
    return ranks


def _correlations(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of rows with rows; NaN where all of a row are alike."""
    lengths = np.sqrt(np.vecdot(a, a) * np.vecdot(b, b))
    found: NDArray[np.float64] = np.divide(
        np.vecdot(a, b), lengths, out=np.full(np.shape(lengths), np.nan), where=lengths > 0
    )
    return found
