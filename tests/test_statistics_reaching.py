"""What a goal costs: interpolation and intervals against brute force, and costs that are censored."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.statistics import cost_ratio, cost_to_reach, first_reached, reached_costs, seed_draws
from lean_align.statistics.crossed import seed_factor

INF = math.inf


@pytest.mark.parametrize(
    ("accuracy", "goal", "expected"),
    [
        ([0.2, 0.4, 0.6], 0.5, 45.0),  # half of the way from 30 to 60
        ([0.2, 0.4, 0.6], 0.25, 15.0),  # a quarter of the way from 10 to 30
        ([0.2, 0.4, 0.6], 0.4, 30.0),
        ([0.2, 0.4, 0.6], 0.6, 60.0),
        ([0.2, 0.4, 0.6], 0.2, 10.0),
        ([0.2, 0.4, 0.6], 0.1, 10.0),  # the start is good enough
        ([0.2, 0.4, 0.6], 0.61, INF),
        ([0.2, 0.5, 0.3], 0.35, 20.0),  # passed at half of the first stretch, whatever follows
        ([0.5, 0.3, 0.6], 0.55, 55.0),
        ([0.2, 0.2, 0.2], 0.2, 10.0),
    ],
)
def test_a_goal_by_hand(accuracy: list[float], goal: float, expected: float) -> None:
    assert first_reached([10.0, 30.0, 60.0], accuracy, goal) == pytest.approx(expected)


def scanned(cost: NDArray[np.float64], accuracy: NDArray[np.float64], goal: float) -> float:
    """The first of a million places on the curve that has the goal."""
    places = np.linspace(cost[0], cost[-1], 1_000_001)
    there = np.interp(places, cost, accuracy) >= goal - 1e-9
    return float(places[there.argmax()]) if there.any() else INF


@pytest.mark.parametrize("case", range(8))
def test_a_goal_is_where_a_scan_of_the_curve_finds_it(case: int) -> None:
    rng = np.random.default_rng(case)
    cost, accuracy = np.cumsum(rng.uniform(1, 9, 5)), rng.uniform(0, 1, 5)
    goal = rng.uniform(0, 1)
    assert first_reached(cost, accuracy, goal) == pytest.approx(scanned(cost, accuracy, goal), rel=1e-4)


def a_method(rng: np.random.Generator, n_seeds: int, low: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Costs and accuracies of some seeds at five steps."""
    cost = 100 * np.arange(5) + rng.uniform(50, 150, (n_seeds, 1))
    return cost, low + 0.1 * np.arange(5) + rng.normal(0, 0.04, (n_seeds, 5))


def quantile(values: list[float], level: float) -> float:
    """The smallest value that at least this share of the values does not pass."""
    found = sorted(values)
    return found[max(0, math.ceil(level * len(found) - 1e-9) - 1)]


def all_draws(n_seeds: int) -> NDArray[np.float64]:
    """Every way to draw n seeds with replacement, as shares."""
    ways = itertools.product(range(n_seeds), repeat=n_seeds)
    return np.array([np.bincount(way, minlength=n_seeds) / n_seeds for way in ways])


def drawn_one_by_one(
    cost: NDArray[np.float64], accuracy: NDArray[np.float64], goals: NDArray[np.float64]
) -> list[float]:
    return [first_reached(w @ cost, w @ accuracy, float(w @ goals)) for w in all_draws(len(goals))]


def stretched(end: float, estimate: float, n_seeds: int) -> float:
    if not math.isfinite(end) or end == 0:
        return end
    return math.exp(math.log(estimate) + seed_factor(n_seeds, 0.975) * (math.log(end) - math.log(estimate)))


@pytest.mark.parametrize("case", range(4))
def test_intervals_are_those_of_all_draws(case: int) -> None:
    """Of 4 seeds there are 256; 4,000 drawn ones give a quantile to within 0.7 % of the draws."""
    rng, n_seeds = np.random.default_rng(100 + case), 4
    own, other = a_method(rng, n_seeds, 0.3), a_method(rng, n_seeds, 0.2)
    goals = 0.5 + rng.normal(0, 0.03, n_seeds)
    exact = [drawn_one_by_one(*method, goals) for method in (own, other)]
    draws = seed_draws(n_seeds, seed=case)
    found = [reached_costs(*method, goals, draws) for method in (own, other)]
    estimates = [first_reached(c.mean(axis=0), a.mean(axis=0), goals.mean()) for c, a in (own, other)]
    assert [costs[0] for costs in found] == pytest.approx(estimates)
    by_brute_force = [
        (cost_to_reach(found[0], n_seeds), exact[0], exact[0], estimates[0]),
        (cost_to_reach(found[1], n_seeds), exact[1], exact[1], estimates[1]),
        (cost_ratio(found[0], found[1], n_seeds), *ratios(exact[0], exact[1]), estimates[0] / estimates[1]),
    ]
    for reached, low, high, estimate in by_brute_force:
        assert reached.value == pytest.approx(estimate)
        assert reached.interval is not None
        for end, values, level in ((reached.interval[0], low, 0.025), (reached.interval[1], high, 0.975)):
            near = [stretched(quantile(values, level + error), estimate, n_seeds) for error in (-0.007, 0.007)]
            assert min(near) * (1 - 1e-9) <= end <= max(near) * (1 + 1e-9)
        known = np.mean([0 < a < INF and b < INF for a, b in zip(low, high, strict=True)])
        assert reached.share_reached == pytest.approx(known, abs=0.03)


def ratios(own: list[float], other: list[float]) -> tuple[list[float], list[float]]:
    """Of each draw: for the lower end, and for the upper."""
    found = []
    for a, b in zip(own, other, strict=True):
        if math.isinf(a) and math.isinf(b):
            found.append((0.0, INF))
        else:
            found.append((a / b if math.isfinite(a) else INF,) * 2)
    return [low for low, _ in found], [high for _, high in found]


def test_the_draws_are_the_same_for_every_method_and_the_first_is_the_seeds_themselves() -> None:
    draws = seed_draws(5, seed=3)
    assert np.array_equal(draws, seed_draws(5, seed=3))
    assert not np.array_equal(draws, seed_draws(5, seed=4))
    assert np.array_equal(draws[0], np.full(5, 0.2))
    np.testing.assert_allclose(draws.sum(axis=1), 1)
    cost, accuracy = a_method(np.random.default_rng(0), 5, 0.3)
    found = reached_costs(cost, accuracy, np.full(5, 0.5), draws)
    same = cost_ratio(found, found, 5)
    assert (same.value, same.interval) == (1.0, (1.0, 1.0))


def test_a_goal_that_is_never_reached_is_censored_and_not_left_out() -> None:
    """One seed of three reaches it: in the draws of mostly that one the mean does; the upper end is infinity."""
    cost = np.tile([10.0, 100.0], (3, 1))
    accuracy = np.array([[0.0, 0.9], [0.0, 0.1], [0.0, 0.1]])
    goals = np.full(3, 0.6)
    found = cost_to_reach(reached_costs(cost, accuracy, goals, seed_draws(3, 0)), 3)
    assert math.isinf(found.value)
    assert found.interval is not None
    assert math.isfinite(found.interval[0])
    assert math.isinf(found.interval[1])
    assert found.share_reached == pytest.approx(7 / 27, abs=0.03)  # that one twice or three times
    never = cost_to_reach(reached_costs(cost, accuracy, goals + 1, seed_draws(3, 0)), 3)
    assert (never.interval, never.share_reached) == ((INF, INF), 0.0)


def test_ratios_of_censored_costs_say_no_more_than_is_known() -> None:
    own, other = np.array([50.0, INF, 50.0, INF]), np.array([100.0, 100.0, INF, INF])
    found = cost_ratio(own, other, 2)
    assert found.value == 0.5
    assert found.interval is not None
    assert found.interval[0] == 0.0
    assert math.isinf(found.interval[1])
    assert found.share_reached == 0.0  # in none of the three draws both
    assert math.isnan(cost_ratio(own[3:], other[3:], 1).value)
    assert math.isinf(cost_ratio(own[1:2], other[1:2], 1).value)
    assert cost_ratio(own[2:3], other[2:3], 1).value == 0.0
    assert cost_ratio(np.zeros(1), np.zeros(1), 1).value == 1.0


def test_one_seed_has_no_interval() -> None:
    found = cost_to_reach(reached_costs(np.array([[0.0, 8.0]]), np.array([[0.0, 1.0]]), np.array([0.5]), np.eye(1)), 1)
    assert (found.value, found.interval, found.share_reached) == (4.0, None, 1.0)


def test_curves_of_other_shapes_are_refused() -> None:
    with pytest.raises(DataError, match=r"expected \(S, K\)"):
        reached_costs(np.zeros((2, 3)), np.zeros((2, 4)), np.zeros(2), seed_draws(2, 0))
