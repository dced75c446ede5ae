"""Two models over the same problems, one completion each.

The difference gets the adjusted Wald interval for paired proportions (Bonett and Price 2012,
doi:10.3102/1076998611411915) and McNemar's exact test (doi:10.1007/BF02295996).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from lean_align.evaluate.proportions import Z_95
from lean_align.types import PairedDifference


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
    check_same_problems(base, trained)
    n = len(base)
    wins = sum(trained[key] > base[key] for key in base)
    losses = sum(trained[key] < base[key] for key in base)
    up, down = (wins + 1) / (n + 2), (losses + 1) / (n + 2)
    half = z * math.sqrt((up + down - (up - down) ** 2) / (n + 2))
    low, high = max(-1.0, up - down - half), min(1.0, up - down + half)
    return PairedDifference((wins - losses) / n, (low, high), wins, losses, mcnemar(wins, losses))


def check_same_problems(base: Mapping[str, object], trained: Mapping[str, object], what: str = "problems") -> None:
    """Refuse two models that did not meet the same problems (or benchmarks), or met none."""
    if base.keys() != trained.keys() or not base:
        odd = sorted(base.keys() ^ trained.keys())[:3]
        raise ValueError(f"got {len(base)} and {len(trained)} {what}, not the same ones (such as {odd}).")
