"""Intervals and tests against textbook cases and against numbers worked out by hand."""

from __future__ import annotations

import math
from itertools import product

import pytest

from lean_align.evaluate import Z_95, accuracy, mcnemar, paired_difference, wilson


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
