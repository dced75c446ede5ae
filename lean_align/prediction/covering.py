"""A first share of the pool that covers where its prompts lie: one after the other, each at random by its squared
distance from the nearest taken before.

Prompts that lie close to one taken, near-duplicates above all, are hardly ever taken, and dense regions still get
more than thin ones, which a choice of the farthest each time (k-centre) would give to outliers.  In the mean the sum of
squared distances to the nearest taken is within a factor 8 (ln m + 2) of the least that m points can have.

Source: k-means++, Arthur and Vassilvitskii (2007), SODA, 1027-1035.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_BLOCK_ROWS = 4096


def cover(features: NDArray[np.float32], n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Take n rows that cover all.

    Parameters
    ----------
    features : (pool, d) float32
    n : int
        In [1, pool].
    rng : numpy.random.Generator

    Returns
    -------
    (n,) int64
        In the order in which they were taken: the first m of them cover as m of them can.

    Raises
    ------
    ValueError
        When n is out of range.

    Notes
    -----
    Time n times pool times d; memory 16 bytes a row, and 4 d bytes for each of 4,096 rows.
    """
    if not 1 <= n <= len(features):
        raise ValueError(f"n is {n}; expected 1 to {len(features)}, the number of rows.")
    taken = [int(rng.integers(len(features)))]
    nearest = np.full(len(features), np.inf)
    while len(taken) < n:
        nearest = np.minimum(nearest, _squared_distances(features, taken[-1]))
        nearest[taken] = 0.0
        ends = np.cumsum(nearest)
        if ends[-1] > 0:
            aim = rng.random() * ends[-1]
            place = int(np.searchsorted(ends, aim, side="right"))
            taken.append(min(place, int(np.flatnonzero(nearest)[-1])))
        else:  # every other row equals one that was taken
            rest = np.setdiff1d(np.arange(len(features)), taken)
            taken += rng.permutation(rest)[: n - len(taken)].tolist()
    return np.array(taken, dtype=np.int64)


def _squared_distances(features: NDArray[np.float32], place: int) -> NDArray[np.float64]:
    found = np.empty(len(features))
    for start in range(0, len(features), _BLOCK_ROWS):
        away = features[start : start + _BLOCK_ROWS] - features[place]
        found[start : start + _BLOCK_ROWS] = np.vecdot(away, away)
    return found
