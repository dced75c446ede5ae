"""Greedy pass@1 on held-out problems, with intervals, and two models compared on the same problems.

A share of n problems gets Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953).  The
difference of two models over the same problems gets the adjusted Wald interval for paired proportions
(Bonett and Price 2012, doi:10.3102/1076998611411915) and McNemar's exact test (doi:10.1007/BF02295996).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from lean_align.types import PairedDifference, Proportion

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


def mcnemar(wins: int, losses: int) -> float:
    """Exact two-sided p-value that wins and losses are equally likely."""
    n = wins + losses
    tail: int = sum(math.comb(n, k) for k in range(min(wins, losses) + 1))
    return min(1.0, float(2 * tail / 2**n))


def paired_difference(base: Mapping[str, float], trained: Mapping[str, float], z: float = Z_95) -> PairedDifference:
    """Compare two models' rewards over the same problems.

    Parameters
    ----------
    base, trained : mapping of prompt_id to reward
        Rewards in {0, 1} of the same problems.
    z : float

    Returns
    -------
    PairedDifference
        Trained minus base.

    Raises
    ------
    ValueError
        When the problems are not the same.
    """
    if base.keys() != trained.keys() or not base:
        odd = sorted(base.keys() ^ trained.keys())[:3]
        raise ValueError(f"got {len(base)} and {len(trained)} problems, not the same ones (such as {odd}).")
    n = len(base)
    wins = sum(trained[key] > base[key] for key in base)
    losses = sum(trained[key] < base[key] for key in base)
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return PairedDifference((wins - losses) / n, (low, high), wins, losses, mcnemar(wins, losses))


def accuracy(rewards: Sequence[float]) -> Proportion:
    """Share of rewards that are 1, with its interval."""
    return wilson(sum(reward == 1.0 for reward in rewards), len(rewards))
