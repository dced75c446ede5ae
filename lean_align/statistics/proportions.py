"""Shares: with Wilson's interval (Wilson 1927, doi:10.1080/01621459.1927.10502953), and pass@k.

pass@k is the chance that at least one of k completions is right, from n >= k sampled ones.  With c of n right, k
drawn without replacement all miss in C(n - c, k) of C(n, k) ways, so that 1 - C(n - c, k) / C(n, k) is unbiased
(Chen et al. 2021, arXiv 2107.03374, section 2.1); 1 - (1 - c/n)^k is not.
"""

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


def pass_at_k(n: int, correct: int, k: int) -> float:
    """Unbiased estimate of pass@k of one problem.

    Parameters
    ----------
    n, correct : int
        Completions sampled, and how many of them are right; 0 <= correct <= n.
    k : int
        1 <= k <= n.

    Returns
    -------
    float
        In [0, 1]; exact integers until the last division, so pass@1 is correct / n to the bit.

    Raises
    ------
    ValueError
        When the counts are impossible, or k is larger than n.
    """
    if not 0 <= correct <= n:
        raise ValueError(f"got {correct} correct of {n}; expected 0 <= correct <= n.")
    if not 1 <= k <= n:
        raise ValueError(f"got k = {k} with {n} completions; expected 1 <= k <= n. Sample more, or ask for a lower k.")
    return (math.comb(n, k) - math.comb(n - correct, k)) / math.comb(n, k)


def mean_pass_at_k(counts: Sequence[int], num_samples: int) -> dict[str, float]:
    """Mean pass@k over problems for k = 1, 2, 4, ... up to num_samples, from right completions a problem.

    The keys are strings, as JSON has them.
    """
    powers = [2**i for i in range(num_samples.bit_length())]
    return {str(k): math.fsum(pass_at_k(num_samples, c, k) for c in counts) / len(counts) for k in powers}
