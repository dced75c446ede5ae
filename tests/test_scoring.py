"""The score by hand, what is refused, and what it costs in memory."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lean_align.scoring import learnability, rank_scores, score_prompts
from lean_align.store import GradientStore, StoreWriter, open_store

GRADIENTS = np.array([[0, 0, -2], [3, 4, 0], [0, 0, 0], [0, 5, 0]], dtype=np.float64)
SUCCESS_RATE = [0.5, 0.5, 1.0, 0.25]
UNIT_ROWS = np.array([[0, 0, -1], [0.6, 0.8, 0], [0, 0, 0], [0, 1, 0]])


def test_four_prompts_by_hand() -> None:
    """Gradients (0, 0, -2), (3, 4, 0), (0, 0, 0), (0, 5, 0); success rates 1/2, 1/2, 1, 1/4.

    V = 1/4, 1/4, 0, 3/16.  Unit rows: (0, 0, -1), (.6, .8, 0), 0, (0, 1, 0).
    sum V u = (.25 * .6, .25 * .8 + .1875, -.25) = (.15, .3875, -.25); m = a quarter of it = (.0375, .096875, -.0625).
    <u, m> = .0625; .6 * .0375 + .8 * .096875 = .1; 0; .096875.
    score = V <u, m> = .015625; .025; 0; .0181640625.  Ranks 3, 1, 4, 2.
    """
    scores = score_prompts(UNIT_ROWS, SUCCESS_RATE, ["a", "b", "c", "d"])
    np.testing.assert_array_equal(scores.learnability, [0.25, 0.25, 0.0, 0.1875])
    np.testing.assert_allclose(scores.alignment, [0.0625, 0.1, 0.0, 0.096875], rtol=1e-14)
    np.testing.assert_allclose(scores.score, [0.015625, 0.025, 0.0, 0.0181640625], rtol=1e-14)
    assert scores.rank.tolist() == [3, 1, 4, 2]
    assert scores.prompt_ids == ("a", "b", "c", "d")
    np.testing.assert_array_equal(scores.success_rate, SUCCESS_RATE)


def test_the_same_four_prompts_from_a_store(tmp_path: Path) -> None:
    """float16 keeps three digits: .6 becomes .6001, .8 becomes .7998."""
    with StoreWriter.open(tmp_path, ["a", "b", "c", "d"], 3) as writer:
        for row, gradient in enumerate(GRADIENTS):
            writer.write(row, gradient)
    scores = score_prompts(open_store(tmp_path), SUCCESS_RATE)
    np.testing.assert_allclose(scores.score, [0.015625, 0.025, 0.0, 0.0181640625], rtol=1e-3)
    assert scores.rank.tolist() == [3, 1, 4, 2]
    assert scores.prompt_ids == ("a", "b", "c", "d")


def test_a_prompt_counts_its_own_alignment() -> None:
    """A single prompt with p = 1/2: S_11 = V V cos = 1/16, and n = 1."""
    assert score_prompts([[1.0, 0.0]], [0.5]).score.tolist() == [1 / 16]


def test_opposite_prompts_cancel() -> None:
    """S has 1/16 on its diagonal and -1/16 beside it."""
    assert score_prompts([[1.0, 0.0], [-1.0, 0.0]], [0.5, 0.5]).score.tolist() == [0.0, 0.0]


def test_learnability_by_hand() -> None:
    """p (1 - p) for 0, 1/8, 1/2 and 1."""
    assert learnability([0, 0.125, 0.5, 1]).tolist() == [0.0, 0.109375, 0.25, 0.0]


@pytest.mark.parametrize("p", [[-0.1], [1.01], [np.nan], [[0.5]], 0.5])
def test_a_success_rate_that_is_none_is_refused(p: object) -> None:
    with pytest.raises(ValueError, match=r"expected \(n,\) within \[0, 1\]"):
        learnability(p)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("n_rows", "n_rates", "n_ids"), [(3, 2, None), (3, 4, None), (2, 3, 3), (3, 2, 2), (3, 3, 2), (3, 3, 4), (3, 1, 1)]
)
def test_lengths_that_differ_are_refused(n_rows: int, n_rates: int, n_ids: int | None) -> None:
    """Rows that no number was given for would otherwise score whatever lay in memory."""
    ids = None if n_ids is None else [str(i) for i in range(n_ids)]
    with pytest.raises(ValueError, match=str(n_rows)):
        score_prompts(np.eye(n_rows), [0.5] * n_rates, ids)


@pytest.mark.parametrize("shape", [(3,), (3, 2, 1)])
def test_rows_of_another_shape_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"expected \(n, k\)"):
        score_prompts(np.ones(shape), [0.5] * 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused_by_name(bad: float) -> None:
    """A single NaN reaches every score through the mean: the row to blame is still the one that holds it."""
    rows = np.eye(3)
    rows[1, 2] = bad
    with np.errstate(invalid="ignore"), pytest.raises(ValueError, match=r"row 1 \(b\) holds NaN or Inf"):
        score_prompts(rows, [0.5] * 3, ["a", "b", "c"], block_rows=1)


def test_rows_of_an_array_are_numbered_so_that_texts_sort_as_numbers() -> None:
    ids = score_prompts(np.eye(11), [0.5] * 11).prompt_ids
    assert ids == tuple(sorted(ids)) == tuple(f"{i:02d}" for i in range(11))


def test_ranks_by_hand() -> None:
    """.3 is best; the two .1 go by name; the lowest comes last."""
    assert rank_scores(np.array([0.1, 0.3, -0.5, 0.1]), ["z", "y", "x", "w"]).tolist() == [3, 1, 4, 2]


def test_no_prompts_have_no_scores() -> None:
    assert score_prompts(np.zeros((0, 4)), []).score.tolist() == []


def store_of(folder: Path, n: int, k: int) -> GradientStore:
    """A complete store of n rows, filled without flushing row by row."""
    folder.mkdir()
    StoreWriter.open(folder, [f"train-{i:06d}" for i in range(n)], k).close()
    np.lib.format.open_memmap(folder / "projected.npy", mode="r+")[:, 0] = 1.0
    np.lib.format.open_memmap(folder / "written.npy", mode="r+")[:] = 1
    return open_store(folder)


def score_peak_bytes(store: GradientStore) -> int:
    rates = np.full(len(store), 0.5)
    tracemalloc.start()
    score_prompts(store, rates)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_does_not_grow_with_the_store(tmp_path: Path) -> None:
    """At k = 256 a block of 1,024 rows is 2 MiB in float64; 14,000 rows more would be 28 MB of it.

    What may grow is O(n): arrays of a few numbers a prompt and its name, here less than 300 bytes a prompt.
    """
    small, large = (score_peak_bytes(store_of(tmp_path / str(n), n, 256)) for n in (2_000, 16_000))
    assert small < 10 * 2**20
    assert large - small < 14_000 * 300


def test_memory_of_a_block_is_what_the_docstring_says(tmp_path: Path) -> None:
    """`block_rows` rows of 8 k bytes at a time; beside it a float32 copy (4 k) and one product (8 k)."""
    store = store_of(tmp_path / "store", 4_096, 256)
    rates = np.full(len(store), 0.5)
    tracemalloc.start()
    score_prompts(store, rates, block_rows=64)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4_096 * 300 + 64 * 256 * (8 + 4 + 8) * 2
