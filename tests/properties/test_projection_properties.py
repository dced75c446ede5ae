"""The projection is linear, unbiased, as exact as the theory says, and the same whatever way it is fed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.projection import SjltProjector, make_projector

FEW = settings(max_examples=30, deadline=None)
SEEDS = st.integers(0, 2**40)


@st.composite
def parameters(draw: st.DrawFn) -> dict[str, torch.Tensor]:
    """Gradients of a few named parameters, of whole numbers: their sums are exact in any order."""
    names = draw(st.lists(st.text("abAB./_", min_size=1, max_size=6), unique=True, min_size=1, max_size=5))
    rng = np.random.default_rng(draw(SEEDS))
    shapes = [draw(st.sampled_from([(1,), (7,), (3, 4), (2, 3, 2)])) for _ in names]
    return {
        name: torch.from_numpy(rng.integers(-1000, 1000, size=shape).astype(np.float64))
        for name, shape in zip(names, shapes)
    }


def sizes_of(gradients: dict[str, torch.Tensor]) -> dict[str, int]:
    return {name: gradient.numel() for name, gradient in gradients.items()}


def flat(gradients: dict[str, torch.Tensor]) -> torch.Tensor:
    return torch.cat([gradient.reshape(-1) for gradient in gradients.values()])


@FEW
@given(st.integers(1, 300), st.integers(1, 40), SEEDS, st.floats(-100, 100), st.floats(-100, 100))
def test_projecting_is_linear(grad_dim: int, proj_dim: int, seed: int, a: float, b: float) -> None:
    project = make_projector("sjlt", grad_dim, proj_dim, seed).project
    x, y = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, grad_dim)))
    torch.testing.assert_close(project(a * x + b * y), a * project(x) + b * project(y), rtol=0, atol=1e-9)


@FEW
@given(parameters(), st.integers(1, 50), SEEDS, st.randoms(use_true_random=False))
def test_parameter_by_parameter_in_any_order_equals_flat(
    gradients: dict[str, torch.Tensor], proj_dim: int, seed: int, random: object
) -> None:
    names = list(gradients)
    random.shuffle(names)  # type: ignore[attr-defined]
    whole = make_projector("sjlt", sizes_of(gradients), proj_dim, seed).project(flat(gradients))
    projector = make_projector("sjlt", {name: gradients[name].numel() for name in names}, proj_dim, seed)
    row = torch.zeros(proj_dim, dtype=torch.float64)
    for name in reversed(names):
        projector.add_to(row, name, gradients[name])
    assert torch.equal(row, whole)
    assert torch.equal(projector.project(flat({name: gradients[name] for name in names})), whole)


@FEW
@given(parameters(), SEEDS)
def test_a_parameter_projects_the_same_whatever_stands_beside_it(gradients: dict[str, torch.Tensor], seed: int) -> None:
    together = make_projector("sjlt", sizes_of(gradients), 16, seed)
    total = torch.zeros(16, dtype=torch.float64)
    for name, gradient in gradients.items():
        total += make_projector("sjlt", {name: gradient.numel()}, 16, seed).project(gradient.reshape(-1))
    assert torch.equal(together.project(flat(gradients)), total)


@FEW
@given(st.integers(1, 6), st.integers(1, 100), st.integers(1, 20), SEEDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(n: int, grad_dim: int, proj_dim: int, seed: int) -> None:
    project = make_projector("sjlt", grad_dim, proj_dim, seed).project
    matrix = torch.from_numpy(np.random.default_rng(seed).normal(size=(n, grad_dim)).astype(np.float32))
    assert torch.equal(project(matrix), torch.stack([project(row) for row in matrix]))


def assert_unbiased(make: type[SjltProjector], x: torch.Tensor, y: torch.Tensor, proj_dim: int, n_seeds: int) -> None:
    """The mean of <Rx, Ry> over seeds is <x, y> within six standard errors.

    Var <Rx, Ry> = (|x|^2 |y|^2 + <x, y>^2 - 2 sum x_j^2 y_j^2) / k for one non-zero a column.
    """
    found = [
        float(make({"w": len(x)}, proj_dim, seed).project(x) @ make({"w": len(x)}, proj_dim, seed).project(y))
        for seed in range(n_seeds)
    ]
    variance = float((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 * y**2).sum()) / proj_dim
    assert abs(np.mean(found) - float(x @ y)) <= 6 * (max(variance, 0.0) / n_seeds) ** 0.5 + 1e-9


@settings(FEW, max_examples=8)
@given(st.integers(2, 60), st.sampled_from([1, 2, 8, 30]), st.integers(0, 2**31))
def test_inner_products_are_unbiased(grad_dim: int, proj_dim: int, seed: int) -> None:
    x, y = torch.from_numpy(np.random.default_rng(seed).normal(size=(2, grad_dim)))
    assert_unbiased(SjltProjector, x, x + y, proj_dim, 150)


class SignFromBucket(SjltProjector):
    """The planted fault: one stream of bits for both."""

    def _make(self, name: str, stream: str, size: int) -> torch.Tensor:
        bucket = super()._make(name, "bucket", size)
        return bucket if stream == "bucket" else ((bucket & 1) * 2 - 1).to(torch.int8)


def test_the_check_of_bias_catches_signs_taken_from_the_bucket() -> None:
    """Entries that share a bucket then share a sign: their cross terms no longer cancel."""
    x = torch.ones(40, dtype=torch.float64)
    assert_unbiased(SjltProjector, x, x, 8, 100)
    with pytest.raises(AssertionError):
        assert_unbiased(SignFromBucket, x, x, 8, 100)


@pytest.mark.parametrize("proj_dim", [64, 256, 1024, 1000])
def test_the_mean_error_of_a_cosine_is_near_one_over_root_k(proj_dim: int) -> None:
    """Random directions in 4,000 dimensions: the error of a cosine is near N(0, 1/k).

    Its mean size is sqrt(2 / pi) / sqrt(k) = 0.80 / sqrt(k); 40 directions make 780 pairs.
    """
    rows = np.random.default_rng(0).normal(size=(40, 4000))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projected = make_projector("sjlt", 4000, proj_dim, seed=5).project(torch.from_numpy(rows)).numpy()
    upper = np.triu_indices(40, 1)
    error = np.abs((projected @ projected.T - rows @ rows.T)[upper]).mean()
    assert 0.7 < error * proj_dim**0.5 < 0.9


@pytest.mark.parametrize("proj_dim", [256, 1024])
def test_the_error_of_a_length_is_in_its_band(proj_dim: int) -> None:
    """Var |Rx|^2 = 2 (1 - sum x_j^4) / k for a unit x: the mean size of the error is 0.80 sqrt(2 / k)."""
    rows = np.random.default_rng(1).normal(size=(200, 2000))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    projected = make_projector("sjlt", 2000, proj_dim, seed=6).project(torch.from_numpy(rows)).numpy()
    error = np.abs((projected**2).sum(axis=1) - 1).mean()
    assert 0.6 < error * (proj_dim / 2) ** 0.5 < 1.0
