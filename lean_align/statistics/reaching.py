"""What it costs until an accuracy is reached, and the ratio of two methods' costs, with intervals over seeds.

A method is a curve: at each of K evaluated steps its mean cost and its mean accuracy over the seeds.  The accuracy is
reached where the curve first passes it, on the straight line between two evaluated steps.  A curve that stays below is
censored: the cost is above that of its last step, and nothing else is known.  It is kept as infinity, never left out.

Seeds are drawn again with replacement, the same ones for every curve and for the accuracy aimed at, which is that of
another method's last step; an interval is the middle 95 % of what the draws give.  Where more than 2.5 % of the draws
never reach it, the upper end is infinity.  Of a ratio of two censored costs nothing is known: it counts as 0 at the
lower end and as infinity at the upper one.

As in `crossed`, the draws of few seeds spread too little and Student's quantile is wanted: deviations from the estimate
are stretched by `seed_factor`, on the scale of logarithms, since a cost is positive.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics.crossed import Interval, seed_factor

REPLICATES = 4_000
_LOW, _HIGH = 0.025, 0.975


@dataclass(frozen=True)
class Reached:
    """A cost, or a ratio of costs, that may be censored.

    Attributes
    ----------
    value : float
        Infinity where the accuracy was never reached; NaN for a ratio of two such costs.
    interval : tuple of float, or None
        95 % over other seeds, an end of which may be infinity; None for one seed.
    share_reached : float, in [0, 1]
        Of the draws, those in which it was reached, by both methods of a ratio; for one seed 0 or 1.
    """

    value: float
    interval: Interval | None
    share_reached: float


def first_reached(cost: ArrayLike, accuracy: ArrayLike, goal: float) -> float:
    """The cost at which a curve first has an accuracy.

    Parameters
    ----------
    cost, accuracy : (K,) float
        By evaluated step, in order; costs do not fall.
    goal : float

    Returns
    -------
    float
        Interpolated between the last step below the goal and the first that has it; the first step's cost where that
        has it already; infinity where none has.
    """
    return float(_first_reached(np.asarray(cost, np.float64)[None], np.asarray(accuracy, np.float64)[None], goal)[0])


def seed_draws(n_seeds: int, seed: int, replicates: int = REPLICATES) -> NDArray[np.float64]:
    """How often each seed is drawn, as shares: (replicates, S) float64, rows add up to 1; the first has each once."""
    if n_seeds == 1:
        return np.ones((1, 1))
    drawn = rng_for(seed, "bootstrap over seeds", "reached").multinomial(
        n_seeds, np.full(n_seeds, 1 / n_seeds), replicates
    )
    return np.concatenate([np.full((1, n_seeds), 1 / n_seeds), drawn / n_seeds])


def reached_costs(
    cost: NDArray[np.float64], accuracy: NDArray[np.float64], goals: NDArray[np.float64], draws: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The cost of reaching the goal in each draw of the seeds.

    Parameters
    ----------
    cost, accuracy : (S, K) float64
        A row a seed, a column an evaluated step.
    goals : (S,) float64
        The accuracy aimed at, by seed.
    draws : (R, S) float64
        Of `seed_draws`.

    Returns
    -------
    (R,) float64
        Infinity where it is never reached.

    Raises
    ------
    DataError
        When the shapes do not fit.
    """
    if cost.shape != accuracy.shape or len(cost) != len(goals) or draws.shape[1] != len(cost) or cost.size == 0:
        raise DataError(
            f"got costs {cost.shape}, accuracies {accuracy.shape}, {len(goals)} goals and draws {draws.shape}; "
            "expected (S, K), (S, K), S and (R, S). Evaluate every seed at the same steps."
        )
    return _first_reached(draws @ cost, draws @ accuracy, draws @ goals)


def cost_to_reach(values: NDArray[np.float64], n_seeds: int) -> Reached:
    """A cost and its interval, from the draws of `reached_costs`, of which the first is the estimate."""
    return Reached(float(values[0]), _interval(values, values, values[0], n_seeds), _share_known(values))


def cost_ratio(own: NDArray[np.float64], other: NDArray[np.float64], n_seeds: int) -> Reached:
    """The ratio of two costs of the same draws; 0 where the other is never reached and this one is.

    Both costs may be 0, where a start is good enough: their ratio is 1.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.where((own == 0) & (other == 0), 1.0, own / other)
    unknown = np.isinf(own) & np.isinf(other)
    low, high = np.where(unknown, 0.0, ratio), np.where(unknown, np.inf, ratio)
    return Reached(float(ratio[0]), _interval(low, high, ratio[0], n_seeds), _share_known(own + other))


def _first_reached(
    cost: NDArray[np.float64], accuracy: NDArray[np.float64], goals: NDArray[np.float64] | float
) -> NDArray[np.float64]:
    """Of each row of (R, K) curves."""
    # a mean over seeds that is the goal itself may lie a rounding below it
    there = accuracy >= np.reshape(goals, (-1, 1)) - 1e-12
    first, rows = there.argmax(axis=1), np.arange(len(cost))
    before = np.maximum(first - 1, 0)
    low, high = accuracy[rows, before], accuracy[rows, first]
    with np.errstate(divide="ignore", invalid="ignore"):
        part = np.where(first == 0, 0.0, (np.ravel(goals) - low) / (high - low))
    found = cost[rows, before] + np.clip(part, 0.0, 1.0) * (cost[rows, first] - cost[rows, before])
    return np.where(there.any(axis=1), found, np.inf)


def _share_known(values: NDArray[np.float64]) -> float:
    return float(np.isfinite(_drawn(values)).mean())


def _drawn(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Without the first, which is the estimate; of one seed there is nothing else."""
    return values[1:] if len(values) > 1 else values


def _interval(low: NDArray[np.float64], high: NDArray[np.float64], estimate: float, n_seeds: int) -> Interval | None:
    """The ends, of which the lower is taken from one array and the upper from another."""
    if n_seeds == 1:
        return None
    ends = (
        float(np.quantile(_drawn(low), _LOW, method="inverted_cdf")),
        float(np.quantile(_drawn(high), _HIGH, method="inverted_cdf")),
    )
    return _stretched(ends[0], estimate, n_seeds), _stretched(ends[1], estimate, n_seeds)


def _stretched(end: float, estimate: float, n_seeds: int) -> float:
    """An end moved away from the estimate by the factor for few seeds; where either is 0 or not known it stays."""
    if not (0 < end < math.inf and 0 < estimate < math.inf):
        return end
    return float(estimate * (end / estimate) ** seed_factor(n_seeds, _HIGH))
