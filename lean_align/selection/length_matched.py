"""A random subset with the completion lengths of LearnAlign's choice: is its gain more than a gain in length?

The pool is cut into quantile bins of mean completion length.  From each bin as many prompts are drawn, from all of the
bin, as LearnAlign's n best have in it.  Within a bin lengths are the bin's own, so that the control's expected
distribution of lengths is

    F(x) = sum_b (c_b / n) F_b(x)      c_b chosen by LearnAlign in bin b, F_b the bin's distribution

More bins bring F nearer to LearnAlign's, and force more of its very prompts into the control: sum_b c_b^2 / m_b in the
mean, in bins of m_b prompts.  So the fewest bins are taken with which the largest gap between F and LearnAlign's
distribution is at most 0.05, half of what two samples of 130 from one distribution differ by in the median; where none
of 1 to 20 gets there, the number with the smallest gap.  Bins have 10 prompts or more.

Source: ours, the control that reviewers of LearnAlign (arXiv 2506.11480) asked for.

Differs from `random` in:

1. Numbers by bin are LearnAlign's.  A larger subset does not contain the smaller.
"""

from __future__ import annotations

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from lean_align.rng import rng_for
from lean_align.selection.learnalign import choose as choose_by_score
from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool, given

MOST_BINS, LEAST_IN_BIN, LARGEST_GAP = 20, 10, 0.05


def choose(pool: SelectionPool, n: int) -> Choice:
    """As many of each length as LearnAlign takes, at random."""
    lengths, best = given(pool.n_tokens, "n_tokens"), choose_by_score(pool, n).order
    bins = length_bins(lengths, best)
    rng = rng_for(pool.seed, "selection", "length matched")
    drawn = [rng.permutation(members)[: int(np.isin(best, members).sum())] for members in bins]
    order = rng.permutation(np.concatenate(drawn)).astype(np.int64, copy=False)
    overlap, gap = len(np.intersect1d(order, best)), length_gap(lengths[order], lengths[best])
    return Choice(
        order,
        None,
        f"{n} at random with LearnAlign's lengths in {len(bins)} bins; {overlap} of LearnAlign's are among them "
        f"({n * n / len(pool):.0f} would be by chance), distributions of length differ by {gap:.3f} at most",
    )


def length_bins(lengths: NDArray[np.float64], best: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Indices by bin: the fewest quantile bins with which the control's lengths come near enough to those of `best`."""
    cuts = [
        _quantile_bins(lengths, n_bins) for n_bins in range(1, max(1, min(MOST_BINS, len(lengths) // LEAST_IN_BIN)) + 1)
    ]
    gaps = [expected_gap(lengths, best, bins) for bins in cuts]
    near_enough = [bins for bins, gap in zip(cuts, gaps) if gap <= LARGEST_GAP]
    return near_enough[0] if near_enough else cuts[int(np.argmin(gaps))]


def expected_gap(lengths: NDArray[np.float64], best: NDArray[np.int64], bins: list[NDArray[np.int64]]) -> float:
    """Largest difference between the control's expected distribution of lengths and that of `best`, in [0, 1]."""
    weights = np.zeros(len(lengths))
    for members in bins:
        weights[members] = np.isin(best, members).sum() / len(members) / len(best)
    return length_gap(lengths, lengths[best], weights)


def length_gap(
    one: NDArray[np.float64], other: NDArray[np.float64], weights: NDArray[np.float64] | None = None
) -> float:
    """Largest difference of two cumulative distributions (Kolmogorov and Smirnov's), the first one weighted."""
    weights = np.full(len(one), 1 / len(one)) if weights is None else weights
    places, by_length = np.unique(np.concatenate([one, other])), np.argsort(one)
    sums = np.concatenate([[0.0], np.cumsum(weights[by_length])])
    first = sums[np.searchsorted(one[by_length], places, side="right")]
    second = np.searchsorted(np.sort(other), places, side="right") / len(other)
    return float(np.abs(first - second).max())


def _quantile_bins(lengths: NDArray[np.float64], n_bins: int) -> list[NDArray[np.int64]]:
    """Bins of nearly equal numbers; equal lengths share one, so that there may be fewer."""
    inner = np.unique(np.quantile(lengths, np.arange(1, n_bins) / n_bins))
    number = np.searchsorted(inner, lengths, side="left")
    by_bin = np.argsort(number, kind="stable")
    edges = np.searchsorted(number[by_bin], np.arange(len(inner) + 2))
    return [by_bin[start:stop] for start, stop in pairwise(edges.tolist()) if stop > start]


METHOD = SelectionMethod(
    name="random-length-matched",
    needs=frozenset({"rollouts", "scores"}),
    choose=choose,
    source="ours, for reviewers of LearnAlign, arXiv 2506.11480",
    departures=("lengths are LearnAlign's, by bin",),
)
