"""LIMR: the prompts whose reward over a full training follows the pool's mean.

    s_i = 1 - sum_k (r_i^k - rbar^k)^2 / sum_k (1 - rbar^k)^2      (n,), at most 1

r_i^k is the mean reward of prompt i in pass k over the pool, rbar^k its mean over prompts: (n, epochs).

Source: LIMR, arXiv 2502.11886, and its code (https://github.com/GAIR-NLP/LIMR, lim/lim_selection.py).

Differs from LIMR in:

1. The n highest are kept; the source keeps all above a threshold, 0.6 in its readme.
2. Passes are `selection.curve_epochs`, by default 3; the source has 21.
3. A pass in which every prompt is solved adds 0 below and above; when all are, every s_i is 1.

Costly: it takes a training on the whole pool to choose what to train on.
"""

from __future__ import annotations

import numpy as np

from lean_align.errors import DataError
from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n whose curves are nearest to the mean curve."""
    curves = given(pool.reward_curves, "reward_curves")
    if curves.ndim != 2 or not curves.shape[1] or not np.isfinite(curves).all():
        raise DataError(f"reward_curves have shape {curves.shape}; expected (n, epochs) of finite mean rewards.")
    mean = curves.mean(axis=0)
    largest = float(((1 - mean) ** 2).sum())
    values = 1 - ((curves - mean) ** 2).sum(axis=1) / largest if largest > 0 else np.ones(len(pool))
    return best(pool, values, n, f"the {n} reward curves of {curves.shape[1]} passes nearest to the mean curve")


METHOD = SelectionMethod(
    name="limr",
    needs=frozenset({"reward_curves"}),
    choose=choose,
    source="LIMR, arXiv 2502.11886",
    departures=("the n highest, no threshold", "few passes"),
    costly="a training on the whole pool comes before the choice",
)
