"""The streamed score against the n x n matrix it stands for, and the symmetries that the matrix has."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from lean_align.scoring import score_prompts
from lean_align.store import StoreWriter, open_store
from lean_align.types import Scores

FEW = settings(max_examples=60, deadline=None)
Scorer = Callable[[NDArray[np.float64], NDArray[np.float64]], NDArray[np.float64]]


@st.composite
def gradients_and_rates(draw: st.DrawFn, max_n: int = 12) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Projected gradients of 1 to max_n prompts with G = 8; where all or none is right the gradient is zero."""
    n, k = draw(st.integers(1, max_n)), draw(st.integers(1, 6))
    right = np.array(draw(st.lists(st.integers(0, 8), min_size=n, max_size=n)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    rows = rng.normal(size=(n, k)) * 10.0 ** rng.integers(-6, 6, size=(n, 1))
    if draw(st.booleans()):
        rows[rng.integers(n)] = rows[0]  # two prompts that ask for the same step
    rows[(right == 0) | (right == 8)] = 0.0
    return rows, right / 8


def unit_rows(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0)


def dense_scores(gradients: NDArray[np.float64], success_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    """METHOD word by word: S_ij = V_i V_j cos(phi_i, phi_j), then the mean of each row."""
    n = len(gradients)
    matrix = np.zeros((n, n))
    for i in range(n):
        for j in range(n):
            lengths = np.linalg.norm(gradients[i]) * np.linalg.norm(gradients[j])
            cosine = gradients[i] @ gradients[j] / lengths if lengths else 0.0
            v_i, v_j = (p * (1 - p) for p in (success_rate[i], success_rate[j]))
            matrix[i, j] = v_i * v_j * cosine
    return matrix.mean(axis=1)


def assert_equals_dense(scorer: Scorer, gradients: NDArray[np.float64], success_rate: NDArray[np.float64]) -> None:
    np.testing.assert_allclose(
        scorer(unit_rows(gradients), success_rate), dense_scores(gradients, success_rate), rtol=0, atol=1e-10
    )


def streamed(rows: NDArray[np.float64], success_rate: NDArray[np.float64]) -> NDArray[np.float64]:
    return score_prompts(rows, success_rate, block_rows=3).score


@FEW
@given(gradients_and_rates())
def test_streaming_equals_the_dense_matrix(case: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    assert_equals_dense(streamed, *case)


def without_v_j(rows: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    return p * (1 - p) * (rows @ rows.mean(axis=0))


def without_itself(rows: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    v = p * (1 - p)
    return v * (rows @ (v[:, None] * rows).sum(axis=0) - v * (rows**2).sum(axis=1)) / len(p)


def without_the_last_block(rows: NDArray[np.float64], p: NDArray[np.float64]) -> NDArray[np.float64]:
    v = p * (1 - p)
    whole = len(p) - len(p) % 3
    return v * (rows @ (v[:whole, None] * rows[:whole]).sum(axis=0)) / len(p)


@pytest.mark.parametrize("wrong", [without_v_j, without_itself, without_the_last_block])
def test_the_check_against_the_matrix_catches_a_wrong_scorer(wrong: Scorer) -> None:
    rows = np.random.default_rng(0).normal(size=(7, 4))
    rates = np.array([1, 2, 3, 4, 5, 6, 7]) / 8
    assert_equals_dense(streamed, rows, rates)
    with pytest.raises(AssertionError):
        assert_equals_dense(wrong, rows, rates)


@FEW
@given(gradients_and_rates(), st.integers(1, 13))
def test_the_block_size_does_not_matter(case: tuple[NDArray[np.float64], NDArray[np.float64]], block_rows: int) -> None:
    rows, rates = unit_rows(case[0]), case[1]
    one, other = score_prompts(rows, rates), score_prompts(rows, rates, block_rows=block_rows)
    np.testing.assert_allclose(other.score, one.score, rtol=0, atol=1e-12)
    np.testing.assert_allclose(other.alignment, one.alignment, rtol=0, atol=1e-12)


@FEW
@given(gradients_and_rates(), st.randoms(use_true_random=False))
def test_another_order_of_prompts_gives_the_same_scores_in_that_order(
    case: tuple[NDArray[np.float64], NDArray[np.float64]], random: object
) -> None:
    rows, rates = unit_rows(case[0]), case[1]
    order = list(range(len(rows)))
    random.shuffle(order)  # type: ignore[attr-defined]
    ids = [f"p-{i:02d}" for i in order]
    there, back = score_prompts(rows, rates), score_prompts(rows[order], rates[order], ids)
    np.testing.assert_allclose(back.score, there.score[order], rtol=0, atol=1e-12)
    np.testing.assert_array_equal(back.learnability, there.learnability[order])


def scores_from_store(gradients: NDArray[np.float64], rates: NDArray[np.float64]) -> Scores:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
        with StoreWriter.open(Path(name), [str(i) for i in range(len(gradients))], gradients.shape[1]) as writer:
            for row, gradient in enumerate(gradients):
                writer.write(row, gradient)
        return score_prompts(open_store(name), rates)


@settings(FEW, max_examples=30)
@given(gradients_and_rates(), st.integers(-20, 20))
def test_the_length_of_a_gradient_does_not_matter(
    case: tuple[NDArray[np.float64], NDArray[np.float64]], power: int
) -> None:
    """The store keeps directions: twice as long a gradient is the same row, to the bit."""
    gradients, rates = case
    longer = gradients * 2.0 ** (power * np.arange(len(gradients)) % 21 - 10)[:, None]
    np.testing.assert_array_equal(scores_from_store(longer, rates).score, scores_from_store(gradients, rates).score)


@settings(FEW, max_examples=30)
@given(gradients_and_rates())
def test_a_store_in_float16_moves_scores_by_its_rounding_only(
    case: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """An entry below 1 is off by 2^-12 at most; a cosine of k <= 6 entries by 2 sqrt(6) 2^-12, V V is 1/16 at most."""
    score = scores_from_store(*case).score
    np.testing.assert_allclose(score, dense_scores(*case), rtol=0, atol=2 * 6**0.5 * 2**-12 / 16 + 1e-6)


@FEW
@given(gradients_and_rates())
def test_scores_are_numbers_and_nothing_to_learn_scores_zero(
    case: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    scores = score_prompts(unit_rows(case[0]), case[1])
    assert np.isfinite(scores.score).all()
    assert (scores.score[scores.learnability == 0] == 0).all()
    assert (scores.alignment[~case[0].any(axis=1)] == 0).all()
    assert np.abs(scores.score).max() <= 1 / 16 + 1e-15


@FEW
@given(gradients_and_rates(), st.integers(1, 5))
def test_prompts_without_signal_thin_the_mean_and_change_nothing_else(
    case: tuple[NDArray[np.float64], NDArray[np.float64]], more: int
) -> None:
    rows, rates = unit_rows(case[0]), case[1]
    n = len(rows)
    padded = score_prompts(np.vstack([rows, np.zeros((more, rows.shape[1]))]), np.append(rates, np.ones(more)))
    expected = score_prompts(rows, rates).score * n / (n + more)
    np.testing.assert_allclose(padded.score[:n], expected, rtol=0, atol=1e-12)


@FEW
@given(gradients_and_rates())
def test_scores_add_up_to_the_squared_length_of_the_mean(
    case: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """sum_i V_i <u_i, m> = n |m|^2: the total is never negative."""
    rows, rates = unit_rows(case[0]), case[1]
    mean = ((rates * (1 - rates))[:, None] * rows).mean(axis=0)
    np.testing.assert_allclose(score_prompts(rows, rates).score.sum(), len(rows) * mean @ mean, rtol=0, atol=1e-12)


@FEW
@given(gradients_and_rates())
def test_ranks_sort_scores_then_names(case: tuple[NDArray[np.float64], NDArray[np.float64]]) -> None:
    scores = score_prompts(unit_rows(case[0]), case[1])
    expected = sorted(range(len(scores.score)), key=lambda i: (-scores.score[i], scores.prompt_ids[i]))
    assert [expected.index(i) + 1 for i in range(len(expected))] == scores.rank.tolist()
