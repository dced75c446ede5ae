"""Methods compared over seeds: worked examples and enumerations."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.statistics import (
    detectable_difference,
    holm,
    mcnemar,
    mean_over_seeds,
    seed_differences,
    seed_p_value,
)
from lean_align.statistics.crossed import crossed_draws, problem_share, seed_factor, t_quantile
from tests.interval_coverage import Setting, coverage, draw_differences, pigeonhole

RNG = rng_for(0, "tests")


def by_seed(rows: list[list[float]] | NDArray[np.float64], seeds: list[int] | None = None) -> dict:
    return {s: {f"p{i}": float(x) for i, x in enumerate(row)} for s, row in zip(seeds or range(len(rows)), rows)}


# Student's t


@pytest.mark.parametrize(
    ("level", "df", "value"),
    [
        (0.975, 1, 12.7062),
        (0.975, 2, 4.3027),
        (0.975, 7, 2.3646),
        (0.95, 7, 1.8946),
        (0.975, 30, 2.0423),
        (0.9, 4, 1.5332),
    ],
)
def test_t_quantiles_of_the_tables(level: float, df: int, value: float) -> None:
    """Any printed table of Student's t."""
    assert t_quantile(level, df) == pytest.approx(value, abs=5e-5)
    assert t_quantile(1 - level, df) == pytest.approx(-value, abs=5e-5)


def test_t_quantile_by_hand() -> None:
    """df = 1: tan(pi (q - 1/2)).  df = 2: P(|T| < t) = t / sqrt(2 + t^2), which is 1/2 at t^2 = 2/3."""
    assert t_quantile(0.75, 1) == pytest.approx(1.0)
    assert t_quantile(0.75, 2) == pytest.approx(math.sqrt(2 / 3))
    with pytest.raises(ValueError, match="df = 0"):
        t_quantile(0.5, 0)


# Holm


def test_holm_by_hand() -> None:
    """0.01, 0.02, 0.03, 0.5 of four: 4 x 0.01 = 0.04; 3 x 0.02 = 0.06; 2 x 0.03 = 0.06; 0.5.

    The third keeps the 0.06 of the second where 2 x 0.025 = 0.05 would fall below it.
    """
    assert holm({"b": 0.02, "a": 0.01, "d": 0.5, "c": 0.03}) == pytest.approx(
        {"b": 0.06, "a": 0.04, "d": 0.5, "c": 0.06}
    )
    assert holm({"a": 0.01, "b": 0.02, "c": 0.025, "d": 0.9})["c"] == pytest.approx(0.06)
    assert holm({"a": 0.6, "b": 0.7}) == {"a": 1.0, "b": 1.0}
    assert holm({}) == {}


@pytest.mark.parametrize("p", [-0.1, 1.1, math.nan])
def test_holm_refuses_what_is_no_p_value(p: float) -> None:
    with pytest.raises(DataError, match="for 'odd'"):
        holm({"fine": 0.5, "odd": p})


# Two methods


def test_comparison_by_hand() -> None:
    """Three seeds, two problems.  Differences by row: (1, 0), (1, -1), (1, 1); row means 0.5, 0, 1.

    Mean 3/6; 4 wins, 1 loss; 2 seeds won, 1 tied.  Flips of 0.5, 0, 1: the sum 1.5 is reached by 2 of the 4
    patterns of two seeds: p = 1/2.  Standard deviation of 0.5, 0, 1: 0.5.
    """
    reference = by_seed([[0, 1], [0, 1], [0, 0]], [3, 5, 9])
    other = by_seed([[1, 1], [1, 0], [1, 1]], [3, 5, 9])
    found = seed_differences(reference, other, seed=0)
    assert (found.difference, found.p_value, found.seed_sd) == (0.5, 0.5, 0.5)
    assert (found.wins, found.losses, found.seed_wins, found.seed_losses, found.seed_ties) == (4, 1, 2, 0, 1)
    assert (found.seeds, found.n_seeds, found.n_problems, found.smallest_p) == ((3, 5, 9), 3, 2, 2 / 8)
    assert found.test == "sign flips over seeds, exact"
    back = seed_differences(other, reference, seed=0)
    assert (back.difference, back.p_value, back.wins, back.losses) == (-0.5, 0.5, 1, 4)


def test_eight_seeds_of_one_sign_give_the_smallest_p() -> None:
    rewards = np.zeros((8, 20))
    better = rewards.copy()
    better[np.arange(8), np.arange(8)] = 1
    found = seed_differences(by_seed(rewards), by_seed(better), seed=0)
    assert found.p_value == found.smallest_p == 2 / 256


def test_zeros_leave_the_p_value_as_all_patterns_give_it() -> None:
    """Against all 2^S patterns, those of the zeros included."""
    for differences in ([0.0, 0.1, 0.3, 0.0, -0.2], [0.0, 0.0], [0.1, -0.1, 0.0], [0.2, 0.2, 0.2, 0.0]):
        patterns = [
            abs(math.fsum(np.multiply(signs, differences))) for signs in product((1, -1), repeat=len(differences))
        ]
        counted = np.mean([total >= abs(math.fsum(differences)) - 1e-12 for total in patterns])
        assert seed_p_value(np.array(differences)[:, None], RNG) == counted


def test_the_exact_test_keeps_its_level_whatever_is_tied() -> None:
    """Over every sign pattern of sizes with zeros and ties, P(p <= a) <= a for each p it can give."""
    sizes = np.array([0.0, 0.1, 0.1, 0.2, 0.3, 0.0])
    p_values = [seed_p_value((sizes * signs)[:, None], RNG) for signs in product((1, -1), repeat=6)]
    assert all(np.mean(np.array(p_values) <= p + 1e-12) <= p + 1e-12 for p in set(p_values))


def test_alike_methods() -> None:
    """All differences 0: p is 1, and the interval is narrow but no point."""
    rewards = by_seed(np.random.default_rng(0).integers(2, size=(4, 30)).astype(float))
    found = seed_differences(rewards, rewards, seed=0)
    assert (found.difference, found.p_value, found.seed_ties, found.wins) == (0.0, 1.0, 4, 0)
    assert found.interval[0] < 0 < found.interval[1]


def test_thirds_that_cancel_are_a_tie() -> None:
    """avg@3: 0.1 + 0.2 + 0.3 and its like in another order differ in the last bit only."""
    found = seed_differences(
        by_seed([[1 / 3, 2 / 3, 0.1], [0.0, 0.0, 0.0]]), by_seed([[2 / 3, 0.1, 1 / 3], [0, 0, 0]]), 0
    )
    assert (found.seed_wins, found.seed_losses, found.seed_ties, found.p_value) == (0, 0, 2, 1.0)


def test_one_seed_is_mcnemar_over_problems() -> None:
    """8 wins, 2 losses: 112/1024, and nothing is said of other seeds."""
    reference, other = [0.0] * 8 + [1.0] * 2 + [1.0] * 10, [1.0] * 8 + [0.0] * 2 + [1.0] * 10
    found = seed_differences(by_seed([reference]), by_seed([other]), seed=0)
    assert (found.p_value, found.test, found.difference) == (mcnemar(8, 2), "McNemar, exact", 6 / 20)
    assert found.interval_seeds is found.smallest_p is found.seed_sd is None
    assert found.interval == found.interval_problems
    assert found.interval_kind == "bootstrap over problems"
    assert seed_differences(by_seed([[0.5, 0.25]]), by_seed([[0.75, 1.0]]), seed=0).test == "sign flips"


def test_seeds_of_one_method_only_are_named() -> None:
    found = seed_differences(by_seed([[0, 1]] * 3, [1, 2, 3]), by_seed([[1, 1]] * 3, [2, 3, 4]), seed=0)
    assert (found.seeds, found.seeds_left_out) == ((2, 3), (1, 4))


@pytest.mark.parametrize(
    ("reference", "other", "message"),
    [
        (by_seed([[1.0]], [1]), by_seed([[1.0]], [2]), r"got seeds \[1\] and \[2\]; expected at least one"),
        ({}, {}, "expected at least one"),
        ({0: {"a": 1.0}}, {0: {"b": 1.0}}, r"such as \['a', 'b'\]"),
        ({0: {"a": 1.0}, 1: {"a": 1.0, "b": 0.0}}, {0: {"a": 1.0}, 1: {"a": 1.0}}, r"for seed 1 .* such as \['b'\]"),
        ({0: {"a": 2.0}}, {0: {"a": 1.0}}, "expected mean rewards in"),
        ({0: {"a": math.nan}}, {0: {"a": 1.0}}, "expected mean rewards in"),
        ({0: {}}, {0: {}}, r"shape \(1, 0\)"),
    ],
)
def test_methods_that_cannot_be_compared(reference: dict, other: dict, message: str) -> None:
    with pytest.raises(DataError, match=message):
        seed_differences(reference, other, seed=0)


def test_the_order_of_seeds_and_problems_changes_nothing() -> None:
    rewards = np.random.default_rng(1).integers(2, size=(2, 5, 12)).astype(float)
    a, b = by_seed(rewards[0]), by_seed(rewards[1])
    turned = {s: dict(reversed(problems.items())) for s, problems in reversed(b.items())}
    assert seed_differences(a, b, seed=4) == seed_differences(a, turned, seed=4)


def test_at_least_as_good_within() -> None:
    """The one-sided bounds lie inside the two-sided interval, and mirror one another."""
    d = draw_differences(Setting(8, 0.2, 0.0, n_problems=60), np.random.default_rng(3))
    reference, other = by_seed((d < 0).astype(float)), by_seed((d > 0).astype(float))
    found, back = (seed_differences(x, y, seed=0) for x, y in ((reference, other), (other, reference)))
    assert found.interval[0] < found.other_at_least < found.difference < -found.reference_at_least < found.interval[1]
    assert back.reference_at_least == pytest.approx(found.other_at_least, abs=0.004)


def test_mean_over_seeds() -> None:
    """Rows of 3/4 and 1/4: mean 1/2, spread sqrt(1/8); one training has no interval over seeds."""
    found = mean_over_seeds([[1, 1, 1, 0], [1, 0, 0, 0]], seed=0)
    assert (found.value, found.by_seed, found.n_problems) == (0.5, (0.75, 0.25), 4)
    assert found.seed_sd == pytest.approx(math.sqrt(1 / 8))
    assert found.interval == (0.0, 1.0)  # two seeds that far apart say nothing
    alone = mean_over_seeds(np.ones((1, 50)), seed=0)
    assert alone.interval_seeds is None
    assert 0.9 < alone.interval[0] < alone.interval[1] == 1.0
    for wrong in ([], [[]], [[2.0]], [1.0, 0.0]):
        with pytest.raises(DataError):
            mean_over_seeds(wrong, seed=0)


# The bootstrap


def test_seed_factor_by_hand() -> None:
    """2 seeds: sqrt(2) x 12.706 / 1.960 = 9.168; 8: sqrt(8/7) x 2.3646 / 1.95996 = 1.2898."""
    assert seed_factor(2, 0.975) == pytest.approx(9.168, abs=1e-3)
    assert [seed_factor(8, level) for level in (0.975, 0.025)] == pytest.approx([1.2898, 1.2898], abs=1e-4)


def test_problem_share_by_hand() -> None:
    """Columns (1, 1), (0, 1), (0, 0): means 1, 1/2, 0, rows 1/3, 2/3, all 1/2.

    Between: 2 (1/4 + 0 + 1/4) / 2 = 1/2.  Rest: (1/6, -1/3, 1/6) and its opposite: 2 x 1/6 over 2 = 1/6.  1 - 1/3.
    """
    assert problem_share(np.array([[1.0, 0, 0], [1, 1, 0]])) == pytest.approx(math.sqrt(2 / 3))
    assert problem_share(np.array([[1.0, 0], [0, 1]])) == 1.0  # columns alike: nothing to take away from
    assert problem_share(np.array([[1.0, 0, 0.5]])) == 1.0


def test_the_sums_vary_as_the_plain_bootstrap_less_its_product() -> None:
    """Both parts against the pigeonhole's variance on an array without rest, where the product is 0."""
    rng = np.random.default_rng(0)
    values = rng.normal(size=(6, 1)) + rng.normal(size=(1, 50))
    draws = crossed_draws(values, (-1.0, 1.0), 0, "test")
    assert draws.seeds is not None
    assert problem_share(values) == pytest.approx(1.0)
    plain = pigeonhole(values, rng, 20_000).var()
    assert draws.seeds.var() + draws.problems.var() == pytest.approx(plain, rel=0.05)


def test_seeds_and_problems_are_drawn_apart() -> None:
    """As many of each: one stream for both would draw the same."""
    draws = crossed_draws(np.random.default_rng(0).normal(size=(8, 8)), (-1.0, 1.0), 0, "test")
    assert draws.seeds is not None
    assert abs(np.corrcoef(draws.seeds, draws.problems)[0, 1]) < 0.04


@pytest.mark.parametrize("n_seeds", [2, 3, 8])
def test_the_crossed_interval_holds_the_truth(n_seeds: int) -> None:
    """Planted: without c the interval is too narrow when trainings differ much (3 seeds or fewer: by far)."""
    found = coverage(Setting(n_seeds, 0.4, 0.0), 150, 500, ("sums", "sums, c, h"))
    assert 0.89 < found["sums, c, h"][0] <= 0.99
    assert found["sums"][0] < (0.93 if n_seeds == 8 else 0.88)


# Power


def test_the_detectable_difference_is_detected() -> None:
    """1,000 fresh samples of 8 seeds at that difference: p <= 5 % in about 80 of 100."""
    shift = detectable_difference(8, 2.0, seed=0)
    assert shift is not None
    rng = np.random.default_rng(9)
    found = [seed_p_value(rng.normal(shift, 2.0, size=(8, 1)), rng) <= 0.05 for _ in range(1_000)]
    assert np.mean(found) == pytest.approx(0.8, abs=0.04)


def test_more_seeds_see_smaller_differences() -> None:
    found = [detectable_difference(n, 1.0, seed=0) for n in (6, 8, 10, 11, 16)]
    assert found == sorted(found, reverse=True)
    assert detectable_difference(5, 1.0, seed=0) is None
    assert detectable_difference(8, 1.0, seed=0, level=0.007) is None
    assert detectable_difference(8, 0.0, seed=0) == 0.0
    with pytest.raises(ValueError, match="got 1 seeds"):
        detectable_difference(1, 1.0, seed=0)


def test_seeds_that_agree_by_chance_do_not_make_the_interval_narrower_than_the_problems_alone() -> None:
    """Two seeds with the same difference, -1/10: a spread of 0, and of 20 problems the other may still be better."""
    reference = {seed: {str(i): 1.0 if i < 10 else 0.0 for i in range(20)} for seed in (0, 1)}
    other = {0: {**reference[0], "0": 0.0, "1": 0.0}, 1: {**reference[1], "2": 0.0, "3": 0.0}}
    found = seed_differences(reference, other, seed=0)
    assert found.difference == pytest.approx(-0.1)
    assert found.interval[0] <= found.interval_problems[0] < found.interval_problems[1] <= found.interval[1]
    assert found.reference_at_least < 0.1
