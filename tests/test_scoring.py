"""The score by hand, what is refused, and what it costs in memory."""

from __future__ import annotations

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lean_align.errors import StoreError
from lean_align.scoring import learnability, rank_scores, score_prompts
from lean_align.scoring.row_chunks import CHUNK_ELEMENTS, TASK_CHUNKS, Chunks
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


def random_store(folder: Path, n: int, k: int, seed: int = 0) -> tuple[GradientStore, np.ndarray]:
    """A store of random rows that share a direction, and success rates with zeros among them."""
    rng = np.random.default_rng(seed)
    rates = rng.integers(0, 9, n) / 8
    with StoreWriter.open(folder, [f"p-{i:05d}" for i in range(n)], k) as writer:
        for row in range(n):
            gradient = rng.normal(size=k) + 0.3 * np.sin(np.arange(k))
            writer.write(row, gradient * (0 < rates[row] < 1))
    return open_store(folder), rates


def dense(rows: np.ndarray, rates: np.ndarray) -> np.ndarray:
    v = rates * (1 - rates)
    return np.outer(v, v) * (rows @ rows.T)


@pytest.mark.parametrize(("n", "k"), [(1, 3), (2, 1), (37, 40), (700, 513), (33, 20_000)])
def test_a_store_scores_as_the_matrix_in_float64(tmp_path: Path, n: int, k: int) -> None:
    """To 1e-6 of the largest score, self term left out or not; 20,000 columns are more than one dot product takes."""
    store, rates = random_store(tmp_path / "store", n, k)
    matrix = dense(store.rows.astype(np.float64), rates)
    largest = max(np.abs(matrix.mean(axis=1)).max(), 1e-12)
    scores = score_prompts(store, rates)
    np.testing.assert_allclose(scores.score, matrix.mean(axis=1), rtol=0, atol=1e-6 * largest)
    without_self = (matrix.sum(axis=1) - matrix.diagonal()) / max(1, n - 1)
    np.testing.assert_allclose(scores.leave_one_out, without_self, rtol=0, atol=1e-6 * largest)


def test_neither_threads_nor_their_number_change_a_bit(tmp_path: Path) -> None:
    store, rates = random_store(tmp_path / "store", 5_000, 1_024)
    assert len(store) > TASK_CHUNKS * CHUNK_ELEMENTS // 1_024  # more than one task
    one, many = (score_prompts(store, rates, threads=threads) for threads in (1, 5))
    np.testing.assert_array_equal(one.score, many.score)
    np.testing.assert_array_equal(one.leave_one_out, many.leave_one_out)


@pytest.mark.parametrize("block_rows", [1, 7, 64, 1000])
def test_the_block_size_moves_scores_of_a_store_by_rounding_only(tmp_path: Path, block_rows: int) -> None:
    store, rates = random_store(tmp_path / "store", 500, 96)
    whole, blocks = score_prompts(store, rates), score_prompts(store, rates, block_rows=block_rows)
    np.testing.assert_allclose(blocks.score, whole.score, rtol=0, atol=1e-6 * np.abs(whole.score).max())


def test_leave_one_out_by_hand() -> None:
    """Rows of `test_four_prompts_by_hand`: 4 score - V^2 = .0625 - .0625; .1 - .0625; 0; .0375; by 3."""
    scores = score_prompts(UNIT_ROWS, SUCCESS_RATE)
    np.testing.assert_allclose(scores.leave_one_out, [0.0, 0.0125, 0.0, 0.0125], rtol=0, atol=1e-15)


def test_a_single_prompt_has_no_other() -> None:
    assert score_prompts([[1.0, 0.0]], [0.5]).leave_one_out.tolist() == [0.0]


def test_every_float16_is_widened_exactly(tmp_path: Path) -> None:
    """All 63,488 finite numbers, subnormals and both zeros among them."""
    halves = np.arange(65_536, dtype=np.uint16).view(np.float16)
    halves = halves[np.isfinite(halves)].reshape(-1, 256)
    StoreWriter.open(tmp_path, [str(i) for i in range(len(halves))], 256).close()
    np.lib.format.open_memmap(tmp_path / "projected.npy", mode="r+")[:] = halves
    chunks = Chunks(GradientStore(tmp_path), block_rows=len(halves))
    wide = chunks.load(0, check=True).astype(np.float64) / chunks.scale
    np.testing.assert_array_equal(wide, halves.astype(np.float64))
    assert np.array_equal(np.signbit(wide), np.signbit(halves))


@pytest.mark.parametrize("bad", [np.nan, -np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rate", [0.5, 0.0, 1e-9])
def test_a_row_of_a_store_that_is_not_finite_is_refused_by_name(tmp_path: Path, bad: float, rate: float) -> None:
    store, _ = random_store(tmp_path / "store", 40, 12)
    np.lib.format.open_memmap(tmp_path / "store" / "projected.npy", mode="r+")[23, 5] = bad
    rates = np.full(40, 0.5)
    rates[23] = rate
    with pytest.raises(ValueError, match=r"row 23 \(p-00023\) holds NaN or Inf"):
        score_prompts(store, rates)


def test_rows_far_longer_than_1_are_no_error(tmp_path: Path) -> None:
    """They make the quick look for Inf look twice."""
    store, rates = random_store(tmp_path / "store", 40, 12)
    np.lib.format.open_memmap(tmp_path / "store" / "projected.npy", mode="r+")[:] *= np.float16(50_000)
    matrix = dense(store.rows.astype(np.float64), rates)
    np.testing.assert_allclose(
        score_prompts(store, rates).score, matrix.mean(axis=1), rtol=0, atol=1e-6 * np.abs(matrix.mean(axis=1)).max()
    )


def test_the_first_columns_score_as_rows_of_their_own(tmp_path: Path) -> None:
    store, rates = random_store(tmp_path / "store", 60, 40)
    part = store.rows[:, :9].astype(np.float64)
    norms = np.linalg.norm(part, axis=1, keepdims=True)
    unit = np.divide(part, norms, out=np.zeros_like(part), where=norms > 0)
    first = store.first(9)
    assert (len(first), first.proj_dim, first.prompt_ids) == (60, 9, store.prompt_ids)
    np.testing.assert_allclose(np.concatenate([b for _, b in first.blocks(7)]), unit, rtol=0, atol=1e-6)
    expected = dense(unit, rates).mean(axis=1)
    np.testing.assert_allclose(score_prompts(first, rates).score, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    with pytest.raises(StoreError, match="proj_dim is 41; expected 1 to 40"):
        store.first(41)


@pytest.mark.parametrize(("kind", "refused"), [("sjlt", True), ("trak", True), ("rademacher", False), (None, False)])
@pytest.mark.parametrize("second", [False, True])
def test_the_first_columns_of_another_kind_are_refused(tmp_path: Path, kind: str | None, refused: bool, second: bool):
    folder = tmp_path / "gradients" / "second_seed" if second else tmp_path / "gradients"
    store, _ = random_store(folder, 6, 8)
    if kind is not None:
        fingerprints = {"second_projection" if second else "projection": {"kind": kind}}
        (tmp_path / "gradients" / "projection.json").write_text(json.dumps(fingerprints))
    if refused:
        with pytest.raises(StoreError, match=f"rows of {kind}, whose first 4 columns.*expected rademacher"):
            store.first(4)
    else:
        assert store.first(4).proj_dim == 4


def test_mapped_pages_do_not_pile_up(tmp_path: Path) -> None:
    """Peak of the resident set, mapped pages counted: 64 MiB of rows may add a few MiB."""
    store_of(tmp_path / "store", 4_096, 8_192)
    code = (
        "import sys, numpy as np\n"
        "from lean_align.memory import peak_rss_bytes\n"
        "from lean_align.scoring import score_prompts\n"
        "from lean_align.store import open_store\n"
        "store = open_store(sys.argv[1])\n"
        "before = peak_rss_bytes()\n"
        "score_prompts(store, np.full(len(store), 0.5), threads=2)\n"
        "print(peak_rss_bytes() - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "store"], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 20 * 2**20
