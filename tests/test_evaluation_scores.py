"""Scores of models on benchmarks, differences of two models, and means, against numbers worked out by hand."""

from __future__ import annotations

import math
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.evaluation.benchmark_scores import (
    _interval,
    compare_scores,
    mean_difference,
    mean_score,
    score_completions,
)
from lean_align.statistics import paired_difference, sign_flip_p, wilson
from lean_align.statistics.bootstrap import SCORE_ENDS, percentile_interval, resampled_means
from lean_align.types import Outcome
from tests.test_statistics import pair


def outcomes_of(rewards: dict[str, list[int]], **changed: object) -> dict[str, list[Outcome]]:
    """Finished and answered completions of 10 tokens with these rewards."""
    made = Outcome(0.0, 10, True, True)
    return {key: [replace(made, reward=float(r), **changed) for r in problem] for key, problem in rewards.items()}


def test_score_of_one_greedy_completion_is_wilsons() -> None:
    score = score_completions(outcomes_of({"a": [1], "b": [0], "c": [1], "d": [1]}), seed=0)
    assert (score.metric, score.value, score.interval_kind) == ("pass@1", 0.75, "Wilson")
    assert score.interval == wilson(3, 4).interval
    assert (score.n, score.num_samples, score.n_correct, score.pass_at_k) == (4, 1, 3, {"1": 0.75})


def test_score_of_several_completions_by_hand() -> None:
    """Right: 1, 4 and 0 of four.  avg@4 = 5/12; pass@2 = (1/2 + 1 + 0)/3; pass@4 = 2/3."""
    score = score_completions(outcomes_of({"a": [0, 1, 0, 0], "b": [1] * 4, "c": [0] * 4}), seed=0)
    assert (score.metric, score.interval_kind, score.n, score.num_samples) == ("avg@4", "bootstrap over problems", 3, 4)
    assert (score.value, score.n_correct) == (pytest.approx(5 / 12), 5)
    assert score.pass_at_k == {"1": score.value, "2": 0.5, "4": pytest.approx(2 / 3)}


def test_truncated_and_unanswered_completions_are_counted() -> None:
    cut, silent = Outcome(0.0, 100, False, True), Outcome(0.0, 4, True, False)
    both, fine = Outcome(0.0, 100, False, False), Outcome(1.0, 20, True, True)
    score = score_completions({"a": [cut, fine, cut], "b": [silent, both, cut]}, seed=0)
    assert (score.n_truncated, score.n_unanswered, score.mean_tokens) == (4, 2, 424 / 6)


def test_powers_of_two_stop_at_the_number_of_samples() -> None:
    assert list(score_completions(outcomes_of({"a": [1] * 6}), seed=0).pass_at_k) == ["1", "2", "4"]


@pytest.mark.parametrize("rewards", [{}, {"a": []}, {"a": [1, 0], "b": [1]}])
def test_missing_samples_are_refused(rewards: dict[str, list[int]]) -> None:
    with pytest.raises(ValueError, match="equally many samples"):
        score_completions(outcomes_of(rewards), seed=0)


def test_rewards_between_0_and_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got reward 0\.5 in problem 'a'"):
        score_completions({"a": [Outcome(0.5, 1, True, True)]}, seed=0)


problem_rewards = st.integers(1, 4).flatmap(
    lambda k: st.dictionaries(
        st.text(min_size=1, max_size=3), st.lists(st.integers(0, 1), min_size=k, max_size=k), min_size=2, max_size=12
    )
)


@settings(max_examples=20, deadline=None)
@given(rewards=problem_rewards, seed=st.integers(0, 3), data=st.data())
def test_the_order_of_problems_changes_no_score(rewards: dict[str, list[int]], seed: int, data: st.DataObject) -> None:
    shuffled = dict(data.draw(st.permutations(list(rewards.items()))))
    other = {key: problem[::-1] for key, problem in rewards.items()}
    score = score_completions(outcomes_of(rewards), seed)
    assert score_completions(outcomes_of(shuffled), seed) == score
    assert score.interval[0] <= score.value <= score.interval[1]
    there = compare_scores(outcomes_of(rewards), outcomes_of(dict(sorted(other.items()))), seed)
    assert compare_scores(outcomes_of(shuffled), outcomes_of(other), seed) == there


# --- two models -----------------------------------------------------------------------------------------------


def test_one_completion_is_compared_as_before() -> None:
    base, trained = pair(5, 2, both=3, neither=1)
    paired = paired_difference(base, trained)
    result = compare_scores(*(outcomes_of({k: [int(v)] for k, v in m.items()}) for m in (base, trained)), seed=0)
    assert asdict(result) == asdict(paired) | {"test": "McNemar, exact", "interval_kind": "Bonett-Price"}


def test_several_completions_are_compared_by_problem() -> None:
    """Differences 1/2, 1, -1/2 and 0: mean 1/4, two wins, one loss.

    Sign patterns of (1/2, 1, 1/2) by sum: 2, 1, 1, 0 and their negatives; six of eight reach 1 in size.
    """
    base = outcomes_of({"a": [0, 0], "b": [0, 0], "c": [1, 0], "d": [1, 1]})
    trained = outcomes_of({"a": [0, 1], "b": [1, 1], "c": [0, 0], "d": [1, 1]})
    result = compare_scores(base, trained, seed=0)
    assert (result.difference, result.wins, result.losses, result.test) == (0.25, 2, 1, "sign flips")
    assert result.p_value == 6 / 8
    assert result.interval[0] < 0.25 < result.interval[1]


def test_two_models_alike_leave_an_interval() -> None:
    """No difference at all on 83 problems: about 3/83 to either side, as Bonett and Price have it."""
    same = outcomes_of({str(i): [0, 0] for i in range(83)})
    result = compare_scores(same, same, seed=0)
    assert (result.difference, result.p_value) == (0.0, 1.0)
    assert result.interval[1] == pytest.approx(paired_difference(*pair(0, 0, neither=83)).interval[1], abs=0.01)


def test_other_problems_or_sample_counts_are_not_compared() -> None:
    two = outcomes_of({"a": [0, 1]})
    with pytest.raises(ValueError, match="not the same ones"):
        compare_scores(two, outcomes_of({"b": [0, 1]}), seed=0)
    with pytest.raises(ValueError, match="got 2 and 1 completions per problem"):
        compare_scores(two, outcomes_of({"a": [0]}), seed=0)


# --- means over benchmarks ------------------------------------------------------------------------------------


def test_every_benchmark_counts_the_same() -> None:
    """1/2 of two problems and 1/4 of four: 3/8; over all problems it would be 1/3."""
    by_benchmark = {"x": {"a": 1.0, "b": 0.0}, "y": {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}}
    result = mean_score(by_benchmark, seed=0)
    assert (result.value, result.benchmarks, result.interval_kind) == (0.375, ("x", "y"), "bootstrap over problems")
    assert 0 <= result.interval[0] < 0.375 < result.interval[1] <= 1
    assert mean_score(dict(reversed(by_benchmark.items())), seed=0).interval == result.interval


def test_benchmarks_are_resampled_apart() -> None:
    """Spread of the mean of two equal benchmarks: that of one over the root of two."""
    one = {str(i): float(i < 50) for i in range(100)}
    single, double = mean_score({"x": one}, seed=0).interval, mean_score({"x": one, "y": one}, seed=0).interval
    assert (double[1] - double[0]) / (single[1] - single[0]) == pytest.approx(math.sqrt(0.5), rel=0.06)


def test_mean_difference_by_hand() -> None:
    """x: 1 and 0, mean 1/2; y: 0, 0 and -1/2, mean -1/6; together 1/6.

    Weighted differences 1/4 and -1/12: every sign pattern sums to 1/6 or 1/3 in size, so p = 1.
    """
    base = {"x": {"a": 0.0, "b": 1.0}, "y": {"a": 0.0, "b": 0.5, "c": 1.0}}
    trained = {"x": {"a": 1.0, "b": 1.0}, "y": {"a": 0.0, "b": 0.5, "c": 0.5}}
    result = mean_difference(base, trained, seed=0)
    assert (result.difference, result.wins, result.losses) == (pytest.approx(1 / 6), 1, 1)
    assert (result.p_value, result.test) == (1.0, "sign flips")
    assert result.interval[0] < 1 / 6 < result.interval[1]
    back = mean_difference(trained, base, seed=0)
    assert back.interval == pytest.approx((-result.interval[1], -result.interval[0]), abs=0.02)


def test_the_test_of_a_mean_weighs_problems_as_the_mean_does() -> None:
    """x: 1/2 on its one problem, weight 1/2; y: -1/4 on each of four, weight 1/8.  In 32nds 8, -1, -1, -1, -1.

    The sum is 4, and no pattern of signs gets below 8 - 4, so p = 1.  Without weights: 2, -1, -1, -1, -1 quarters,
    sum -2, and the four patterns of 16 with sum 0 do not reach it.
    """
    base = {"x": {"a": 0.0}, "y": dict.fromkeys("abcd", 0.5)}
    trained = {"x": {"a": 0.5}, "y": dict.fromkeys("abcd", 0.25)}
    result = mean_difference(base, trained, seed=0)
    assert (result.difference, result.p_value) == (0.125, 1.0)
    assert sign_flip_p([0.5, -0.25, -0.25, -0.25, -0.25], np.random.default_rng(0)) == 0.75


def test_means_refuse_what_cannot_be_averaged() -> None:
    with pytest.raises(ValueError, match="got 0 benchmarks"):
        mean_score({}, seed=0)
    with pytest.raises(ValueError, match=r"\['x'\] without problems"):
        mean_score({"x": {}}, seed=0)
    with pytest.raises(ValueError, match=r"got 1 and 1 benchmarks.*\['x', 'y'\]"):
        mean_difference({"x": {"a": 1.0}}, {"y": {"a": 1.0}}, seed=0)
    with pytest.raises(ValueError, match=r"such as \['b'\]"):
        mean_difference({"x": {"a": 1.0}}, {"x": {"a": 1.0, "b": 0.0}}, seed=0)


# --- coverage: how often an interval holds the truth ------------------------------------------------------------


HARD = [(500, 0.06, 1.94), (500, 0.06, 1.94), (83, 0.05, 2.0), (30, 0.02, 2.0), (400, 0.06, 1.94)]


def hard_benchmarks(rng: np.random.Generator) -> dict[str, list[float]]:
    """Five benchmarks with success rates near 0.03, the smallest of them often without anything right."""
    return {str(i): (rng.binomial(8, rng.beta(a, b, size=n)) / 8).tolist() for i, (n, a, b) in enumerate(HARD)}


def test_intervals_of_means_hold_the_truth_and_adding_everywhere_would_not() -> None:
    """200 trials, three standard errors below 95 %: 0.904.  The planted fault: two more in every benchmark."""
    rng, hits, planted = np.random.default_rng(17), 0, 0
    truth = np.mean([a / (a + b) for _, a, b in HARD])
    for trial in range(200):
        values = hard_benchmarks(rng)
        low, high = _interval(values, lambda _: SCORE_ENDS, trial, "mean score", replicates=500)
        hits += low <= truth <= high
        draws = [resampled_means(v, SCORE_ENDS, rng, 500) for v in values.values()]
        low, high = percentile_interval(np.mean(draws, axis=0))
        planted += low <= truth <= high
    assert hits / 200 > 0.904
    assert planted / 200 < 0.904
