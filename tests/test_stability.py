"""How stable a selection is: the bootstrap against its definition, and what changes between two scorings."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from lean_align.rng import rng_for
from lean_align.scoring import rank_correlation, score_prompts, selection_change, selection_stability
from lean_align.store import StoreWriter, open_store
from lean_align.types import Scores


def pool(n: int, k: int, seed: int = 0, noise: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Unit rows that share a direction to different degrees, and success rates with zeros among them."""
    rng = np.random.default_rng(seed)
    rates = rng.integers(0, 9, n) / 8
    rows = noise * rng.normal(size=(n, k)) + rng.uniform(0, 2, (n, 1)) * np.ones(k)
    rows *= ((rates > 0) & (rates < 1))[:, None]
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, norms, out=np.zeros_like(rows), where=norms > 0), rates


def best(score: np.ndarray, n: int) -> set[int]:
    return set(sorted(range(len(score)), key=lambda i: (-score[i], i))[:n])


def by_definition(rows: np.ndarray, rates: np.ndarray, n: int, replicates: int, seed: int) -> list[set[int]]:
    """The n best of each replicate, with the matrix of pairs and prompts counted as often as they are drawn."""
    v = rates * (1 - rates)
    matrix = np.outer(v, v) * (rows @ rows.T)
    drawn = [rng_for(seed, "bootstrap", b).integers(len(v), size=len(v)) for b in range(replicates)]
    return [best(matrix[:, js].mean(axis=1), n) for js in drawn]


@pytest.mark.parametrize(("size", "k", "n"), [(30, 5, 7), (100, 12, 10), (9, 4, 9), (1, 2, 1)])
def test_the_bootstrap_is_its_definition(size: int, k: int, n: int) -> None:
    rows, rates = pool(size, k)
    found = selection_stability(rows, rates, n, n_bootstrap=20, seed=3)
    expected = by_definition(rows, rates, n, 20, 3)
    whole = best(score_prompts(rows, rates).score, n)
    np.testing.assert_allclose(found.overlap, [len(chosen & whole) / n for chosen in expected])
    inclusion = [sum(i in chosen for chosen in expected) / 20 for i in range(size)]
    np.testing.assert_allclose(found.inclusion, inclusion)
    assert found.mean_overlap == found.overlap.mean()
    assert found.low_overlap == np.quantile(found.overlap, 0.05) <= found.mean_overlap
    assert found.n == n


def test_another_seed_draws_others() -> None:
    rows, rates = pool(60, 6)
    one, again, other = (selection_stability(rows, rates, 10, seed=seed).overlap.tolist() for seed in (0, 0, 1))
    assert one == again != other


def test_a_store_is_as_stable_as_its_rows(tmp_path: Path) -> None:
    rows, rates = pool(200, 32, noise=3.0)
    with StoreWriter.open(tmp_path, [f"p-{i:03d}" for i in range(200)], 32) as writer:
        for row, vector in enumerate(rows):
            writer.write(row, vector)
    store = open_store(tmp_path)
    from_store = selection_stability(store, rates, 40, threads=2)
    from_array = selection_stability(store.rows.astype(np.float64), rates, 40)
    np.testing.assert_allclose(from_store.overlap, from_array.overlap, atol=1.01 / 40)  # a tie in float32 may flip
    assert 0 < from_store.mean_overlap < 1


def test_a_shared_direction_is_stable_and_noise_is_not() -> None:
    stable, noisy = (selection_stability(*pool(300, 64, noise=noise), 60).mean_overlap for noise in (0.2, 100.0))
    assert noisy < 0.8 < stable


@pytest.mark.parametrize(("n", "replicates"), [(0, 4), (31, 4), (5, 0)])
def test_numbers_out_of_range_are_refused(n: int, replicates: int) -> None:
    with pytest.raises(ValueError, match="expected 1 to 30 and at least 1"):
        selection_stability(*pool(30, 3), n, replicates)


def test_rates_for_other_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="got 2 success rates for 3 rows"):
        selection_stability(np.eye(3), [0.5, 0.5], 1)


def test_memory_is_what_the_docstring_says(tmp_path: Path) -> None:
    """12 (B + 1) bytes a prompt and short-lived copies of them; rows would add 1,024 a prompt."""
    n, k = 20_000, 512
    StoreWriter.open(tmp_path, [f"p-{i:06d}" for i in range(n)], k).close()
    np.lib.format.open_memmap(tmp_path / "written.npy", mode="r+")[:] = 1
    store = open_store(tmp_path)
    tracemalloc.start()
    selection_stability(store, np.full(n, 0.5), 100, n_bootstrap=8, threads=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < n * (12 + 8 + 8) * 9 + 6 * 9 * k * 8 + 4 * 2**20


def scores_of(values: list[float], ids: tuple[str, ...] = ("a", "b", "c", "d")) -> Scores:
    score = np.array(values)
    order = np.argsort(np.argsort(-score, kind="stable"), kind="stable") + 1
    v = np.where(score == 0, 0.0, 0.25)
    return Scores(ids, np.full(len(score), 0.5), v, score, score, order, score)


def test_what_changes_between_two_scorings_by_hand() -> None:
    """The best two are a, b and b, c: half of them changes; of the best three one in three; of all none."""
    one, other = scores_of([4.0, 3.0, 2.0, 1.0]), scores_of([0.5, 3.0, 2.0, 1.0])
    assert [selection_change(one, other, n) for n in (1, 2, 4)] == [1.0, 0.5, 0.0]
    assert selection_change(one, other, 3) == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="different prompts"):
        selection_change(one, scores_of([1.0, 2.0], ("a", "b")), 1)


def test_rank_correlation_by_hand() -> None:
    """Over a, b, d (c has learnability 0): ranks 1 2 3 against 2 1 3: 1 - 6 * 2 / (3 * 8) = 1/2."""
    one, other = scores_of([4.0, 3.0, 0.0, 1.0]), scores_of([3.0, 4.0, 0.0, 1.0])
    assert rank_correlation(one, other) == pytest.approx(0.5)
    assert rank_correlation(one, one) == pytest.approx(1.0)
    assert rank_correlation(scores_of([4.0, 0, 0, 0]), scores_of([4.0, 0, 0, 0])) is None
