"""Alignment with a target, streamed, against the plain sum over its problems."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.scoring import aimed_alignment, mean_without, target_mean
from lean_align.store import StoreWriter, open_store

ROWS = np.array([[1, 0, 0], [0.6, 0.8, 0], [0, 0, 0], [0, 1, 0]])
TARGET = np.array([[0, 1, 0], [0.6, 0.8, 0], [0, 0, 0]])
V = np.array([0.25, 0.1875, 0.0])


def plain(
    rows: NDArray[np.float64], target: NDArray[np.float64], w: NDArray[np.float64], in_both: dict[int, tuple[int, ...]]
) -> NDArray[np.float64]:
    """Row by row and problem by problem, those that are the row's own passed over."""
    found = []
    for i, row in enumerate(rows):
        others = [j for j in range(len(target)) if j not in in_both.get(i, ())]
        found.append(sum(w[j] * (row @ target[j]) for j in others) / max(1, len(others)))
    return np.array(found)


def unit_rows(rng: np.random.Generator, n: int, k: int) -> NDArray[np.float64]:
    rows = rng.normal(size=(n, k))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    rows[rng.random(n) < 0.2] = 0.0
    return rows


def test_by_hand() -> None:
    """m_T = (.25 (0, 1, 0) + .1875 (.6, .8, 0)) / 3 = (.0375, .4 / 3, 0).

    Row 1 is the target's problem 1: without it m is .25 (0, 1, 0) / 2 = (0, .125, 0), and .8 * .125 = .1.
    """
    np.testing.assert_allclose(target_mean(TARGET, V), [0.0375, 0.4 / 3, 0])
    np.testing.assert_allclose(aimed_alignment(ROWS, TARGET, V, {1: (1,)}), [0.0375, 0.1, 0, 0.4 / 3])
    np.testing.assert_allclose(aimed_alignment(ROWS, TARGET, V)[1], 0.6 * 0.0375 + 0.8 * 0.4 / 3)


@pytest.mark.parametrize("seed", range(6))
def test_it_equals_the_plain_sum(seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, target = unit_rows(rng, 40, 7), unit_rows(rng, 9, 7)
    weights = rng.uniform(-0.5, 0.5, 9)
    in_both = {3: (0,), 11: (4, 5), 39: (8,)}
    found = aimed_alignment(rows, target, weights, in_both, threads=1 + seed % 3)
    np.testing.assert_allclose(found, plain(rows, target, weights, in_both), rtol=0, atol=1e-14)


def test_stores_in_float16_give_what_their_rows_give(tmp_path: Path) -> None:
    """Products of a store are taken in float32."""
    rng = np.random.default_rng(1)
    stores = []
    for name, n in (("pool", 30), ("target", 8)):
        with StoreWriter.open(tmp_path / name, [f"{name}-{i}" for i in range(n)], 16) as writer:
            for row, gradient in enumerate(rng.normal(size=(n, 16))):
                writer.write(row, gradient * (row % 5 > 0))
        stores.append(open_store(tmp_path / name))
    rows, target = (np.asarray(store.rows, np.float64) for store in stores)
    weights, in_both = rng.uniform(0, 0.25, 8), {2: (3,), 29: (1, 6)}
    expected = plain(rows, target, weights, in_both)
    for threads in (1, 3):
        found = aimed_alignment(*stores, weights, in_both, threads)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_a_prompt_that_is_all_of_the_target_agrees_with_nothing() -> None:
    assert aimed_alignment(ROWS, TARGET[:1], V[:1], {3: (0,)})[3] == 0.0
    assert not mean_without(TARGET, V, target_mean(TARGET, V), (0, 1, 2)).any()


def test_a_problem_without_a_gradient_counts_in_the_mean() -> None:
    """As a prompt of the pool does in the pool's mean."""
    np.testing.assert_allclose(target_mean(TARGET, V), 2 / 3 * target_mean(TARGET[:2], V[:2]))


@pytest.mark.parametrize("weights", [V[:2], np.array([0.25, 2.0, 0]), np.array([0.25, np.nan, 0]), V[:, None]])
def test_weights_that_do_not_fit_are_refused(weights: NDArray[np.float64]) -> None:
    with pytest.raises(ValueError, match=r"expected \(3,\), a number in \[-1, 1\] for each problem"):
        aimed_alignment(ROWS, TARGET, weights)


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="the pool's rows have 3 numbers and the target's 2"):
        aimed_alignment(ROWS, TARGET[:, :2], V)


def test_rows_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match=r"row 1 .* holds NaN or Inf"):
        aimed_alignment(ROWS, np.where(TARGET == 0.6, np.nan, TARGET), V)
