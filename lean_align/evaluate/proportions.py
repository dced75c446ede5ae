"""A share of n problems with Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from lean_align.types import Proportion

Z_95 = 1.959963984540054


def wilson(correct: int, n: int, z: float = Z_95) -> Proportion:
    """A share of successes with its Wilson interval.

    Parameters
    ----------
    correct, n : int
        0 <= correct <= n and n >= 1.
    z : float
        Normal quantile; 1.96 for 95 %.

    Returns
    -------
    Proportion
    """
    if not 0 <= correct <= n or n < 1:
        raise ValueError(f"got {correct} correct of {n}; expected 0 <= correct <= n and n >= 1.")
    share = correct / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if correct == 0 else max(0.0, centre - half)  # exactly, where rounding would leave 1e-18
    high = 1.0 if correct == n else min(1.0, centre + half)
    return Proportion(correct, n, share, (low, high))


def accuracy(rewards: Sequence[float]) -> Proportion:
    """Share of rewards that are 1, with its interval."""
    return wilson(sum(reward == 1.0 for reward in rewards), len(rewards))
