"""Two selection methods over the same seeds and problems, and one method over its seeds.

The seed is the unit.  A training is one draw of a method: what its choice, its rollouts and its order of prompts did
to the adapter shows in all its answers, which therefore move together.  S seeds are S pieces of evidence, however
many problems each of them answers.  Flipping signs problem by problem counts a training's answers as pieces of their
own: for two methods that are the same, with 8 seeds, 400 problems and accuracies that spread by 3.3 points from
training to training, it rejects 25 times in 100 at 5 %, the flips over seeds 4.3 times
(tests/test_bench_simulation.py measures both).

The p-value counts all 2^S sign patterns of the seeds' mean differences: under the null a seed's two trainings could
be exchanged, and nothing else is assumed.  A difference of 0 is the same with either sign and leaves the share as it
is.  The smallest p is 2 / 2^S: with 5 seeds or fewer nothing can reach 5 %, and Holm multiplies the smallest of m
comparisons by m: 8 seeds are enough for 6 comparisons, 10 for 25.

It speaks of these problems.  Problems that favour one method are a real difference on them, even where others would
make up for it; what other problems could do is in the interval (`crossed`), so the two need not agree near 5 %.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics.bootstrap import OVER_PROBLEMS, SCORE_ENDS, difference_ends
from lean_align.statistics.crossed import CrossedDraws, Interval, crossed_draws
from lean_align.statistics.paired import FLIPS, MAX_EXACT, MCNEMAR, SIGN_FLIPS, mcnemar, sign_flip_p

BySeed = Mapping[int, Mapping[str, float]]
"""A method's trainings: mean reward in [0, 1] of each problem, by problem_id, by seed."""
CROSSED = "bootstrap over seeds and problems"
SEED_FLIPS = "sign flips over seeds, exact"
DRAWN_SEED_FLIPS = "sign flips over seeds, drawn"


@dataclass(frozen=True)
class SeedComparison:
    """Other minus reference, over the same seeds and problems.

    Attributes
    ----------
    difference : float, in [-1, 1]
        Mean over seeds and problems.
    interval, interval_kind
        95 %, over other seeds and other problems; over other problems for one seed.
    interval_seeds, interval_problems : tuple of float
        95 % over other seeds on these problems (None for one seed), and over other problems with these trainings.
    reference_at_least, other_at_least : float
        Lower end of the one-sided 95 % interval of reference minus other, and of other minus reference: with
        `reference_at_least` -0.012 the reference is at least as good within 1.2 points.
    p_value, test, smallest_p
        Two-sided; how it was made; the smallest value that the test can give with so many seeds (None for one seed).
    wins, losses : int
        Pairs of seed and problem on which the other method does better and worse.
    seed_wins, seed_losses, seed_ties : int
        Seeds on whose problems the other method does better, worse and alike on average.
    seed_sd : float or None
        Standard deviation of the seeds' mean differences, for `detectable_difference`; None for one seed.
    n_seeds : int
    seeds, seeds_left_out : tuple of int
        The seeds compared, and those that only one of the methods has.
    n_problems : int
    """

    difference: float
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval
    reference_at_least: float
    other_at_least: float
    p_value: float
    test: str
    smallest_p: float | None
    wins: int
    losses: int
    seed_wins: int
    seed_losses: int
    seed_ties: int
    seed_sd: float | None
    n_seeds: int
    seeds: tuple[int, ...]
    seeds_left_out: tuple[int, ...]
    n_problems: int


@dataclass(frozen=True)
class SeedMean:
    """Accuracy of a method over its seeds and problems; intervals as in `SeedComparison`.

    `by_seed` are the accuracies of the seeds, in their order; `seed_sd` is their standard deviation, None for one.
    """

    value: float
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval
    by_seed: tuple[float, ...]
    seed_sd: float | None
    n_problems: int


def seed_differences(reference: BySeed, other: BySeed, seed: int) -> SeedComparison:
    """Compare two methods over the seeds that both have.

    Parameters
    ----------
    reference, other : mapping of seed to mapping of problem_id to mean reward
        The same problems in each.
    seed : int
        Of the bootstrap, and of the sign flips beyond 16 seeds.

    Returns
    -------
    SeedComparison
        Other minus reference.  One seed: McNemar's exact test over problems for rewards in {0, 1}, sign flips over
        problems else; neither says anything of other seeds.

    Raises
    ------
    DataError
        When no seed is in both, problems are missing somewhere, or a reward is not in [0, 1].
    """
    seeds = _common_seeds(reference, other)
    problems = sorted(reference[seeds[0]])
    d = np.round(_as_array(other, seeds, problems) - _as_array(reference, seeds, problems), 12)
    rows = row_means(d)
    draws = crossed_draws(d, difference_ends(d.ravel().tolist()), seed, "difference")
    p_value, test = paired_test(d, rng_for(seed, "sign flips", "seeds"))
    return SeedComparison(
        **_intervals(draws, -1.0),
        difference=draws.mean,
        reference_at_least=max(-1.0, -draws.quantile(0.95)),
        other_at_least=max(-1.0, draws.quantile(0.05)),
        p_value=p_value,
        test=test,
        smallest_p=smallest_p(len(seeds)) if len(seeds) > 1 else None,
        wins=int((d > 0).sum()),
        losses=int((d < 0).sum()),
        seed_wins=int((rows > 0).sum()),
        seed_losses=int((rows < 0).sum()),
        seed_ties=int((rows == 0).sum()),
        seed_sd=_sd(rows),
        n_seeds=len(seeds),
        seeds=seeds,
        seeds_left_out=tuple(sorted(reference.keys() ^ other.keys())),
        n_problems=len(problems),
    )


def mean_over_seeds(rewards: ArrayLike, seed: int) -> SeedMean:
    """Accuracy of a method with its interval over other seeds and other problems.

    Parameters
    ----------
    rewards : (S, P) float
        Mean rewards in [0, 1]: a row a training, a column a problem.
    seed : int
        Of the bootstrap.

    Returns
    -------
    SeedMean

    Raises
    ------
    DataError
        When there is no seed or no problem, or a reward is not in [0, 1].
    """
    values = _checked(np.asarray(rewards, dtype=np.float64))
    rows, draws = values.mean(axis=1), crossed_draws(values, SCORE_ENDS, seed, "mean")
    return SeedMean(
        **_intervals(draws, 0.0),
        value=draws.mean,
        by_seed=tuple(rows.tolist()),
        seed_sd=_sd(rows),
        n_problems=values.shape[1],
    )


def seed_p_value(differences: NDArray[np.float64], rng: np.random.Generator) -> float:
    """Sign flips over the rows' means of (S, P) differences: a row is one seed."""
    return sign_flip_p(row_means(differences).tolist(), rng)


def problem_p_value(differences: NDArray[np.float64], rng: np.random.Generator, flips: int = FLIPS) -> float:
    """Sign flips over the columns' means of (S, P) differences: it speaks of these trainings only."""
    return sign_flip_p(np.round(differences.mean(axis=0), 12).tolist(), rng, flips)


def smallest_p(n_seeds: int) -> float:
    """The smallest p-value that flips over n seeds can give: 2 / 2^n, or 1 / (1 + flips) where patterns are drawn."""
    return 2 / 2**n_seeds if n_seeds <= MAX_EXACT else 1 / (1 + FLIPS)


def paired_test(differences: NDArray[np.float64], rng: np.random.Generator) -> tuple[float, str]:
    """p-value of (S, P) differences, and the name of the test: over seeds, or over problems for one seed."""
    if len(differences) > 1:
        exact = np.count_nonzero(row_means(differences)) <= MAX_EXACT
        return seed_p_value(differences, rng), SEED_FLIPS if exact else DRAWN_SEED_FLIPS
    if np.isin(differences, (-1, 0, 1)).all():
        return mcnemar(int((differences > 0).sum()), int((differences < 0).sum())), MCNEMAR
    return problem_p_value(differences, rng), SIGN_FLIPS


def row_means(differences: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean difference of each seed.  A zero is exactly 0."""
    # Thirds that cancel leave 1e-17, which would count as a win.
    return np.asarray(np.round(differences.mean(axis=1), 12), dtype=np.float64)


class _Intervals(TypedDict):
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval


def _common_seeds(reference: BySeed, other: BySeed) -> tuple[int, ...]:
    seeds = tuple(sorted(reference.keys() & other.keys()))
    if not seeds:
        raise DataError(
            f"got seeds {sorted(reference)} and {sorted(other)}; expected at least one that both have. "
            "Train both methods with the same seeds."
        )
    return seeds


def _as_array(rewards: BySeed, seeds: tuple[int, ...], problems: list[str]) -> NDArray[np.float64]:
    """(S, P), after a check that each training met these problems and no others."""
    for seed in seeds:
        odd = sorted(rewards[seed].keys() ^ set(problems))[:3]
        if odd:
            raise DataError(
                f"got {len(rewards[seed])} problems for seed {seed} where another training has {len(problems)} "
                f"(not the same: such as {odd}); expected the same ones everywhere. Evaluate all on one set."
            )
    return _checked(np.array([[rewards[seed][key] for key in problems] for seed in seeds], dtype=np.float64))


def _checked(values: NDArray[np.float64]) -> NDArray[np.float64]:
    if values.ndim != 2 or values.size == 0:
        raise DataError(f"got rewards of shape {values.shape}; expected one training or more, on one problem or more.")
    if not ((values >= 0) & (values <= 1)).all():
        raise DataError(f"got rewards from {values.min()} to {values.max()}; expected mean rewards in [0, 1].")
    return values


def _sd(rows: NDArray[np.float64]) -> float | None:
    return float(rows.std(ddof=1)) if len(rows) > 1 else None


def _intervals(draws: CrossedDraws, lowest: float) -> _Intervals:
    return {
        "interval": _within(draws.interval, lowest),
        "interval_kind": OVER_PROBLEMS if draws.seeds is None else CROSSED,
        "interval_seeds": draws.over_seeds and _within(draws.over_seeds, lowest),
        "interval_problems": draws.over_problems,
    }


def _within(interval: Interval, lowest: float) -> Interval:
    """The interval cut at the ends of the scale, which the factor for few seeds can pass."""
    return max(lowest, interval[0]), min(1.0, interval[1])
