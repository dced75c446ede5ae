"""Intervals and tests against textbook cases and against numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import combinations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, permutation_test

from lean_align.statistics import (
    Z_95,
    accuracy,
    average_at_k,
    mcnemar,
    paired_difference,
    pass_at_k,
    sign_flip_p,
    wilson,
)
from lean_align.statistics.bootstrap import SCORE_ENDS, difference_ends, percentile_interval, resampled_means


def pair(wins: int, losses: int, both: int = 0, neither: int = 0) -> tuple[dict[str, float], dict[str, float]]:
    """Rewards of base and trained with the given number of problems of each kind."""
    kinds = [(0.0, 1.0)] * wins + [(1.0, 0.0)] * losses + [(1.0, 1.0)] * both + [(0.0, 0.0)] * neither
    return {f"p{i}": b for i, (b, _) in enumerate(kinds)}, {f"p{i}": t for i, (_, t) in enumerate(kinds)}


@pytest.mark.parametrize(
    ("correct", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_of_newcombes_examples(correct: int, n: int, low: float, high: float) -> None:
    """Newcombe 1998 (doi:10.1002/(SICI)1097-0258(19980430)17:8<857::AID-SIM777>3.0.CO;2-E), table I, method 3."""
    assert wilson(correct, n).interval == pytest.approx((low, high), abs=5e-5)


def test_wilson_by_hand() -> None:
    """2 of 4 with z = 2: z^2 = 4, so 1 + z^2/n = 2.

    centre = (1/2 + 4/8) / 2 = 1/2; half = 2/2 * sqrt(1/16 + 4/64) = sqrt(1/8) = 0.35355.
    """
    result = wilson(2, 4, z=2)
    assert (result.correct, result.n, result.accuracy) == (2, 4, 0.5)
    assert result.interval == pytest.approx((0.5 - math.sqrt(1 / 8), 0.5 + math.sqrt(1 / 8)))


@pytest.mark.parametrize("n", [1, 2, 7, 500])
def test_wilson_holds_the_share_and_stays_in_0_1(n: int) -> None:
    for correct in range(n + 1):
        (low, high), share = wilson(correct, n).interval, correct / n
        assert 0 <= low < high <= 1
        assert low - 1e-15 <= share <= high + 1e-15


def test_wilson_solves_its_own_equation() -> None:
    """At both ends |p - share| = z sqrt(p (1 - p) / n): that is the interval's definition."""
    for end in wilson(37, 100).interval:
        assert abs(end - 0.37) == pytest.approx(Z_95 * math.sqrt(end * (1 - end) / 100))


@pytest.mark.parametrize(("correct", "n"), [(-1, 5), (6, 5), (0, 0)])
def test_wilson_refuses_impossible_counts(correct: int, n: int) -> None:
    with pytest.raises(ValueError, match=f"got {correct} correct of {n}"):
        wilson(correct, n)


def test_mcnemar_by_hand() -> None:
    """8 wins and 2 losses: 2 (C(10,0) + C(10,1) + C(10,2)) / 2^10 = 2 (1 + 10 + 45) / 1024 = 112/1024."""
    assert mcnemar(8, 2) == mcnemar(2, 8) == 112 / 1024


def test_mcnemar_at_its_ends() -> None:
    """Five wins and no loss: 2/32.  Equal counts: nothing to see."""
    assert mcnemar(5, 0) == 2 / 32
    assert mcnemar(3, 3) == mcnemar(1, 0) == mcnemar(0, 0) == 1.0


def test_mcnemar_adds_up_both_tails() -> None:
    """The definition: all outcomes that are no likelier than this one, under a fair coin."""
    for wins, losses in product(range(7), repeat=2):
        n = wins + losses
        likely = [math.comb(n, k) / 2**n for k in range(n + 1)]
        assert mcnemar(wins, losses) == pytest.approx(sum(p for p in likely if p <= likely[wins] * (1 + 1e-12)))


def test_mcnemar_of_many_problems_neither_overflows_nor_vanishes() -> None:
    """GSM8K's 1,319 problems; the normal approximation of 759 against 560 is z = 5.48, p = 4.3e-8."""
    assert mcnemar(660, 659) == 1.0
    assert 1e-8 < mcnemar(759, 560) < 1e-7
    assert 0 < mcnemar(1000, 319) < mcnemar(900, 419)


def test_wilson_and_mcnemar_are_scipys_but_for_the_last_bits() -> None:
    for n, correct in ((1, 0), (4, 2), (30, 0), (83, 83), (500, 37), (1319, 700)):
        found = binomtest(correct, n)
        assert wilson(correct, n).interval == pytest.approx(tuple(found.proportion_ci(method="wilson")), abs=1e-14)
        assert mcnemar(correct, n - correct) == pytest.approx(found.pvalue, rel=1e-10)


def test_bonett_price_by_hand() -> None:
    """10 problems, 3 wins, 1 loss, z = 2: up = 4/12, down = 2/12, their difference 1/6.

    half = 2 sqrt((6/12 - 1/36) / 12) = 2 sqrt(17/432) = 0.39675; the difference itself is 2/10.
    """
    result = paired_difference(*pair(wins=3, losses=1, both=4, neither=2), z=2)
    half = 2 * math.sqrt(17 / 432)
    assert result.difference == 0.2
    assert result.interval == pytest.approx((1 / 6 - half, 1 / 6 + half))
    assert result.interval == pytest.approx((-0.23008, 0.56341), abs=5e-6)
    assert (result.wins, result.losses) == (3, 1)
    assert result.p_value == 2 * (1 + 4) / 16


def test_problems_that_both_solve_add_precision_but_no_difference() -> None:
    few, many = paired_difference(*pair(3, 1, both=6)), paired_difference(*pair(3, 1, both=996))
    assert few.p_value == many.p_value
    assert many.interval[1] - many.interval[0] < few.interval[1] - few.interval[0]


def test_swapping_the_models_turns_the_sign() -> None:
    base, trained = pair(5, 2, both=3, neither=1)
    there, back = paired_difference(base, trained), paired_difference(trained, base)
    assert back.difference == -there.difference
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert (back.wins, back.losses, back.p_value) == (there.losses, there.wins, there.p_value)


def test_the_order_of_problems_does_not_matter() -> None:
    base, trained = pair(4, 1, both=3)
    assert paired_difference(base, dict(reversed(trained.items()))) == paired_difference(base, trained)


@pytest.mark.parametrize("kinds", [(1, 0), (0, 1), (0, 0, 1), (50, 0)])
def test_the_interval_stays_in_minus_1_to_1(kinds: tuple[int, ...]) -> None:
    low, high = paired_difference(*pair(*kinds)).interval
    assert -1 <= low < high <= 1


def test_other_problems_are_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"got 2 and 1 problems, not the same ones \(such as \['b'\]\)"):
        paired_difference({"a": 1.0, "b": 0.0}, {"a": 1.0})
    with pytest.raises(ValueError, match="got 0 and 0"):
        paired_difference({}, {})


def test_accuracy_counts_whole_rewards() -> None:
    assert accuracy([1.0, 0.0, 1.0, 1.0]) == wilson(3, 4)


# --- pass@k -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "correct", "k", "expected"),
    [
        (4, 1, 2, 1 / 2),
        (4, 2, 2, 5 / 6),
        (8, 3, 1, 3 / 8),
        (8, 3, 4, 13 / 14),
        (5, 0, 3, 0.0),
        (5, 3, 3, 1.0),
        (1, 1, 1, 1.0),
    ],
)
def test_pass_at_k_by_hand(n: int, correct: int, k: int, expected: float) -> None:
    """4 with 1 right, two drawn: C(3,2)/C(4,2) = 3/6 miss.  8 with 3 right, four drawn: C(5,4)/C(8,4) = 5/70 miss."""
    assert pass_at_k(n, correct, k) == expected


@pytest.mark.parametrize("n", [1, 3, 6])
def test_pass_at_k_counts_the_subsets(n: int) -> None:
    """The definition: the share of all k-subsets that hold a right one."""
    for correct, k in product(range(n + 1), range(1, n + 1)):
        subsets = list(combinations([True] * correct + [False] * (n - correct), k))
        assert pass_at_k(n, correct, k) == pytest.approx(sum(map(any, subsets)) / len(subsets), abs=1e-15)


@given(n=st.integers(1, 400), data=st.data())
def test_pass_at_k_grows_with_k_and_starts_at_the_share(n: int, data: st.DataObject) -> None:
    correct = data.draw(st.integers(0, n))
    assert pass_at_k(n, correct, 1) == correct / n
    values = [pass_at_k(n, correct, k) for k in range(1, min(n, 40) + 1)]
    assert values == sorted(values)
    assert all(0 <= value <= 1 for value in values)


@pytest.mark.parametrize(("n", "correct", "k"), [(4, 1, 5), (4, 1, 0), (4, 5, 1), (4, -1, 1), (0, 0, 1)])
def test_pass_at_k_refuses_what_cannot_be(n: int, correct: int, k: int) -> None:
    with pytest.raises(ValueError, match="got"):
        pass_at_k(n, correct, k)


def test_the_plug_in_formula_would_be_caught() -> None:
    """1 - (1 - c/n)^k is biased: 2 of 4 at k = 2 gives 3/4, not 5/6."""
    assert pass_at_k(4, 2, 2) != pytest.approx(1 - (1 - 2 / 4) ** 2)


# --- several samples a problem ------------------------------------------------------------------------------------


def test_average_at_k_by_hand() -> None:
    """Means 1/2, 1 and 0 of three problems: 1/2."""
    result = average_at_k({"a": [1.0, 0.0], "b": [1.0, 1.0], "c": [0.0, 0.0]}, seed=0)
    assert (result.value, result.n, result.num_samples) == (0.5, 3, 2)
    assert 0 <= result.interval[0] < 0.5 < result.interval[1] <= 1


def test_resampled_means_have_the_moments_of_the_bootstrap() -> None:
    """Values 0, 0, 1/2, 1 and two more, 0 and 1: mean 5/12; the mean of six has variance (9/24 - 25/144)/6 = 29/864."""
    means = resampled_means([0.0, 0.0, 0.5, 1.0], SCORE_ENDS, np.random.default_rng(0), replicates=40_000)
    assert means.mean() == pytest.approx(5 / 12, abs=5 * math.sqrt(29 / 864 / 40_000))
    assert means.var() == pytest.approx(29 / 864, rel=0.03)


def test_resampling_draws_problems_not_completions() -> None:
    """Eight equal samples a problem say no more than one: the interval is that of single samples."""
    problems = {str(i): float(i < 12) for i in range(40)}
    one = average_at_k({key: [value] for key, value in problems.items()}, seed=3).interval
    eight = average_at_k({key: [value] * 8 for key, value in problems.items()}, seed=3).interval
    assert eight == one
    assert one[1] - one[0] > 0.2  # as if 320 completions were independent it would be 0.1


def test_blocks_do_not_change_the_draws() -> None:
    values = [0.0, 0.25, 0.25, 1.0]
    whole, blocks = (resampled_means(values, SCORE_ENDS, np.random.default_rng(1), 1000, size) for size in (1000, 7))
    assert np.array_equal(whole, blocks)


def test_nothing_right_is_no_proof_of_never() -> None:
    """0 of 30 problems: the upper end is near 3/30, the usual rule of three, and not 0."""
    low, high = average_at_k({str(i): [0.0] * 8 for i in range(30)}, seed=0).interval
    assert low == 0
    assert 0.05 < high < 0.13


# --- sign flips -----------------------------------------------------------------------------------------------


def test_sign_flips_of_whole_differences_are_mcnemars() -> None:
    rng = np.random.default_rng(0)
    for wins, losses in product(range(9), repeat=2):
        assert sign_flip_p([1.0] * wins + [-1.0] * losses + [0.0], rng) == pytest.approx(mcnemar(wins, losses))


def test_many_differences_are_drawn_close_to_the_exact_value() -> None:
    """20 wins, 8 losses: five standard errors of 100,000 draws; the same seed gives the same value."""
    differences, exact = [1.0] * 20 + [-1.0] * 8, mcnemar(20, 8)
    p = sign_flip_p(differences, np.random.default_rng(0))
    assert p == sign_flip_p(differences, np.random.default_rng(0))
    assert p == pytest.approx(exact, abs=5 * math.sqrt(exact / 100_000))


def test_a_drawn_p_value_is_never_0() -> None:
    assert sign_flip_p([1.0] * 60, np.random.default_rng(0), flips=10_000) == 1 / 10_001
    with pytest.raises(ValueError, match="got flips = 9999"):
        sign_flip_p([1.0], np.random.default_rng(0), flips=9_999)


def test_sign_flips_are_scipys_permutations() -> None:
    differences = np.array([0.5, -0.25, 0.75, 0.125, -0.5, 1.0, 0.25])
    found = permutation_test((differences,), np.sum, permutation_type="samples")
    assert sign_flip_p(differences.tolist(), np.random.default_rng(0)) == pytest.approx(found.pvalue)


@settings(max_examples=30, deadline=None)
@given(thirds=st.lists(st.integers(-3, 3), min_size=1, max_size=10), data=st.data())
def test_sums_that_are_equal_but_for_rounding_count_as_reached(thirds: list[int], data: st.DataObject) -> None:
    """Against exact integers: thirds have no exact floating-point sum."""
    reached = [
        abs(sum(s * t for s, t in zip(signs, thirds))) >= abs(sum(thirds))
        for signs in product((1, -1), repeat=len(thirds))
    ]
    shuffled = data.draw(st.permutations(thirds))
    assert sign_flip_p([third / 3 for third in shuffled], np.random.default_rng(0)) == pytest.approx(np.mean(reached))


@pytest.mark.parametrize("n", [12, 40])
def test_p_values_of_models_alike_are_uniform(n: int) -> None:
    """400 pairs of models with the same success rates: one in twenty below 0.05, a half below 0.5."""
    rng = np.random.default_rng(7)
    rates = rng.beta(1, 1, size=(400, n))
    differences = (rng.binomial(8, rates) - rng.binomial(8, rates)) / 8
    p = np.array([sign_flip_p(row, rng, flips=10_000) for row in differences])
    for level in (0.05, 0.2, 0.5, 0.8):
        error = 4 * math.sqrt(level * (1 - level) / 400)
        slack = 0.1 if n == 12 else 0.02  # ties of few differences make the test shy, never bold
        assert level - error - slack < np.mean(p <= level) < level + error


# --- coverage: how often an interval holds the truth ------------------------------------------------------------


def coverage(n: int, shape: tuple[float, float], two_more: tuple[float, ...], trials: int = 600) -> float:
    """Share of bootstrap intervals that hold the mean success rate; rates from a beta distribution, 8 samples."""
    rng, hits, truth = np.random.default_rng(11), 0, shape[0] / sum(shape)
    for _ in range(trials):
        values = (rng.binomial(8, rng.beta(*shape, size=n)) / 8).tolist()
        low, high = percentile_interval(resampled_means(values, two_more, rng, replicates=600))
        hits += low <= truth <= high
    return hits / trials


@pytest.mark.parametrize(("n", "shape"), [(30, (0.1, 2.0)), (30, (1.0, 2.0)), (83, (0.3, 2.0)), (83, (2.0, 0.3))])
def test_bootstrap_intervals_hold_the_truth(n: int, shape: tuple[float, float]) -> None:
    """Three standard errors of 600 trials below 95 %: 0.923."""
    assert coverage(n, shape, SCORE_ENDS) > 0.923


def test_the_coverage_check_finds_the_plain_bootstrap_wanting() -> None:
    """The planted fault: no problems added, on a small and hard benchmark."""
    assert coverage(30, (0.1, 2.0), ()) < 0.9


@pytest.mark.parametrize("odds", [1.0, 1.5])
def test_intervals_of_differences_hold_the_truth(odds: float) -> None:
    """30 problems, success rates from a beta distribution, then with their odds raised; 600 trials."""
    rng, hits = np.random.default_rng(13), 0
    pool = rng.beta(0.3, 2.0, size=200_000)
    truth = float(np.mean(pool * odds / (1 - pool + pool * odds) - pool))
    for _ in range(600):
        p = rng.beta(0.3, 2.0, size=30)
        values = (rng.binomial(8, p * odds / (1 - p + p * odds)) / 8 - rng.binomial(8, p) / 8).tolist()
        low, high = percentile_interval(resampled_means(values, difference_ends(values), rng, replicates=600))
        hits += low <= truth <= high
    assert hits / 600 > 0.923


def test_wilson_intervals_hold_the_truth() -> None:
    """Summed over all outcomes, not simulated: 30 and 83 problems, on average over shares from 0.05 to 0.95."""
    for n in (30, 83):
        held = []
        for share in np.linspace(0.05, 0.95, 91):
            chances = [math.comb(n, c) * share**c * (1 - share) ** (n - c) for c in range(n + 1)]
            held.append(
                sum(p for c, p in enumerate(chances) if wilson(c, n).interval[0] <= share <= wilson(c, n).interval[1])
            )
        assert np.mean(held) == pytest.approx(0.95, abs=0.01)
