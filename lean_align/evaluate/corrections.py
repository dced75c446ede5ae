"""Holm's correction for several comparisons (Holm 1979, Scandinavian Journal of Statistics 6, 65-70).

With the m p-values in ascending order, the adjusted one at place j = 0, 1, ... is the largest of
(m - i) p_(i) over i <= j, and 1 at most.  Rejecting what lies at or below 5 % keeps the chance of any false
rejection at 5 %, whatever the tests have to do with one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import accumulate

from lean_align.errors import DataError


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


def seeds_needed(n_comparisons: int, level: float = 0.05) -> int:
    """Fewest seeds with which sign flips over seeds can reach `level` for one of m comparisons under Holm.

    The smallest p of S seeds is 2 / 2^S, and Holm multiplies the smallest of the family by m: with 8 seeds a
    family of up to 6 comparisons can show anything at 5 %, with 10 seeds one of up to 25.

    Raises
    ------
    ValueError
        When there is no comparison, or `level` is not in (0, 1).
    """
    if n_comparisons < 1 or not 0 < level < 1:
        raise ValueError(f"got {n_comparisons} comparisons at {level}; expected 1 or more, at a level in (0, 1).")
    seeds = 1
    while n_comparisons * 2 / 2**seeds > level:
        seeds += 1
    return seeds
