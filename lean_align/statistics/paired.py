"""Two models over the same problems.

One completion of each: the difference gets the adjusted Wald interval for paired proportions (Bonett and Price 2012,
doi:10.3102/1076998611411915) and McNemar's exact test (doi:10.1007/BF02295996).

Several: Fisher's randomisation test.  If the two models are alike, each problem's difference is as likely with the
other sign.  The test statistic is the absolute sum; the p-value is the share of sign patterns that reach it.  With
differences of -1 and 1 only, this is McNemar's exact test.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from lean_align.statistics.proportions import Z_95
from lean_align.types import PairedDifference

MCNEMAR, SIGN_FLIPS = "McNemar, exact", "sign flips"
MAX_EXACT = 16
FLIPS = 100_000
# Equal sums may differ in their last bits: they are sums of k-ths.
_TOLERANCE = 1e-9


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


def sign_flip_p(differences: Sequence[float], rng: np.random.Generator, flips: int = FLIPS) -> float:
    """Two-sided p-value that each difference is as likely with either sign.

    Parameters
    ----------
    differences : sequence of float
        Trained minus base, one per problem; zeros carry nothing and are left out.
    rng : numpy Generator
        Used beyond 16 differences that are not 0; below, all patterns are counted.
    flips : int
        Patterns drawn, at least 10,000; p = (1 + reached) / (1 + flips) then, never 0.

    Returns
    -------
    float
        In (0, 1].  Memory: 16 flips bytes.

    Raises
    ------
    ValueError
        When `flips` is below 10,000.
    """
    if flips < 10_000:
        raise ValueError(f"got flips = {flips}; expected 10,000 or more, or small p-values are noise.")
    sizes = np.abs([difference for difference in differences if difference != 0])
    reach = abs(math.fsum(differences)) - _TOLERANCE * float(sizes.sum())
    if len(sizes) <= MAX_EXACT:
        return float(np.mean(np.abs(_all_sums(sizes)) >= reach))
    return float((1 + np.sum(np.abs(_drawn_sums(sizes, rng, flips)) >= reach)) / (1 + flips))


def check_same_problems(base: Mapping[str, object], trained: Mapping[str, object], what: str = "problems") -> None:
    """Refuse two models that did not meet the same problems (or benchmarks), or met none."""
    if base.keys() != trained.keys() or not base:
        odd = sorted(base.keys() ^ trained.keys())[:3]
        raise ValueError(f"got {len(base)} and {len(trained)} {what}, not the same ones (such as {odd}).")


def _all_sums(sizes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums under all 2^m sign patterns of m sizes."""
    sums = np.zeros(1)
    for size in sizes:
        sums = np.concatenate([sums - size, sums + size])
    return sums


def _drawn_sums(sizes: NDArray[np.float64], rng: np.random.Generator, flips: int) -> NDArray[np.float64]:
    """Sums under random sign patterns; of c equal sizes, a binomial number keep their sign."""
    sums = np.zeros(flips)
    for size, c in zip(*np.unique(sizes, return_counts=True), strict=True):
        sums += size * (2 * rng.binomial(c, 0.5, size=flips) - c)
    return sums
