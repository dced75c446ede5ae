"""What S seeds can show: for a family of comparisons, and how large a difference, so that a "no" can be interpreted.

Several comparisons are corrected as Holm does (1979, Scandinavian Journal of Statistics 6, 65-70).  With the m p-values
in ascending order, the adjusted one at place j = 0, 1, ... is the largest of (m - i) p_(i) over i <= j, and 1 at most.
Rejecting what lies at or below 5 % keeps the chance of any false rejection at 5 %, whatever the tests have to do with
one another.

The difference that S seeds find, in units of the standard deviation of the seeds' differences, at 5 % and with a power
of 80 %, is 1.78 for 6 seeds, 1.20 for 8, 0.98 for 10, 0.75 for 16.  Where that deviation is 2 points, 8 seeds miss most
differences under 2.4 points; one of four comparisons under Holm's correction needs 3.9 points.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import accumulate, product

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics.crossed import t_quantile
from lean_align.statistics.seeds import smallest_p

# Beyond it, the paired t-test stands for the flips: at 10 seeds it finds differences 1.6 % smaller, at 12 0.4 %.
_MAX_COUNTED = 10
_REPEATS = 2_000
_HALVINGS = 24
_WIDEST = 16.0  # standard deviations


def holm(p_values: Mapping[str, float]) -> dict[str, float]:
    """Adjusted p-values of a family of comparisons.

    Parameters
    ----------
    p_values : mapping of name to p-value
        All comparisons that are judged together, each in [0, 1].

    Returns
    -------
    dict
        In the order given, in [0, 1]; never below the raw value.  Empty for an empty family.

    Raises
    ------
    DataError
        When a p-value is not in [0, 1].
    """
    for name, p in p_values.items():
        if not 0 <= p <= 1:
            raise DataError(f"got p = {p} for {name!r}; expected 0 <= p <= 1.")
    names = sorted(p_values, key=lambda name: p_values[name])
    scaled = (min(1.0, (len(names) - i) * p_values[name]) for i, name in enumerate(names))
    adjusted = dict(zip(names, accumulate(scaled, max)))
    return {name: adjusted[name] for name in p_values}


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
