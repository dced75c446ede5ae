"""Means over benchmarks: each counts the same, however many problems it has.

The interval resamples the problems within each benchmark: it says how far other problems of the same benchmarks
could move the mean.  The choice of benchmarks is taken as it is.

The two problems that `bootstrap` adds join only those of a benchmark whose values are all equal.  They pull each
benchmark towards the middle of its scale; in a mean these pulls add up where the spreads do not, and with five
benchmarks of success rates near 0.03 an interval with them everywhere held the truth 85 times in 100.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from lean_align.evaluate.benchmark import BOOTSTRAP, SIGN_FLIPS
from lean_align.evaluate.bootstrap import REPLICATES, SCORE_ENDS, difference_ends, percentile_interval, resampled_means
from lean_align.evaluate.paired import check_same_problems
from lean_align.evaluate.signs import sign_flip_p
from lean_align.rng import rng_for
from lean_align.types import MeanScore, ScoreDifference

ByBenchmark = Mapping[str, Mapping[str, float]]
"""Mean reward of each problem (`problem_means`), by benchmark."""
Ends = Callable[[Sequence[float]], tuple[float, float]]


def mean_score(by_benchmark: ByBenchmark, seed: int) -> MeanScore:
    """Unweighted mean over benchmarks.

    Parameters
    ----------
    by_benchmark : mapping of benchmark to mapping of problem_id to mean reward
    seed : int

    Returns
    -------
    MeanScore
        Memory: 8 bytes a replicate and benchmark.

    Raises
    ------
    ValueError
        When there is no benchmark, or one without problems.
    """
    values = {name: list(problems.values()) for name, problems in by_benchmark.items()}
    interval = _interval(values, lambda _: SCORE_ENDS, seed, "mean score")
    return MeanScore(_mean_of_means(values), interval, tuple(by_benchmark), BOOTSTRAP)


def mean_difference(base: ByBenchmark, trained: ByBenchmark, seed: int) -> ScoreDifference:
    """Unweighted mean over benchmarks of trained minus base.

    Parameters
    ----------
    base, trained : mapping of benchmark to mapping of problem_id to mean reward
        The same benchmarks with the same problems.
    seed : int

    Returns
    -------
    ScoreDifference
        Wins and losses count the problems of all benchmarks; the sign-flip test weighs a problem by
        1 / (benchmarks x problems of its benchmark), as the mean does.

    Raises
    ------
    ValueError
        When benchmarks or problems are not the same.
    """
    check_same_problems(base, trained, "benchmarks")
    for name in base:
        check_same_problems(base[name], trained[name])
    values = {name: [trained[name][key] - base[name][key] for key in sorted(base[name])] for name in base}
    weighted = [value / (len(values) * len(problems)) for problems in values.values() for value in problems]
    return ScoreDifference(
        difference=_mean_of_means(values),
        interval=_interval(values, difference_ends, seed, "mean difference"),
        wins=sum(value > 0 for value in weighted),
        losses=sum(value < 0 for value in weighted),
        p_value=sign_flip_p(weighted, rng_for(seed, "sign flips", "mean difference")),
        test=SIGN_FLIPS,
        interval_kind=BOOTSTRAP,
    )


def _mean_of_means(values: Mapping[str, Sequence[float]]) -> float:
    return math.fsum(math.fsum(problems) / len(problems) for problems in values.values()) / len(values)


def _two_more(values: Sequence[float], ends: Ends) -> tuple[float, ...]:
    return ends(values) if len(set(values)) == 1 else ()


def _interval(
    values: Mapping[str, Sequence[float]], ends: Ends, seed: int, what: str, replicates: int = REPLICATES
) -> tuple[float, float]:
    empty = [name for name, problems in values.items() if not problems]
    if empty or not values:
        raise ValueError(f"got {len(values)} benchmarks, {empty} without problems; expected one or more with some.")
    # A stream of its own for each, by name: the order of the benchmarks changes nothing.
    streams = {name: rng_for(seed, f"bootstrap of {what}", name) for name in sorted(values)}
    draws = [
        resampled_means(values[name], _two_more(values[name], ends), stream, replicates)
        for name, stream in streams.items()
    ]
    return percentile_interval(np.mean(draws, axis=0))
