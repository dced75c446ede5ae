"""How large a difference between two methods S seeds can see, so that a "no" can be read.

In units of the standard deviation of the seeds' differences, at 5 % and with a power of 80 %: 1.78 for 6 seeds, 1.20
for 8, 0.98 for 10, 0.75 for 16.  Where that deviation is 2 points, 8 seeds miss most differences under 2.4 points; one
of four comparisons under Holm's correction needs 3.9 points.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import product

import numpy as np
from numpy.typing import NDArray

from lean_align.evaluate.seed_tests import smallest_p
from lean_align.evaluate.student import t_quantile
from lean_align.rng import rng_for

# Beyond it, the paired t-test stands for the flips: at 10 seeds it finds differences 1.6 % smaller, at 12 0.4 %.
_MAX_COUNTED = 10
_REPEATS = 2_000
_HALVINGS = 24
_WIDEST = 16.0  # standard deviations


def detectable_difference(
    n_seeds: int, seed_sd: float, seed: int, level: float = 0.05, power: float = 0.8
) -> float | None:
    """The true difference that sign flips over seeds find with the given chance.

    Parameters
    ----------
    n_seeds : int
        S, at least 2.
    seed_sd : float
        Standard deviation of the seeds' mean differences (`SeedComparison.seed_sd`), in any unit.
    seed : int
    level : float
        Of the test; 0.05 / m for the strictest of m comparisons under Holm's correction.
    power : float
        The chance of p <= level, in (level, 1).

    Returns
    -------
    float or None
        In the unit of `seed_sd`; None where 2 / 2^S is above the level and nothing can be found.  From 2,000 normal
        samples: good to about 3 %.  Memory: 24,000 x 2^S bytes up to 10 seeds.

    Raises
    ------
    ValueError
        When an argument is out of range.
    """
    if n_seeds < 2 or not seed_sd >= 0 or not 0 < level < power < 1:
        raise ValueError(
            f"got {n_seeds} seeds, seed_sd = {seed_sd}, level = {level}, power = {power}; expected 2 seeds or more, "
            "seed_sd >= 0 and 0 < level < power < 1."
        )
    if smallest_p(n_seeds) > level:
        return None
    noise = rng_for(seed, "detectable difference", n_seeds).standard_normal((_REPEATS, n_seeds))
    found = _found_by_flips(noise, level) if n_seeds <= _MAX_COUNTED else _found_by_t(noise, level)
    low, high = 0.0, _WIDEST
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if found(middle) < power else (low, middle)
    return seed_sd * high


def _found_by_flips(noise: NDArray[np.float64], level: float) -> Callable[[float], float]:
    """Share of the samples (R, S) with p <= level once a difference is added; all patterns are counted."""
    # A pattern and its opposite have the same absolute sum: half of them will do, the first being the data as they are.
    signs = np.array([(1, *rest) for rest in product((1, -1), repeat=noise.shape[1] - 1)], dtype=np.float64)
    flipped, sums = noise @ signs.T, signs.sum(axis=1)

    def found(difference: float) -> float:
        totals = np.abs(flipped + difference * sums)
        p_values = np.mean(totals >= totals[:, :1] * (1 - 1e-9), axis=1)
        return float(np.mean(p_values <= level))

    return found


def _found_by_t(noise: NDArray[np.float64], level: float) -> Callable[[float], float]:
    n_seeds = noise.shape[1]
    means, errors = noise.mean(axis=1), noise.std(axis=1, ddof=1) / np.sqrt(n_seeds)
    bound = t_quantile(1 - level / 2, n_seeds - 1) * errors
    return lambda difference: float(np.mean(np.abs(means + difference) >= bound))
