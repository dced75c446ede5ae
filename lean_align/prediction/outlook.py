"""How likely each prompt that was not sampled is to be among the best N, given those that were.

A prompt's value is V (c V + b): V = k (G - k) / G^2 of its k successes, b what its gradient has in common with those
of the others, and c V its own part in the mean it is compared with (c is 0 where it has none), or V alone.  k is
beta-binomial and b normal, with the means and variances of the regressions, so that

    P(value > t) = sum_k P(k) Phi((b - t / V_k + c V_k) / sigma_b)

in closed form.  The best N of the pool begin where the expected number of values above t is N:

    #{sampled, value > t} + sum over the others of P(value > t) = N

and P at that t is the probability sought, `chance`.  The sum of the chances is the expected number of the best N that
are not sampled yet.  A batch that takes the highest chances leaves the fewest of them, in the mean: this is why
prompts are taken by chance, and not by an upper confidence bound or by Thompson sampling, which would spend part of the
batch on learning.  A prompt of a region where nothing is known has a wide distribution, and so a chance that is not
small.

Differs from the exact posterior of the best N in: prompts are independent given the regressions, and t is one number.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import numpy as np
from numpy.typing import NDArray

_LEAST_RATE, _MOST_ALIKE = 0.01, 0.999
_HALVINGS = 100


def success_chances(mean: NDArray[np.float64], variance: NDArray[np.float64], total: int) -> NDArray[np.float64]:
    """Probabilities of 0, 1, ..., total successes of prompts whose share of successes has some mean and variance.

    Parameters
    ----------
    mean, variance : (n,) float64
        Of the share of successes in `total` completions; the mean is taken into [0.01, 0.99], the variance between that
        of independent completions and that of completions that are all alike.
    total : int
        G.

    Returns
    -------
    (n, total + 1) float64
        Beta-binomial: rows add up to 1.
    """
    mu = np.clip(mean, _LEAST_RATE, 1 - _LEAST_RATE)
    alike = (variance * total / (mu * (1 - mu)) - 1) / max(1, total - 1)
    alike = np.clip(alike, 1e-6, _MOST_ALIKE)
    weight = (1 - alike) / alike
    right, wrong = mu * weight, (1 - mu) * weight
    found = np.empty((len(mu), total + 1))
    for k in range(total + 1):
        factors = [(right + i) for i in range(k)] + [(wrong + i) for i in range(total - k)]
        chance = np.full(len(mu), float(comb(total, k)))
        for i, factor in enumerate(factors):
            chance *= factor / (weight + i)
        found[:, k] = chance
    return found


@dataclass(frozen=True)
class Outlook:
    """Distribution of the value of each prompt that was not sampled.

    Attributes
    ----------
    chances : (n, G + 1) float64
        Of each number of successes.
    alignment, variance : (n,) float64, or None
        Mean and variance of b; None where the value is V alone.
    own : float
        c: 1 where a prompt is part of the mean that it is compared with, else 0.
    """

    chances: NDArray[np.float64]
    alignment: NDArray[np.float64] | None = None
    variance: NDArray[np.float64] | None = None
    own: float = 0.0

    def above(self, threshold: float) -> NDArray[np.float64]:
        """Probability that each value exceeds a threshold, (n,) float64."""
        total = self.chances.shape[1] - 1
        rate = np.arange(total + 1) / total
        levels = rate * (1 - rate)
        if self.alignment is None or self.variance is None:
            return np.asarray(self.chances @ (levels > threshold))
        from scipy.special import ndtr

        spread = np.sqrt(np.maximum(self.variance, 1e-300))
        found = np.zeros(len(self.chances))
        for k, v in enumerate(levels.tolist()):
            if v == 0:
                found += self.chances[:, k] * (threshold < 0)
            else:
                found += self.chances[:, k] * ndtr((self.alignment + self.own * v - threshold / v) / spread)
        return found


@dataclass(frozen=True)
class TopChances:
    """Where the best N begin, and how likely each prompt that was not sampled is among them.

    Attributes
    ----------
    threshold : float
    chance : (n,) float64, in [0, 1]
    """

    threshold: float
    chance: NDArray[np.float64]

    @property
    def expected_missing(self) -> float:
        """Expected number of the best N that are not sampled."""
        return float(self.chance.sum())


def top_chances(known: NDArray[np.float64], outlook: Outlook, n: int) -> TopChances:
    """Chances of the prompts that were not sampled.

    Parameters
    ----------
    known : (m,) float64
        Values of those that were.
    outlook : Outlook
    n : int
        N.

    Notes
    -----
    Where many values are equal, V alone above all, the number above t jumps; N then lies inside the jump, and each
    equal value counts for the part of it that N takes.
    """
    if n >= len(known) + len(outlook.chances):
        return TopChances(-np.inf, np.ones(len(outlook.chances)))

    def number_above(threshold: float) -> float:
        return float(np.sum(known > threshold) + outlook.above(threshold).sum())

    reach = max(1.0, 2 * float(np.abs(known).max(initial=0.0)))
    low, high = -reach, reach
    while number_above(low) < n:
        low *= 2
    while number_above(high) >= n:
        high *= 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if number_above(middle) >= n else (low, middle)
    jump = number_above(low) - number_above(high)
    inside = (n - number_above(high)) / jump if jump > 0 else 0.0
    above = outlook.above(high)
    return TopChances(high, above + inside * (outlook.above(low) - above))
