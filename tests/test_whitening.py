"""Whitened scores by hand and against the formula word by word, in both forms, and what they cost."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from lean_align.artifacts import read_json
from lean_align.errors import RecipeError, StaleStageError
from lean_align.recipe import load_recipe
from lean_align.scoring import score_prompts
from lean_align.scoring.row_chunks import Chunks, as_source
from lean_align.scoring.tiles import TILE, LowerTiles
from lean_align.scoring.whitening import GRAM, SECOND_MOMENT, Aim, WhitenedScores, whitened_scores
from lean_align.stages import run
from lean_align.store import StoreWriter, open_store

Array = NDArray[np.float64]
FORMS = (SECOND_MOMENT, GRAM)


def by_the_formula(
    rows: Array,
    v: Array,
    mean: Array | None = None,
    own: dict[int, Array] | None = None,
    ridge: float = 0.002,
    leave_one_out: bool = True,
) -> Array:
    """V_i u_i^T (C + lambda I)^-1 m, one solve a prompt; left out, prompt i is in neither sum."""
    n, k = rows.shape
    weights = v / n
    trace = float((weights * (rows**2).sum(axis=1)).sum())
    score = np.zeros(n)
    for i in range(n):
        kept = weights.copy()
        kept[i] = 0 if leave_one_out else kept[i]
        m = kept @ rows if mean is None else mean - (own or {}).get(i, np.zeros(k))
        if v[i] and trace:
            score[i] = v[i] * rows[i] @ np.linalg.solve((rows.T * kept) @ rows + ridge * trace * np.eye(k), m)
    return score


def cases() -> dict[str, tuple[Array, Array]]:
    """Rows and V by name; the rows' directions are shared in part, as gradients' are."""
    rng = np.random.default_rng(0)

    def unit(n: int, k: int, shared: float = 0.3) -> Array:
        rows = rng.normal(size=(n, k)) / np.sqrt(k) + shared * rng.normal(size=k) / np.sqrt(k)
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    def levels(n: int) -> Array:
        p = rng.integers(0, 9, n) / 8
        return p * (1 - p)

    low_rank = rng.normal(size=(150, 5)) @ rng.normal(size=(5, 90))
    copies = np.repeat(unit(40, 100), 3, axis=0)
    return {
        "fewer rows than columns": (unit(90, 200), levels(90)),
        "more rows than columns": (unit(300, 70), levels(300)),
        "as many": (unit(64, 64), np.full(64, 0.25)),
        "one": (unit(1, 3), np.array([0.25])),
        "rank 5": (low_rank / np.linalg.norm(low_rank, axis=1, keepdims=True), levels(150)),
        "every row three times": (copies, np.repeat(levels(40), 3)),
        "one direction": (np.tile(unit(1, 80), (70, 1)), np.full(70, 0.25)),
        "zero rows among them": (unit(100, 80) * (rng.random((100, 1)) < 0.6), np.full(100, 0.1875)),
        "large rows": (1e120 * unit(100, 80), levels(100)),
        "small rows": (1e-120 * unit(80, 100), levels(80)),
        "estimates up to 1/2": (unit(130, 100), rng.choice([0, 1 / 3, 0.5], 130)),
        "more than a strip of tiles": (unit(600, 40), np.full(600, 0.25)),
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leave_one_out", [True, False])
@pytest.mark.parametrize("name", cases())
def test_both_forms_are_the_formula(name: str, leave_one_out: bool, form: str) -> None:
    """To 1e-8 of the largest score; large and small rows by the same rows of length 1, which score the same."""
    rows, v = cases()[name]
    by_hand = rows / max(1e-300, np.abs(rows).max()) if "rows" in name and "zero" not in name else rows
    expected = by_the_formula(by_hand, v, leave_one_out=leave_one_out)
    found = whitened_scores(rows, v, leave_one_out=leave_one_out, form=form)
    assert found.form == form
    np.testing.assert_allclose(found.score, expected, rtol=0, atol=1e-8 * np.abs(expected).max())
    assert (found.score[v == 0] == 0).all()


@pytest.mark.parametrize("ridge", [1e-4, 0.1, 1e4])
@pytest.mark.parametrize("name", ["rank 5", "fewer rows than columns", "every row three times"])
def test_the_forms_agree_whatever_the_ridge(name: str, ridge: float) -> None:
    """To 1e-6 of each score but for those near 0, which are held to 1e-9 of the largest."""
    rows, v = cases()[name]
    one, other = (whitened_scores(rows, v, ridge=ridge, form=form).score for form in FORMS)
    np.testing.assert_allclose(one, other, rtol=1e-6, atol=1e-9 * np.abs(one).max())
    expected = by_the_formula(rows, v, ridge=ridge)
    np.testing.assert_allclose(one, expected, rtol=1e-6, atol=1e-9 * np.abs(one).max())


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("leave_one_out", [True, False])
def test_a_mean_of_elsewhere_and_prompts_in_both(leave_one_out: bool, form: str) -> None:
    """Rows 3, 70 and 130 are in the target too; row 5 has V = 0, and its term is of no use."""
    rng = np.random.default_rng(1)
    rows, v = rng.normal(size=(140, 90)), np.full(140, 0.25)
    v[5] = 0
    target = rng.normal(size=(20, 90))
    own = {row: 0.25 * target[j] / 20 for j, row in enumerate((3, 5, 70, 130))}
    mean = 0.25 * target.mean(axis=0)
    expected = by_the_formula(rows, v, mean, own, leave_one_out=leave_one_out)
    found = whitened_scores(rows, v, Aim(mean, own), leave_one_out=leave_one_out, form=form).score
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())
    without = whitened_scores(rows, v, Aim(mean), leave_one_out=leave_one_out, form=form).score
    assert np.flatnonzero(np.abs(without - found) > 1e-9).tolist() == [3, 70, 130]


def test_more_prompts_in_both_than_a_tile_has_columns() -> None:
    rng = np.random.default_rng(2)
    rows, v = rng.normal(size=(100, 20)), np.full(100, 0.25)
    own = {row: rng.normal(size=20) for row in range(80)}
    mean = rng.normal(size=20)
    for form in FORMS:
        found = whitened_scores(rows, v, Aim(mean, own), form=form).score
        np.testing.assert_allclose(found, by_the_formula(rows, v, mean, own), rtol=1e-8)


def test_three_prompts_by_hand() -> None:
    """u = e1, e1, e2 and V = 1/4: C = diag(2/12, 1/12), trace 1/4, m = (2/12, 1/12); ridge 1, so that lambda = 1/4.

    All in: e1: (2/12) / (2/12 + 3/12) = 2/5; e2: (1/12) / (4/12) = 1/4; times V: 1/10, 1/10, 1/16.
    Left out: the other e1 alone, (1/12) / (1/12 + 3/12) = 1/4, times V 1/16; for e2 nothing is left.
    """
    rows = np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    for form in FORMS:
        all_in = whitened_scores(rows, [0.25] * 3, ridge=1.0, leave_one_out=False, form=form)
        np.testing.assert_allclose(all_in.score, [0.1, 0.1, 0.0625], rtol=1e-12)
        left_out = whitened_scores(rows, [0.25] * 3, ridge=1.0, form=form)
        np.testing.assert_allclose(left_out.score, [0.0625, 0.0625, 0.0], rtol=1e-12, atol=1e-15)


def test_left_in_every_prompt_votes_for_itself() -> None:
    """More dimensions than prompts, a small ridge: all fitted values are nearly 1, and the order is that of V.

    20 prompts of one direction and 20 of directions of their own.  Left out, only the first are predicted.
    """
    rng = np.random.default_rng(3)
    rows = np.vstack([np.eye(1600)[0] + 0.025 * rng.normal(size=(20, 1600)), rng.normal(size=(20, 1600))])
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    v = np.full(40, 0.25)
    left_in = whitened_scores(rows, v, ridge=1e-4, leave_one_out=False).score
    assert (left_in > 0.99 * 0.25).all()
    left_out = whitened_scores(rows, v, ridge=1e-4).score
    assert left_out[:20].min() > 0.15 > np.abs(left_out[20:]).max()


def test_a_direction_that_many_share_counts_once() -> None:
    """60 prompts of one direction and 20 of another.  LearnAlign gives the first three times the score."""
    rng = np.random.default_rng(4)
    rows = np.vstack([np.tile(np.eye(100)[0], (60, 1)), np.tile(np.eye(100)[1], (20, 1))])
    rows = rows + 0.02 * rng.normal(size=rows.shape)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    plain, whitened = score_prompts(rows, [0.5] * 80).score, whitened_scores(rows, [0.25] * 80).score
    assert plain[:60].mean() / plain[60:].mean() > 2.5
    assert whitened[:60].mean() / whitened[60:].mean() < 1.1


def test_a_large_ridge_gives_the_order_of_learnalign_without_itself() -> None:
    rows, v = cases()["fewer rows than columns"]
    p = 0.5 - np.sqrt(0.25 - v)
    loo = score_prompts(rows, p).leave_one_out
    whitened = whitened_scores(rows, v, ridge=1e4).score
    np.testing.assert_allclose(whitened / whitened.max(), loo / loo.max(), rtol=0, atol=1e-3)


def test_the_smaller_matrix_is_taken() -> None:
    """Only rows of V > 0 count: 5 of 20 with 10 columns."""
    rows, v = np.random.default_rng(5).normal(size=(20, 10)), np.zeros(20)
    v[:5] = 0.25
    found = whitened_scores(rows, v)
    assert (found.form, found.n_rows, found.ridge, found.leave_one_out) == (GRAM, 5, 0.002, True)
    assert whitened_scores(rows, np.full(20, 0.25)).form == SECOND_MOMENT
    assert whitened_scores(rows[:, :5], v).form == SECOND_MOMENT  # k = n'


def test_nothing_to_score() -> None:
    assert whitened_scores(np.zeros((0, 4)), []).score.tolist() == []
    for form in FORMS:
        assert whitened_scores(np.eye(3), [0, 0, 0], form=form).score.tolist() == [0.0] * 3
        assert whitened_scores(np.zeros((3, 2)), [0.25] * 3, form=form).score.tolist() == [0.0] * 3


def test_prompts_that_are_alike_tie() -> None:
    """The same row and V at ten places of 200, in different tiles."""
    rng = np.random.default_rng(6)
    rows, v = rng.normal(size=(200, 150)), rng.choice([0.1, 0.2], 200)
    places = np.arange(0, 200, 20)
    rows[places], v[places] = rows[0], v[0]
    for form in FORMS:
        assert len(set(whitened_scores(rows, v, form=form).score[places].tolist())) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"learnability": [0.25, 0.25]}, r"learnability has shape \(2,\); expected \(3,\)"),
        ({"learnability": [0.25, np.nan, 0.25]}, "one finite number per row"),
        ({"learnability": [0.25, -0.125, 0.25]}, r"row 1 \(1\) is -0.125; whitening expects 0 or more"),
        ({"ridge": 1e-5}, r"ridge is 1e-05; expected a multiple of trace\(C\) in \[0.0001, 10000\]"),
        ({"ridge": np.nan}, "ridge is nan"),
        ({"form": "dense"}, "form is 'dense'; expected 'second moment', 'gram' or None"),
        ({"aim": Aim([1.0, 2.0, 3.0])}, r"the mean has shape \(3,\); expected \(2,\)"),
        ({"aim": Aim([1.0, np.inf])}, "finite numbers"),
        ({"aim": Aim([1.0, 2.0], {0: [1.0]})}, r"shape \(1,\); expected \(2,\)"),
        ({"rows": [[1, 0], [0, 1], [np.nan, 0]]}, r"row 2 \(2\) holds NaN or Inf"),
        ({"rows": [[1, 0], [0, 1], [0, np.inf]], "learnability": [0.25, 0.25, 0]}, r"row 2 \(2\) holds NaN or Inf"),
    ],
)
def test_what_is_no_input_is_refused(change: dict[str, object], message: str) -> None:
    given = {"rows": np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]]), "learnability": [0.25] * 3, **change}
    with pytest.raises(ValueError, match=message):
        whitened_scores(**given)  # type: ignore[arg-type]


def random_store(folder: Path, n: int, k: int) -> tuple[object, Array]:
    rng = np.random.default_rng(7)
    p = rng.integers(0, 9, n) / 8
    with StoreWriter.open(folder, [f"p-{i:04d}" for i in range(n)], k) as writer:
        for row in range(n):
            writer.write(row, (rng.normal(size=k) + 0.3 * np.sin(np.arange(k))) * (0 < p[row] < 1))
    return open_store(folder), p * (1 - p)


@pytest.mark.parametrize("k", [96, 300])
def test_a_store_is_read_as_its_rows_in_float64(tmp_path: Path, k: int) -> None:
    store, v = random_store(tmp_path / "store", 200, k)
    rows = np.asarray(store.rows, dtype=np.float64)  # type: ignore[attr-defined]
    expected = by_the_formula(rows, v)
    for form in FORMS:
        found = whitened_scores(store, v, form=form).score  # type: ignore[arg-type]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9 * np.abs(expected).max())


@pytest.mark.parametrize("form", FORMS)
def test_threads_and_blocks_change_no_bit(tmp_path: Path, form: str) -> None:
    store, v = random_store(tmp_path / "store", 400, 200)
    once = whitened_scores(store, v, form=form, threads=1)  # type: ignore[arg-type]
    for threads, block_rows in ((5, None), (2, 7), (1, 1000)):
        again = whitened_scores(store, v, form=form, threads=threads, block_rows=block_rows)  # type: ignore[arg-type]
        np.testing.assert_array_equal(again.score, once.score)


def test_the_number_of_blas_threads_changes_no_bit() -> None:
    """In processes of their own: BLAS reads the number as it is loaded."""
    code = """if True:
        import hashlib, numpy as np
        from lean_align.scoring.whitening import whitened_scores
        rng = np.random.default_rng(0)
        rows, v = rng.normal(size=(400, 300)), rng.choice([0.1, 0.2], 400)
        for form in ("second moment", "gram"):
            print(hashlib.sha256(whitened_scores(rows, v, form=form).score.tobytes()).hexdigest())
    """
    found = set()
    for threads in ("1", "4"):
        names = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), threads)
        done = subprocess.run(
            [sys.executable, "-c", code], check=True, capture_output=True, text=True, env={**os.environ, **names}
        )
        found.add(done.stdout)
    assert len(found) == 1


def test_memory_is_what_the_docstring_says(tmp_path: Path) -> None:
    """n' = 1,280, k = 256, one thread: a packed matrix of 4 d (d + 64) bytes, and not a square one of 8 d^2.

    Beside it 512 d of inverses, 2,048 d a thread, 8,192 k of a strip, and a chunk of 6 bytes a number.
    """
    n, k = 1280, 256
    folder = tmp_path / "store"
    folder.mkdir()
    StoreWriter.open(folder, [str(i) for i in range(n)], k).close()
    stored = np.lib.format.open_memmap(folder / "projected.npy", mode="r+")
    stored[:] = np.random.default_rng(8).normal(size=(n, k)) / np.sqrt(k)
    np.lib.format.open_memmap(folder / "written.npy", mode="r+")[:] = 1
    store = open_store(folder)
    tracemalloc.start()
    whitened_scores(store, np.full(n, 0.25), form=GRAM, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    stated = 4 * n * (n + 64) + 512 * n + 2048 * n + 6 * 2**19 + 8192 * k
    assert peak < stated + 2**20
    assert stated + 2**20 < peak + 8 * n**2 - 4 * n * (n + 64)  # the bound would see a square matrix


def test_rows_are_gathered_wherever_they_lie(tmp_path: Path) -> None:
    store, _ = random_store(tmp_path / "store", 50, 9)
    places = np.array([0, 1, 17, 30, 31, 49])
    for source in (store, as_source(np.asarray(store.rows, np.float64), None), store.first(9)):  # type: ignore
        for block_rows in (1, 7, 100):
            out = np.empty((6, 9))
            Chunks(source, block_rows).gather(places, out)
            expected = np.vstack([block for _, block in source.blocks()]) if hasattr(source, "blocks") else source.array
            np.testing.assert_array_equal(out, expected[places].astype(np.float64))


@pytest.mark.parametrize("size", [1, 63, 64, 65, 200])
def test_the_factor_is_that_of_lapack(size: int) -> None:
    rng = np.random.default_rng(size)
    half = rng.normal(size=(size, size + 5))
    dense = half @ half.T
    matrix = LowerTiles(size)
    padded = np.zeros((matrix.count * TILE, matrix.count * TILE))
    padded[:size, :size] = dense
    for i in range(matrix.count):
        for j in range(i + 1):
            matrix.row(i)[j] = padded[i * TILE : (i + 1) * TILE, j * TILE : (j + 1) * TILE]
    assert matrix.trace() == pytest.approx(np.trace(dense))
    matrix.add_to_diagonal(0.5)
    with ThreadPoolExecutor(2) as pool:
        matrix.factor(pool)
    columns = np.zeros((matrix.count * TILE, 3))
    columns[:size] = rng.normal(size=(size, 3))
    expected = np.linalg.solve(np.linalg.cholesky(dense + 0.5 * np.eye(size)), columns[:size])
    found = matrix.solve(columns.reshape(matrix.count, TILE, 3).copy()).reshape(-1, 3)
    np.testing.assert_allclose(found[:size], expected, rtol=1e-9)


def test_a_matrix_that_is_not_positive_definite_is_refused() -> None:
    matrix = LowerTiles(70)
    matrix.add_to_diagonal(1.0)
    matrix.row(1)[1][3, 3] = -1.0
    with (
        ThreadPoolExecutor(1) as pool,
        pytest.raises(ValueError, match=r"not positive definite: a pivot is -1\. Raise"),
    ):
        matrix.factor(pool)


def test_a_choice_depends_on_the_ridge_where_its_method_has_one(tmp_path: Path, fake_stages: object) -> None:
    """At the default the stage is one that was made before the key was there; another value makes it stale."""
    for method in ("learnalign-whitened", "learnalign"):
        settings = {"selection.method": method, "selection.n": 10, "gradients.second_seed": False}
        run_dir = tmp_path / method
        run(load_recipe("demo", settings), run_dir, stop_after="select")
        manifest = read_json(run_dir / "selection" / "manifest.json")
        assert "selection.whiten_ridge" not in manifest["inputs"]["recipe"]
        other = load_recipe("demo", {**settings, "selection.whiten_ridge": 0.1})
        if method == "learnalign":
            run(other, run_dir, stop_after="select")
        else:
            assert "whitened with lambda = 0.002 trace(C)" in manifest["counts"]["explanation"]
            with pytest.raises(StaleStageError, match=r"selection\.whiten_ridge: not recorded -> 0\.1"):
                run(other, run_dir, stop_after="select")


def test_the_recipes_ridge_is_the_methods(tmp_path: Path, fake_stages: object) -> None:
    settings = {"selection.method": "learnalign-whitened", "selection.n": 10, "selection.whiten_ridge": 5.0}
    run(load_recipe("demo", settings), tmp_path, stop_after="select")
    assert "lambda = 5 trace(C)" in read_json(tmp_path / "selection" / "manifest.json")["counts"]["explanation"]
    with pytest.raises(RecipeError, match=r"selection\.whiten_ridge is 1e-05; expected at least 0\.0001"):
        load_recipe("demo", {"selection.whiten_ridge": 1e-5})


def test_a_wrong_formula_would_be_seen() -> None:
    """The check itself: the prompt left in, or the pool's mean not corrected, is 1e-3 off and more."""
    rows, v = cases()["more rows than columns"]
    right = by_the_formula(rows, v)
    left_in = whitened_scores(rows, v, leave_one_out=False)
    uncorrected = whitened_scores(rows, v, Aim(v @ rows / len(v)))
    for wrong in (left_in, uncorrected, replace(left_in, score=1.001 * right)):
        assert isinstance(wrong, WhitenedScores)
        assert np.abs(wrong.score - right).max() > 9e-4 * np.abs(right).max()
