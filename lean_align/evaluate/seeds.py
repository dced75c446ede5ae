"""Two selection methods over the same seeds and problems, and one method over its seeds.

`seed_tests` says why the seed is the unit, `crossed` how the intervals are made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.errors import DataError
from lean_align.evaluate.bootstrap import SCORE_ENDS, difference_ends
from lean_align.evaluate.crossed import CrossedDraws, Interval, crossed_draws
from lean_align.evaluate.seed_records import SeedComparison, SeedMean
from lean_align.evaluate.seed_tests import paired_test, row_means, smallest_p
from lean_align.rng import rng_for

BySeed = Mapping[int, Mapping[str, float]]
"""A method's trainings: mean reward in [0, 1] of each problem, by problem_id, by seed."""
CROSSED, OVER_PROBLEMS = "bootstrap over seeds and problems", "bootstrap over problems"


class _Intervals(TypedDict):
    interval: Interval
    interval_kind: str
    interval_seeds: Interval | None
    interval_problems: Interval


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
