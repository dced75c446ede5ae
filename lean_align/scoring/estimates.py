"""Success rate and learnability of each prompt, unbiased where the number of completions depended on the rewards.

Of every prompt `first` completions are drawn, and the others up to `total` only where the first rewards are not all
equal.  The share of successes is then biased: prompts that stopped early sit at 0 or 1.  A prompt's draws are a path
on the lattice of (successes, failures), one step a completion, that ends at a point where the rule stops.  Every
path to one end point is equally likely, p^s (1-p)^f, whatever p.  Hence, given the end point,

    p      = paths that begin with a success / all paths
    p(1-p) = paths that begin with a success, then a failure / all paths

with paths counted that the rule lets happen: the mean of [first draw right], and of [first right, second wrong], over
what could have led there.  Both are unbiased, and no other function of the end point is, since the points where the
rule goes on have no gap at any number of draws (Girshick, Mosteller and Savage 1946, Annals of
Mathematical Statistics 17, 13-23).

Differs from the plug-in V = p (1 - p) of a fixed number of completions, G, in:

1. Plug-in V is (G - 1) / G of an unbiased one, for every prompt alike.  A ranking by V_i <u_i, m> does not see a
   common factor; values of two runs, or a mixture of both estimates, would.  `plug_in_scale` is that factor: times it,
   `unbiased_estimates` with first = total is the plug-in V, and with a smaller first has the same mean.
2. It is not p (1 - p) of the estimated p, and may exceed 1/4.  Near 1/2 it hardly falls as p leaves 1/2: that an
   uneven prompt passed the first look at all says that it is less uneven than its counts.
3. It is the mean of the first completions' own estimate, f(first - f) / (first (first - 1)) with f of them right, over
   what the first may have been.  With first = 2 or 3 that is one value wherever they differ, 1/2 or 1/3: later
   completions then say more about p and the gradient, and nothing about V.

What is unbiased is V.  The gradient of a prompt that was kept is that of its completions, as if kept always.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import cache
from types import MappingProxyType

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.recipe import Recipe

Point = tuple[int, int]
MOST_LEARNABLE = 0.5  # an unbiased estimate from two completions is 0 or 1/2


def learnability(success_rate: ArrayLike) -> NDArray[np.float64]:
    """V = p (1 - p) of success rates p in [0, 1]; (n,) float64 in [0, 0.25]."""
    p = np.asarray(success_rate, dtype=np.float64)
    if p.ndim != 1 or not np.all((p >= 0) & (p <= 1)):
        raise ValueError(f"success_rate has shape {p.shape} and range {_range(p)}; expected (n,) within [0, 1].")
    return p * (1.0 - p)


def learnability_or_estimate(success_rate: ArrayLike, estimate: ArrayLike | None) -> NDArray[np.float64]:
    """An estimate of V as (n,) float64, or p (1 - p) where there is none.

    Raises
    ------
    ValueError
        When the estimate is not one number in [-1/2, 1/2] a success rate.
    """
    plug_in = learnability(success_rate)
    if estimate is None:
        return plug_in
    v = np.asarray(estimate, dtype=np.float64)
    if v.shape != plug_in.shape or not np.all(np.abs(v) <= MOST_LEARNABLE):
        raise ValueError(
            f"learnability has shape {v.shape} and range {_range(v)}; expected {plug_in.shape}, one per success rate, "
            f"within [-{MOST_LEARNABLE}, {MOST_LEARNABLE}]."
        )
    return v


def unbiased_estimates(
    n_success: ArrayLike, n_completions: ArrayLike, first: int, total: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Success rate p and learnability p (1 - p) of each prompt, without bias under the stopping rule.

    Parameters
    ----------
    n_success, n_completions : (n,) int
        Successes and completions of each prompt.
    first, total : int
        Completions of every prompt, and of those whose first rewards differ; 2 <= first <= total.  With
        first = total = G the number is fixed, and the estimates are s / G and s (G - s) / (G (G - 1)).

    Returns
    -------
    success_rate : (n,) float64, in [0, 1]
    learnability : (n,) float64, in [0, 1/2]; 0 exactly where all rewards are equal

    Raises
    ------
    ValueError
        When shapes differ, or the rule never stops at such a count.

    Examples
    --------
    first = 2, total = 4.  One path ends at two successes, one at two failures.  Two go on, SF and FS; two more draws
    make 2 x 1 paths to 3 successes of 4, 2 x 2 to 2 of 4 and 2 x 1 to 1 of 4.  Of each, half begin with S, and those
    are the ones that begin with SF: p and V are 1/2.

    >>> unbiased_estimates([2, 3, 2, 1, 0], [2, 4, 4, 4, 2], first=2, total=4)
    (array([1. , 0.5, 0.5, 0.5, 0. ]), array([0. , 0.5, 0.5, 0.5, 0. ]))
    """
    s, n = np.asarray(n_success), np.asarray(n_completions)
    if s.ndim != 1 or s.shape != n.shape:
        raise ValueError(f"n_success has shape {s.shape} and n_completions {n.shape}; expected one (n,) of both.")
    table = exact_estimates(first, total)
    p, v = np.empty(len(s)), np.empty(len(s))
    for i, (right, drawn) in enumerate(zip(s.tolist(), n.tolist())):
        found = table.get((right, drawn - right))
        if found is None:
            raise ValueError(
                f"prompt {i} has {right:g} successes in {drawn:g} completions; expected {first} with equal rewards, or "
                f"{total} of which the first {first} differ. Were the completions drawn with this rule?"
            )
        p[i], v[i] = float(found[0]), float(found[1])
    return p, v


def plug_in_scale(total: int) -> float:
    """(G - 1) / G: what the plug-in p (1 - p) of a fixed number G of completions is of V in the mean."""
    return (total - 1) / total


def success_estimates(
    recipe: Recipe, rewards: Sequence[Sequence[float]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Success rate and learnability of each prompt, (n,) float64: p and p (1 - p) of all G completions.

    Where the number of completions depended on the first rewards, both are the unbiased estimates of that rule.
    """
    settings = recipe.rollouts
    if settings.allocation != "sequential":
        p = np.array([sum(found) / len(found) for found in rewards])
        return p, learnability(p)
    n_success, n_completions = [sum(found) for found in rewards], [len(found) for found in rewards]
    return unbiased_estimates(n_success, n_completions, settings.first_generations, recipe.selection_generations)


@cache
def exact_estimates(first: int, total: int) -> Mapping[Point, tuple[Fraction, Fraction]]:
    """Estimates of p and p (1 - p) at each point (successes, failures) where the rule stops.

    Raises
    ------
    ValueError
        Unless 2 <= first <= total: V needs two draws.
    """
    if not 2 <= first <= total:
        raise ValueError(f"first is {first} and total {total}; expected 2 <= first <= total.")
    all_paths, right, right_wrong = (_paths(start, first, total) for start in ((0, 0), (1, 0), (1, 1)))
    return MappingProxyType(
        {end: (Fraction(right[end], n), Fraction(right_wrong[end], n)) for end, n in all_paths.items()}
    )


def _paths(start: Point, first: int, total: int) -> Counter[Point]:
    """Number of paths that the rule allows from a point to each end point."""
    going_on, ended = Counter({start: 1}), Counter[Point]()
    while going_on:
        reached: Counter[Point] = Counter()
        for (s, f), paths in going_on.items():
            if s + f == total or (s + f == first and 0 in (s, f)):
                ended[s, f] = paths
            else:
                reached[s + 1, f] += paths
                reached[s, f + 1] += paths
        going_on = reached
    return ended


def _range(p: NDArray[np.float64]) -> str:
    return f"[{p.min()}, {p.max()}]" if p.size else "empty"
