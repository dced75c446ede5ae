"""Predictions of prompts that were not sampled: each formula against its definition, computed the long way."""

from __future__ import annotations

from itertools import product
from math import comb

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.prediction import (
    Known,
    Outlook,
    cover,
    fit_ridge,
    forecast,
    measured_values,
    standardised,
    success_chances,
    top_chances,
)
from lean_align.prediction.ridge import PENALTIES

RNG = np.random.default_rng(5)


def by_hand(x: NDArray[np.float64], y: NDArray[np.float64], penalty: float, at: NDArray[np.float64]) -> float:
    """Ridge with an intercept that is not penalised, from the normal equations."""
    wide = np.column_stack([np.ones(len(x)), x])
    weights = np.linalg.solve(wide.T @ wide + penalty * np.diag([0.0, *np.ones(x.shape[1])]), wide.T @ y)
    return float(weights[0] + at @ weights[1:])


@pytest.mark.parametrize("shape", [(12, 4), (7, 20), (5, 5)])
def test_ridge_leaves_out_as_a_fit_without_the_row_does(shape: tuple[int, int]) -> None:
    x, noise = RNG.normal(size=shape) + 3, RNG.normal(size=shape[0])
    y = x[:, 0] - 2 * x[:, 1] + noise
    found = fit_ridge(x, y)
    for i in range(len(x)):
        rest = np.arange(len(x)) != i
        assert found.left_out[i] == pytest.approx(by_hand(x[rest], y[rest], found.penalty, x[i]), abs=1e-8)
    assert found.error == pytest.approx(np.sqrt(np.mean((found.left_out - y) ** 2)))


def test_ridge_takes_the_penalty_of_least_error_left_out() -> None:
    x = RNG.normal(size=(15, 6))
    y = x @ RNG.normal(size=6) + 2 * RNG.normal(size=15)
    unit = np.sum((x - x.mean(0)) ** 2) / len(x)
    errors = []
    for penalty in PENALTIES * unit:
        rows = [np.arange(len(x)) != i for i in range(len(x))]
        errors.append(sum((by_hand(x[r], y[r], penalty, x[i]) - y[i]) ** 2 for i, r in enumerate(rows)))
    assert fit_ridge(x, y).penalty == pytest.approx(PENALTIES[int(np.argmin(errors))] * unit)


@pytest.mark.parametrize("shape", [(9, 3), (6, 30)])
def test_ridge_predicts_mean_and_variance_of_the_normal_equations(shape: tuple[int, int]) -> None:
    x, at = RNG.normal(size=shape), RNG.normal(size=(4, shape[1]))
    y = x[:, 0] + 0.1 * RNG.normal(size=shape[0])
    found = fit_ridge(x, y)
    mean, variance = found.predict(at)
    centred = x - x.mean(0)
    inverse = np.linalg.inv(centred.T @ centred + found.penalty * np.eye(shape[1]))
    for i in range(len(at)):
        assert mean[i] == pytest.approx(by_hand(x, y, found.penalty, at[i]), abs=1e-8)
        away = at[i] - x.mean(0)
        assert variance[i] == pytest.approx(found.noise * (1 + 1 / len(x) + away @ inverse @ away))
    hat = np.array([1 / len(x) + row @ inverse @ row for row in centred])
    assert found.noise == pytest.approx(np.mean((found.left_out - y) ** 2 * (1 - hat)))


def test_ridge_of_what_nothing_explains_predicts_the_mean() -> None:
    found = fit_ridge(np.zeros((5, 3)), np.array([0.0, 1, 2, 3, 4]))
    assert found.predict(np.ones((1, 3)))[0][0] == pytest.approx(2)
    assert found.correlation == pytest.approx(-1)  # the mean of the others lies on the other side
    constant = fit_ridge(RNG.normal(size=(5, 3)), np.full(5, 0.25))
    assert constant.predict(RNG.normal(size=(2, 3)))[0] == pytest.approx([0.25, 0.25])
    assert (constant.error, constant.correlation) == (pytest.approx(0, abs=1e-12), 0)


@pytest.mark.parametrize(
    ("x", "y"),
    [(np.ones((1, 2)), np.ones(1)), (np.ones((3, 2)), np.ones(2)), (np.array([[1.0], [np.nan]]), np.ones(2))],
)
def test_ridge_refuses_what_it_cannot_fit(x: NDArray[np.float64], y: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match="expected"):
        fit_ridge(x, y)


def test_standardised_columns_have_mean_0_and_deviation_1_but_for_constant_ones() -> None:
    x = RNG.normal(size=(2500, 3)).astype(np.float32) * (1, 50, 1e-3) + (0, 1000, 7)
    x = np.column_stack([x, np.full(2500, 4.2, dtype=np.float32)])
    found = standardised(x)
    assert found.dtype == np.float32
    assert np.abs(found.mean(0)).max() < 1e-3
    assert found.std(0) == pytest.approx([1, 1, 1, 0], abs=1e-3)


def test_a_cover_takes_each_row_once_and_is_a_function_of_the_generator() -> None:
    x = RNG.normal(size=(40, 3)).astype(np.float32)
    taken = cover(x, 40, np.random.default_rng(1))
    assert sorted(taken) == list(range(40))
    again = cover(x, 10, np.random.default_rng(1))
    assert (again == taken[:10]).all()
    for n in (0, 41):
        with pytest.raises(ValueError, match="expected 1 to 40"):
            cover(x, n, np.random.default_rng(1))


def test_a_cover_takes_one_of_each_cluster_before_a_second_copy() -> None:
    """Eight places, ten equal rows at each."""
    x = np.repeat(100 * RNG.normal(size=(8, 5)), 10, axis=0).astype(np.float32)
    taken = cover(x, 12, np.random.default_rng(0))
    assert {int(i) // 10 for i in taken[:8]} == set(range(8))
    assert len(set(taken.tolist())) == 12


def test_a_cover_draws_by_squared_distance() -> None:
    """From row 0 the others are 1, 2 and 3 away: drawn second in 1, 4 and 9 of 14 cases."""
    x = np.array([[0.0], [1], [2], [3]], dtype=np.float32)
    second = [int(t[1]) for s in range(6000) if (t := cover(x, 2, np.random.default_rng(s)))[0] == 0]
    share = np.bincount(second, minlength=4) / len(second)
    assert share == pytest.approx([0, 1 / 14, 4 / 14, 9 / 14], abs=0.04)


def test_success_chances_are_beta_binomial_with_the_mean_and_variance_given() -> None:
    mean, variance = np.array([0.3, 0.5, 0.8]), np.array([0.05, 0.125, 0.1])
    found, share = success_chances(mean, variance, 4), np.arange(5) / 4
    assert found.sum(1) == pytest.approx(np.ones(3))
    assert found @ share == pytest.approx(mean)
    assert found @ share**2 - mean**2 == pytest.approx([0.0525, 0.125, 0.1], rel=1e-4)  # at least p (1 - p) / 4
    assert found[0] == pytest.approx([comb(4, k) * 0.3**k * 0.7 ** (4 - k) for k in range(5)], rel=1e-4)


def test_impossible_means_and_variances_are_taken_to_the_nearest_possible() -> None:
    found = success_chances(np.array([-0.4, 1.3, 0.5]), np.array([0.0, 5.0, 5.0]), 8)
    assert found @ (np.arange(9) / 8) == pytest.approx([0.01, 0.99, 0.5])
    assert found[2, [0, 8]] == pytest.approx([0.5, 0.5], abs=0.01)
    assert (found >= 0).all()


def drawn(outlook: Outlook, n: int) -> NDArray[np.float64]:
    """Values drawn from an outlook, (n, prompts)."""
    rng, total = np.random.default_rng(3), outlook.chances.shape[1] - 1
    k = np.array([rng.choice(total + 1, size=n, p=row) for row in outlook.chances]).T
    v = k / total * (1 - k / total)
    assert outlook.alignment is not None
    assert outlook.variance is not None
    return v * (outlook.own * v + rng.normal(outlook.alignment, np.sqrt(outlook.variance), size=k.shape))


@pytest.mark.parametrize("own", [0.0, 1.0])
def test_the_chance_above_a_threshold_is_the_share_of_draws_above_it(own: float) -> None:
    chances = success_chances(np.array([0.1, 0.5, 0.9]), np.array([0.05, 0.05, 0.02]), 4)
    outlook = Outlook(chances, np.array([1.0, 0.1, -0.5]), np.array([0.3, 0.2, 0.1]), own)
    values = drawn(outlook, 40_000)
    for threshold in (-0.05, 0.0, 0.03, 0.2):
        assert outlook.above(threshold) == pytest.approx((values > threshold).mean(0), abs=0.01)


def test_the_best_n_begin_where_n_are_expected() -> None:
    chances = success_chances(RNG.random(50), np.full(50, 0.06), 8)
    outlook = Outlook(chances, RNG.normal(size=50), np.full(50, 0.2), 1.0)
    known = 0.25 * RNG.normal(size=30)
    for n in (1, 10, 79):
        top = top_chances(known, outlook, n)
        others = n - top.expected_missing  # a known value at which they begin counts in part
        assert np.sum(known > top.threshold + 1e-9) - 1e-6 <= others <= np.sum(known > top.threshold - 1e-9) + 1e-6
    assert top_chances(known, outlook, 80).chance == pytest.approx(np.ones(50))


def test_equal_values_count_for_the_part_of_them_that_is_taken() -> None:
    """V alone, of 2 completions: 0 or 1/4. Four known are 1/4; of two others one is so in half of all cases, one never.
    The best 3 are among 4.5 expected prompts of 1/4."""
    certain = np.array([[0.25, 0.5, 0.25], [1.0, 0.0, 0.0]])
    top = top_chances(np.full(4, 0.25), Outlook(certain), 3)
    assert top.chance == pytest.approx([0.5 * 3 / 4.5, 0])


def exact(known: list[float], values: list[list[tuple[float, float]]], n: int) -> NDArray[np.float64]:
    """Chance of each uncertain value (value, probability) to be among the best n, by every outcome there is."""
    found = np.zeros(len(values))
    for outcome in product(*values):
        chance = np.prod([p for _, p in outcome])
        every = [*known, *(value for value, _ in outcome)]
        best = np.argsort([-value for value in every], kind="stable")[:n]
        for place in range(len(values)):
            found[place] += chance * (len(known) + place in best)
    return found


def test_chances_order_prompts_as_every_outcome_does() -> None:
    """Five uncertain prompts, values 0 or V b with b certain."""
    rate = np.array([0.1, 0.3, 0.5, 0.7, 0.95])
    chances = success_chances(rate, np.full(5, 0.05), 4)
    alignment = np.array([1.0, 0.8, 0.6, 0.9, 1.1])
    levels = np.arange(5) / 4 * (1 - np.arange(5) / 4)
    values = [[(float(v * b), float(p)) for v, p in zip(levels, row)] for row, b in zip(chances, alignment)]
    known = [0.21, 0.16, 0.11, 0.0]
    top = top_chances(np.array(known), Outlook(chances, alignment, np.full(5, 1e-12)), 3)
    wanted = exact(known, values, 3)
    assert top.chance == pytest.approx(wanted, abs=0.15)
    assert set(np.argsort(top.chance)[-2:]) == set(np.argsort(wanted)[-2:])


def planted(n: int = 300) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float64]]:
    """A pool whose success rate and alignment follow from features, up to noise."""
    rng = np.random.default_rng(11)
    x = rng.normal(size=(n, 10)).astype(np.float32)
    rate = np.clip(0.25 + 0.25 * x[:, 0], 0, 1)
    right = rng.binomial(8, rate)
    return x, right, 1 + x[:, 1] + 0.2 * rng.normal(size=n)


def test_a_forecast_finds_the_best_of_a_planted_pool() -> None:
    x, right, alignment = planted()
    v = right / 8 * (1 - right / 8)
    alignment = np.where(v > 0, alignment, np.nan)
    places = np.arange(60)
    known = Known(places, right[:60], 8, alignment[:60])
    found = forecast(x, known, 30, "leave-one-out")
    best = set(np.argsort(-np.nan_to_num(v * alignment))[:30].tolist())
    likeliest = set(found.places[np.argsort(-found.chance)[:60]].tolist())
    elsewhere = best - set(range(60))
    assert len(likeliest & elsewhere) > 0.75 * len(elsewhere)  # a quarter of 240 at random
    assert found.expected_missing == pytest.approx(len(elsewhere), abs=8)
    assert found.by_rate.correlation > 0.7
    assert found.by_alignment is not None
    assert found.by_alignment.correlation > 0.8
    rest = np.arange(60, 300)
    assert found.places.tolist() == rest.tolist()
    assert np.corrcoef(found.success_rate, right[rest] / 8)[0, 1] > 0.7


def test_a_forecast_of_v_alone_looks_at_no_alignment() -> None:
    x, right, alignment = planted(80)
    plain = forecast(x, Known(np.arange(40), right[:40], 8), 20, "learnability")
    other = forecast(x, Known(np.arange(40), right[:40], 8, alignment[:40]), 20, "learnability")
    assert plain.by_alignment is None
    assert (plain.chance == other.chance).all()
    assert np.isnan(plain.alignment).all()


def test_with_too_few_gradients_the_value_is_v_alone() -> None:
    x, right, _ = planted(80)
    nothing = np.full(40, np.nan)
    plain = forecast(x, Known(np.arange(40), right[:40], 8), 20, "learnability")
    found = forecast(x, Known(np.arange(40), right[:40], 8, nothing), 20, "score")
    assert found.by_alignment is None
    assert found.chance == pytest.approx(plain.chance)


def test_measured_values_are_the_scores_times_the_number_of_prompts() -> None:
    """Three rows of a plane: u = (1, 0), (0.6, 0.8), and none where all are right; V = 3/16, 1/4, 0."""
    u = np.array([[1, 0], [0.6, 0.8], [0, 0]])
    known = Known(np.arange(3), np.array([1, 2, 4]), 4, np.array([0.25 * 0.6, 3 / 16 * 0.6, np.nan]))
    v = known.learnability
    assert v == pytest.approx([3 / 16, 1 / 4, 0])
    assert measured_values(known, "score") == pytest.approx(v * (u @ (v @ u)))
    assert measured_values(known, "leave-one-out") == pytest.approx([3 / 16 * 0.15, 0.25 * 0.1125, 0])
    assert measured_values(known, "learnability") == pytest.approx(v)
