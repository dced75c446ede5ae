"""Quantiles of Student's t for whole degrees of freedom, from the closed form of its distribution.

With t = sqrt(df) tan(theta), the mass between -t and t is a finite sum over powers of cos(theta) (Abramowitz and
Stegun 1964, formulas 26.7.3 and 26.7.4); a bisection over theta inverts it.
"""

from __future__ import annotations

import math

_HALVINGS = 80


def t_quantile(level: float, df: int) -> float:
    """The value that Student's t stays below with probability `level`.

    Parameters
    ----------
    level : float
        In (0, 1).
    df : int
        Degrees of freedom, at least 1.

    Returns
    -------
    float
        Exact to about 1e-12 of its size.

    Raises
    ------
    ValueError
        When `level` or `df` is out of range.
    """
    if not 0 < level < 1 or df < 1:
        raise ValueError(f"got level = {level} and df = {df}; expected 0 < level < 1 and df >= 1.")
    if level < 0.5:
        return -t_quantile(1 - level, df)
    low, high = 0.0, math.pi / 2
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _mass_within(middle, df) < 2 * level - 1 else (low, middle)
    return math.sqrt(df) * math.tan(low)


def _mass_within(theta: float, df: int) -> float:
    """P(|T| < sqrt(df) tan(theta))."""
    odd = df % 2
    if df == 1:
        return 2 * theta / math.pi
    term = total = math.cos(theta) if odd else 1.0
    for i in range(1 + odd, df - 1, 2):
        term *= math.cos(theta) ** 2 * i / (i + 1)
        total += term
    return 2 / math.pi * (theta + math.sin(theta) * total) if odd else math.sin(theta) * total
