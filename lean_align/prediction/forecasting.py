"""What the prompts that were sampled say of the others: success rate, alignment, and the chance to be among the best N.

Two ridge regressions on the prompts' hidden states: of the share of successes, from all prompts that were sampled, and
of the alignment, from those of them whose rewards differ, since the others have no gradient.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from lean_align.prediction.outlook import Outlook, success_chances, top_chances
from lean_align.prediction.ridge import Ridge, fit_ridge

ValueRule = Literal["learnability", "score", "leave-one-out", "target"]
"""What a method ranks by: V; V <u, m> with the pool's mean m, which the prompt is part of; the same without its part;
V <u, m_T> with a target's mean."""
SETTLED = 0.05
"""Share of the best N that may be expected among the prompts that were not sampled when rounds end."""
MOST_ROUNDS = 5
"""Rounds after the first share that the budget is divided into."""
FEWEST_ALIGNED = 3
"""Rows with a gradient that alignment is predicted from; with fewer the value is V alone."""


@dataclass(frozen=True)
class Known:
    """What is known of the prompts that were sampled.

    Attributes
    ----------
    places : (m,) int64
        Rows of the features.
    successes : (m,) int64
        Of `total` completions.
    total : int
        G.
    alignment : (m,) float64, or None
        Sum of V_j <u_i, u_j> over the other sampled prompts j, or <u_i, m_T>; NaN where there is no gradient.  None
        where a method ranks by V alone.
    """

    places: NDArray[np.int64]
    successes: NDArray[np.int64]
    total: int
    alignment: NDArray[np.float64] | None = None

    @property
    def learnability(self) -> NDArray[np.float64]:
        """V, (m,) float64."""
        rate = self.successes / self.total
        return np.asarray(rate * (1 - rate))


@dataclass(frozen=True)
class Forecast:
    """What is predicted of the prompts that were not sampled.

    Attributes
    ----------
    places : (r,) int64
        Rows of the features.
    success_rate, alignment, chance : (r,) float64
        Predicted p in [0, 1], predicted alignment (NaN where none is), and the chance to be among the best N.
    threshold : float
        Where the best N are expected to begin.
    by_rate, by_alignment : Ridge or None
        The regressions; the latter None where there were too few gradients, or V ranks alone.
    """

    places: NDArray[np.int64]
    success_rate: NDArray[np.float64]
    alignment: NDArray[np.float64]
    chance: NDArray[np.float64]
    threshold: float
    by_rate: Ridge
    by_alignment: Ridge | None

    @property
    def expected_missing(self) -> float:
        """Expected number of the best N that are not sampled."""
        return float(self.chance.sum())

    def settles(self, n: int) -> bool:
        """Whether so few of the best n are expected elsewhere that no further round is worth its tokens."""
        return self.expected_missing <= SETTLED * n

    def likeliest(self, count: int, prompt_ids: Sequence[str]) -> NDArray[np.int64]:
        """Rows of the features of the prompts with the highest chances, ties by prompt_id of the whole pool."""
        order = np.lexsort(([prompt_ids[i] for i in self.places], -self.chance))
        return self.places[order[:count]]


def round_size(first: int, most: int) -> int:
    """Prompts of each round after the first share."""
    return max(1, ceil((most - first) / MOST_ROUNDS))


def measured_values(known: Known, rule: ValueRule) -> NDArray[np.float64]:
    """Value of each prompt that was sampled, (m,) float64; 0 where its rewards are equal."""
    v = known.learnability
    if rule == "learnability" or known.alignment is None:
        return v
    return np.where(v > 0, v * (known.alignment + (v if rule == "score" else 0.0)), 0.0)


def forecast(features: NDArray[np.float32], known: Known, n: int, rule: ValueRule) -> Forecast:
    """Predict the prompts that were not sampled.

    Parameters
    ----------
    features : (pool, d) float32
        Standardised.
    known : Known
        At least two prompts.
    n : int
        N, how many are to be chosen.
    rule : str
        See `ValueRule`.

    Returns
    -------
    Forecast
    """
    rest = np.setdiff1d(np.arange(len(features)), known.places)
    by_rate = fit_ridge(features[known.places], known.successes / known.total)
    rate, rate_variance = by_rate.predict(features[rest])
    chances, by_alignment = success_chances(rate, rate_variance, known.total), None
    alignment, variance = np.full(len(rest), np.nan), None
    own = 1.0 if rule == "score" else 0.0
    if rule != "learnability" and known.alignment is not None:
        aligned = np.isfinite(known.alignment) & (known.learnability > 0)
        if aligned.sum() >= FEWEST_ALIGNED:
            by_alignment = fit_ridge(features[known.places[aligned]], known.alignment[aligned])
            alignment, variance = by_alignment.predict(features[rest])
    if by_alignment is None:
        outlook, values = Outlook(chances), known.learnability
    else:
        outlook, values = Outlook(chances, alignment, variance, own), measured_values(known, rule)
    top = top_chances(values, outlook, n)
    return Forecast(rest, np.clip(rate, 0.0, 1.0), alignment, top.chance, top.threshold, by_rate, by_alignment)
