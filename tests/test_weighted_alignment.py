"""Alignment with any weights, and scores with estimates in the place of p (1 - p)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lean_align.scoring import score_prompts, weighted_alignment
from lean_align.store import StoreWriter, open_store

UNIT_ROWS = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 0], [0, 1, 0]])


def test_mean_cosines_by_hand() -> None:
    """Sum of the rows (1.6, 1.8, 0), a quarter (.4, .45, 0): .4; .6 * .4 + .8 * .45 = .6; 0; .45."""
    np.testing.assert_allclose(weighted_alignment(UNIT_ROWS, np.ones(4)), [0.4, 0.6, 0.0, 0.45], rtol=1e-14)


def test_weights_may_be_negative() -> None:
    """Weights 2, -5, 1, 0: (2 - 3, -4, 0) / 4 = (-.25, -1, 0); products -.25; -.15 - .8 = -.95; 0; -1."""
    np.testing.assert_allclose(weighted_alignment(UNIT_ROWS, [2, -5, 1, 0]), [-0.25, -0.95, 0.0, -1.0], rtol=1e-14)


@pytest.mark.parametrize("scale", [1e-30, 1e-7, 1.0, 1e7, 1e30])
def test_weights_of_any_size_go_through_a_store_in_float16(tmp_path: Path, scale: float) -> None:
    """Times 2**112, float32 would overflow from 65,536 on and underflow below 1e-71."""
    gradients = np.random.default_rng(0).normal(size=(9, 5))
    with StoreWriter.open(tmp_path, [str(i) for i in range(9)], 5) as writer:
        for row, gradient in enumerate(gradients):
            writer.write(row, gradient)
    weights = np.array([1, -2, 3, 0, 5, 6, 7, 8, 9]) * scale
    rows = np.asarray(open_store(tmp_path).rows, dtype=np.float64)
    expected = rows @ (weights[:, None] * rows).mean(axis=0)
    found = weighted_alignment(open_store(tmp_path), weights, block_rows=2, threads=2)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * scale)


@pytest.mark.parametrize("weights", [[1, 1, 1], [1, 1, 1, np.nan], [1, np.inf, 1, 1], [[1, 1, 1, 1]]])
def test_weights_that_are_none_are_refused(weights: object) -> None:
    with pytest.raises(ValueError, match=r"expected \(4,\), one finite number per row"):
        weighted_alignment(UNIT_ROWS, weights)  # type: ignore[arg-type]


def test_a_bad_row_is_refused_by_name_even_with_weight_0() -> None:
    rows = UNIT_ROWS.copy()
    rows[2, 1] = np.nan
    with pytest.raises(ValueError, match=r"row 2 \(c\) holds NaN or Inf"):
        weighted_alignment(rows, [1, 1, 0, 1], ["a", "b", "c", "d"])


def test_no_rows_and_no_weight() -> None:
    assert weighted_alignment(np.zeros((0, 3)), []).tolist() == []
    assert weighted_alignment(UNIT_ROWS, np.zeros(4)).tolist() == [0.0] * 4


def test_estimates_take_the_place_of_the_plug_in() -> None:
    """V = 1/2, 1/3, 0, -1/8: m = (.5 + .2, 4/15 - 1/8, 0) / 4 = (.175, 17/480, 0).

    score = V <u, m>: .0875; (.105 + .8 * 17/480) / 3 = .4 / 9 = .04444..; 0; -17/3840.
    """
    scores = score_prompts(UNIT_ROWS, [0.5, 0.25, 1.0, 0.5], learnability=[1 / 2, 1 / 3, 0, -1 / 8])
    np.testing.assert_allclose(scores.score, [0.0875, 0.4 / 9, 0.0, -17 / 3840], rtol=1e-14)
    assert scores.learnability.tolist() == [1 / 2, 1 / 3, 0, -1 / 8]
    assert scores.success_rate.tolist() == [0.5, 0.25, 1.0, 0.5]
    plug_in = score_prompts(UNIT_ROWS, [0.5, 0.25, 1.0, 0.5])
    again = score_prompts(UNIT_ROWS, [0.5, 0.25, 1.0, 0.5], learnability=[0.25, 0.1875, 0.0, 0.25])
    np.testing.assert_array_equal(again.score, plug_in.score)


@pytest.mark.parametrize("estimate", [[0.1] * 3, [0.1, 0.1, 0.1, np.nan], [0.1, 0.1, 0.1, 0.51], [[0.1] * 4], 0.1])
def test_estimates_that_are_none_are_refused(estimate: object) -> None:
    with pytest.raises(ValueError, match=r"learnability has shape .*; expected \(4,\), one per success rate"):
        score_prompts(UNIT_ROWS, [0.5] * 4, learnability=estimate)  # type: ignore[arg-type]
