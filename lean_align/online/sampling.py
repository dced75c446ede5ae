"""The order in which a step meets the prompts of a pool.

Each place of the order is, with probability epsilon, a place of exploration: any of the prompts that are left, all
equally likely.  The others hold the prompts of highest value, best first.  A step takes the head of the order, and
where it refills it goes on: no prompt is met twice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class StepOrder:
    """Attributes
    ----------
    places : (n,) int64
        Of all prompts of the pool, first to be met first.
    explored : (n,) bool
        Whether a prompt has its place by exploration; in the same order.
    """

    places: NDArray[np.int64]
    explored: NDArray[np.bool_]


def draw_order(values: NDArray[np.float64], exploration: float, rng: np.random.Generator) -> StepOrder:
    """Draw the order of a step.

    Parameters
    ----------
    values : (n,) float64
        Of a draw from the posterior; higher is better.  Equal ones go in random order.
    exploration : float
        epsilon, in [0, 1].
    rng : Generator

    Returns
    -------
    StepOrder
    """
    n = len(values)
    by_chance, ties, explored = rng.permutation(n), rng.permutation(n), rng.random(n) < exploration
    by_value = np.lexsort((ties, -values))
    places, free = np.empty(n, dtype=np.int64), np.ones(n, dtype=bool)
    heads = [0, 0]
    for i, chance in enumerate(explored.tolist()):
        queue = by_chance if chance else by_value
        while not free[queue[heads[chance]]]:
            heads[chance] += 1
        places[i] = queue[heads[chance]]
        free[places[i]] = False
    return StepOrder(places, explored)
