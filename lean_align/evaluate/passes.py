"""pass@k: the chance that at least one of k completions is right, from n >= k sampled ones.

With c of n right, k drawn without replacement all miss in C(n - c, k) of C(n, k) ways, so that
1 - C(n - c, k) / C(n, k) is unbiased (Chen et al. 2021, arXiv 2107.03374, section 2.1); 1 - (1 - c/n)^k is not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


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
