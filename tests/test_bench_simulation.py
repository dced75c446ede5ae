"""Comparisons of alike methods: how often the tests reject, and what is taken from measured outcomes."""

from __future__ import annotations

import math
from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from bench.simulation import AnswerModel, draw_rewards, fit_answers, resampled_null, simulate_null
from lean_align.errors import DataError
from lean_align.statistics import problem_p_value


def test_the_seed_test_keeps_its_level_and_the_problem_test_does_not() -> None:
    """200 pairs of alike methods, 8 seeds, 400 problems; 12/256 = 4.7 % can be had."""
    right = simulate_null(8, 400, 0.2, 200, seed=0)
    wrong = simulate_null(8, 400, 0.2, 200, seed=0, test=partial(problem_p_value, flips=10_000))
    assert 0.02 <= right.rate <= 0.08
    assert wrong.rate > 0.15
    assert wrong.interval[0] > 0.08
    assert right.seed_spread == wrong.seed_spread == pytest.approx(0.033, abs=0.003)


def test_without_seed_effects_the_problem_test_is_right() -> None:
    """So that it is the seeds that mislead it: the same trainings but for coin flips."""
    found = simulate_null(8, 400, 0.0, 100, seed=0, noise_sd=0.0, test=partial(problem_p_value, flips=10_000))
    assert found.rate <= 0.1


def test_the_null_of_measured_outcomes() -> None:
    rng = np.random.default_rng(2)
    outcomes = draw_rewards(AnswerModel(rng.normal(1, 2, size=400), 0.3), 8, rng)
    found = resampled_null(outcomes, 200, seed=0)
    assert 0.02 <= found.rate <= 0.08
    assert found.seed_spread == pytest.approx(outcomes.mean(axis=1).std(ddof=1), rel=0.25)
    wrong = resampled_null(outcomes, 50, seed=0, test=partial(problem_p_value, flips=10_000))
    assert wrong.rate > 0.15


def test_the_fit_finds_the_spread_between_trainings() -> None:
    rng = np.random.default_rng(5)
    logits = rng.normal(1, 2, size=2_000)
    assert fit_answers(draw_rewards(AnswerModel(logits, 0.3), 60, rng)).seed_sd == pytest.approx(0.3, rel=0.25)
    assert fit_answers(np.ones((3, 5))).seed_sd == 0.0
    one = fit_answers(np.array([[1.0, 0, 0], [1, 1, 0]]))
    assert one.logits == pytest.approx([math.log(5), 0.0, -math.log(5)])  # 2.5/3, 1.5/3, 0.5/3


@pytest.mark.parametrize("outcomes", [np.ones((1, 4)), np.full((2, 2), 0.5), np.ones(4), np.ones((2, 0))])
def test_outcomes_that_say_nothing_of_seeds(outcomes: NDArray[np.float64]) -> None:
    with pytest.raises(DataError, match="expected"):
        resampled_null(outcomes, 10, seed=0)


def test_simulations_refuse_impossible_numbers() -> None:
    for arguments in ((0, 4, 0.1, 5), (2, 4, -0.1, 5), (2, 4, 0.1, 0)):
        with pytest.raises(DataError, match="expected counts"):
            simulate_null(*arguments, seed=0)
    with pytest.raises(DataError, match="repeats = 0"):
        resampled_null(np.eye(2), 0, seed=0)
