"""Correlations against numbers worked out by hand and the textbook's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import pearsonr, spearmanr

from lean_align.errors import DataError
from lean_align.statistics import partial_spearman, pearson, spearman, value_correlations
from lean_align.statistics.correlations import _ranks


def test_correlations_by_hand() -> None:
    """(1, 2, 3, 4) with (1, 3, 2, 4): ranks differ by 0, 1, 1, 0: Spearman 1 - 6 x 2 / (4 x 15) = 0.8."""
    assert spearman([1, 2, 3, 4], [1, 3, 2, 4]) == pytest.approx(0.8)
    assert spearman([1, 2, 3, 4], [1, 8, 27, 64]) == pytest.approx(1.0)
    assert spearman([1, 5, 7, 9], [0.1, 0.3, 0.2, 4]) == pytest.approx(0.8)
    assert spearman([4, 3, 2, 1], [1, 2, 3, 4]) == pytest.approx(-1.0)
    assert pearson([0, 0, 1, 1], [0, 1, 1, 2]) == pytest.approx(1 / math.sqrt(2))  # 1 / sqrt(1 x 2)


def test_correlations_are_scipys() -> None:
    a, b = np.random.default_rng(3).integers(0, 9, size=(2, 40)).astype(float)
    assert spearman(a, b) == pytest.approx(spearmanr(a, b).statistic, abs=1e-15)
    assert pearson(a, b) == pytest.approx(pearsonr(a, b).statistic, abs=1e-14)


def test_ties_share_their_rank_and_rows_with_nan_are_left_out() -> None:
    assert _ranks(np.array([5.0, 1.0, 5.0, 2.0]))[0].tolist() == [3.5, 1.0, 3.5, 2.0]
    assert spearman([1, 1, 2], [1, 1, 2]) == pytest.approx(1.0)
    assert spearman([1, 2, 2, 3], [1, 2, 3, 4]) == pytest.approx(4.5 / math.sqrt(4.5 * 5))  # ranks 1, 2.5, 2.5, 4
    assert spearman([1, 2, 3, 4, math.nan, 9], [1, 3, 2, 4, 0, math.nan]) == pytest.approx(0.8)


def test_undefined_correlations_are_none() -> None:
    for one, other in (([1, 1, 1], [1, 2, 3]), ([1, 2], [5, 5]), ([1.0], [2.0]), ([math.nan, 1], [1, 2]), ([], [])):
        assert pearson(one, other) is spearman(one, other) is partial_spearman(one, other, one) is None
    assert partial_spearman([1, 2, 3, 4], [4, 1, 3, 2], [2, 4, 6, 8]) is None  # the control is the first
    assert pearson([1e-200, 2e-200, 4e-200], [1, 2, 3]) is None  # squares below float64's range
    with pytest.raises(DataError, match=r"shapes \[\(2,\), \(3,\)\]"):
        pearson([1, 2], [1, 2, 3])


def test_partial_spearman_is_the_textbook_formula() -> None:
    """(r_ab - r_ac r_bc) / sqrt((1 - r_ac^2)(1 - r_bc^2)), of Spearman's correlations."""
    rng = np.random.default_rng(0)
    a, b, c = rng.integers(0, 6, size=(3, 80)).astype(float) + np.linspace(0, 3, 80)
    ab, ac, bc = (spearman(*pair) or 0.0 for pair in ((a, b), (a, c), (b, c)))
    by_formula = (ab - ac * bc) / math.sqrt((1 - ac**2) * (1 - bc**2))
    assert partial_spearman(a, b, c) == pytest.approx(by_formula)
    assert partial_spearman(a, b, np.ones(80)) == pytest.approx(ab)


def test_a_pull_of_length_that_is_all_v_is_gone_once_v_is_known() -> None:
    rng = np.random.default_rng(1)
    v = rng.random(2_000)
    found = value_correlations(v + 0.2 * rng.standard_normal(2_000), 100 * v + 20 * rng.standard_normal(2_000), v)
    assert found.n == 2_000
    assert (found.spearman or 0) > 0.5
    assert abs(found.partial or 1) < 0.06
