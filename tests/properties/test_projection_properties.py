"""Every projection is linear, unbiased, as exact as the theory says, and the same whatever way it is fed.

Each check stands in a function of its own, which meets the projections and then a planted fault.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeAlias

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.projection import (
    Projector,
    RademacherProjector,
    SjltProjector,
    StreamingProjector,
    make_projector,
    rademacher,
    sjlt,
    stream_key,
)

FEW = settings(max_examples=20, deadline=None)
SEEDS = st.integers(0, 2**40)
Sizes: TypeAlias = int | Mapping[str, int]
Make: TypeAlias = Callable[[Sizes, int, int], Projector]
Project: TypeAlias = Callable[[torch.Tensor], torch.Tensor]


def maker(kind: str, nonzeros: int = 1) -> Make:
    return lambda sizes, proj_dim, seed: make_projector(kind, sizes, proj_dim, seed, nonzeros=nonzeros)


STREAMING: dict[str, Make] = {
    "sjlt 1": maker("sjlt"),
    "sjlt 4": maker("sjlt", 4),
    "sjlt 8": maker("sjlt", 8),
    "rademacher": maker("rademacher"),
}
ALL = STREAMING | {"trak": maker("trak")}
every_kind = pytest.mark.parametrize("make", ALL.values(), ids=ALL)
every_streaming_kind = pytest.mark.parametrize("make", STREAMING.values(), ids=STREAMING)


def normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def unit_rows(seed: int, *shape: int) -> torch.Tensor:
    return torch.nn.functional.normalize(normal(seed, *shape), dim=1)


# Linear


def assert_linear(project: Project, x: torch.Tensor, y: torch.Tensor, a: float, b: float, precision: float) -> None:
    """R (a x + b y) = a R x + b R y, within `precision` of the largest value that a cell could hold."""
    largest = abs(a) * x.abs().sum() + abs(b) * y.abs().sum()
    gap = (project(a * x + b * y) - (a * project(x) + b * project(y))).abs().max()
    assert gap <= precision * largest + 1e-30  # the smallest floats have no precision to lose


@every_kind
@FEW
@given(st.integers(1, 300), st.integers(1, 5), SEEDS, st.floats(-100, 100), st.floats(-100, 100))
def test_projecting_is_linear(make: Make, grad_dim: int, eighths: int, seed: int, a: float, b: float) -> None:
    projector = make(grad_dim, 8 * eighths, seed)
    precision = 1e-6 if projector.kind == "trak" else 1e-13  # traker computes in float32
    assert_linear(projector.project, *normal(seed, 2, grad_dim), a, b, precision)


@every_kind
@pytest.mark.parametrize("fault", ["a constant", "the size of a cell", "a clip"])
def test_the_check_of_linearity_catches_one_part_in_a_thousand(make: Make, fault: str) -> None:
    project = make(50, 16, 0).project
    faulty = {
        "a constant": lambda g: project(g) + 1e-3 * 50,
        "the size of a cell": lambda g: project(g) + 1e-3 * project(g).abs(),
        "a clip": lambda g: project(g).clamp(max=float(project(x + y).max()) * 0.999),
    }[fault]
    x, y = normal(0, 2, 50)
    assert_linear(project, x, y, 1.0, 1.0, 1e-6)
    with pytest.raises(AssertionError):
        assert_linear(faulty, x, y, 1.0, 1.0, 1e-6)


# Parameter by parameter, in any order


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


def assert_same_in_any_order(make: Make, gradients: dict[str, torch.Tensor], seed: int, order: list[str]) -> None:
    """Flat, in parts, in parts in another order, and flat in another order: equal up to the scaling's rounding."""
    whole = make(sizes_of(gradients), 16, seed).project(flat(gradients))
    reordered = {name: gradients[name] for name in order}
    projector = make(sizes_of(reordered), 16, seed)
    assert isinstance(projector, StreamingProjector)
    row = torch.zeros(16, dtype=torch.float64)
    for name in reversed(order):
        projector.add_to(row, name, gradients[name])
    alone = torch.stack([make({name: g.numel()}, 16, seed).project(g.reshape(-1)) for name, g in gradients.items()])
    for other in (row, projector.project(flat(reordered)), alone.sum(0)):
        torch.testing.assert_close(other, whole, rtol=0, atol=1e-9)


@every_streaming_kind
@FEW
@given(parameters(), SEEDS, st.randoms(use_true_random=False))
def test_parameter_by_parameter_in_any_order_equals_flat(
    make: Make, gradients: dict[str, torch.Tensor], seed: int, random: object
) -> None:
    order = list(gradients)
    random.shuffle(order)  # type: ignore[attr-defined]
    assert_same_in_any_order(make, gradients, seed, order)


@every_streaming_kind
def test_the_check_of_order_catches_streams_keyed_by_place(make: Make) -> None:
    """The planted fault: a parameter's stream named after its place in the flat gradient."""

    def by_place(sizes: Sizes, proj_dim: int, seed: int) -> Projector:
        assert not isinstance(sizes, int)
        projector = make({str(place): size for place, size in enumerate(sizes.values())}, proj_dim, seed)
        place_of = {name: str(place) for place, name in enumerate(sizes)}

        class ByPlace:
            def __getattr__(self, attribute: str) -> object:
                return getattr(projector, attribute)

            def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
                projector.add_to(row, place_of[name], gradient)  # type: ignore[attr-defined]

        return ByPlace()  # type: ignore[return-value]

    gradients = {"a": torch.arange(5.0, dtype=torch.float64), "b": torch.ones(3, dtype=torch.float64)}
    assert_same_in_any_order(make, gradients, 0, ["b", "a"])
    with pytest.raises(AssertionError):
        assert_same_in_any_order(by_place, gradients, 0, ["b", "a"])


# A row does not depend on the rows beside it


def assert_row_is_its_own(project: Project, matrix: torch.Tensor, others: torch.Tensor, batch_rows: int) -> None:
    """Row i in its place modulo batch_rows, among other rows, among zeros, and last in its batch: the same bits."""
    together = project(matrix)
    for i, row in enumerate(matrix):
        place = i % batch_rows
        beside = others[:batch_rows].clone()
        beside[place] = row
        zeros = torch.zeros_like(beside)
        zeros[place] = row
        for batch in (beside, zeros, beside[: place + 1]):
            assert torch.equal(project(batch)[place], together[i])


@every_kind
@settings(FEW, max_examples=5)
@given(st.integers(1, 20), st.integers(1, 5000), SEEDS)
def test_a_row_does_not_depend_on_the_rows_beside_it(make: Make, n: int, grad_dim: int, seed: int) -> None:
    projector = make(grad_dim, 8, seed)
    matrix, others = normal(seed, n, grad_dim).float(), 100 * normal(seed + 1, 16, grad_dim).float()
    assert_row_is_its_own(projector.project, matrix, others, projector.batch_rows)


@every_kind
def test_the_check_of_rows_catches_a_shared_scale(make: Make) -> None:
    """The planted fault: rows divided by the largest entry of all before, and multiplied by it afterwards."""
    projector = make(300, 8, 0)

    def faulty(g: torch.Tensor) -> torch.Tensor:
        return projector.project(g / g.abs().max()) * g.abs().max()

    matrix, others = normal(0, 3, 300).float(), 100 * normal(1, 16, 300).float()
    assert_row_is_its_own(projector.project, matrix, others, 16)
    with pytest.raises(AssertionError):
        assert_row_is_its_own(faulty, matrix, others, 16)


# Unbiased


def assert_unbiased(make: Make, sizes: Sizes, x: torch.Tensor, y: torch.Tensor, proj_dim: int, n_seeds: int) -> None:
    """The mean of <Rx, Ry> over seeds is <x, y> within six standard errors.

    Var <Rx, Ry> = (|x|^2 |y|^2 + <x, y>^2 - 2 sum x_j^2 y_j^2) / k, for dense signs and for any number of
    non-zeros a column: the mean of c independent count sketches of k/c cells has the variance c/k / c.
    """
    rows = [make(sizes, proj_dim, seed).project(torch.stack([x, y])) for seed in range(n_seeds)]
    found = [float(row[0] @ row[1]) for row in rows]
    variance = float((x @ x) * (y @ y) + (x @ y) ** 2 - 2 * (x**2 * y**2).sum()) / proj_dim
    allowed = 6 * (max(variance, 0.0) / n_seeds) ** 0.5 + 1e-6 * float(x.norm() * y.norm())
    assert abs(np.mean(found) - float(x @ y)) <= allowed


@every_kind
@settings(FEW, max_examples=4)
@given(st.integers(2, 60), st.sampled_from([8, 16, 32]), st.integers(0, 2**31))
def test_inner_products_are_unbiased(make: Make, grad_dim: int, proj_dim: int, seed: int) -> None:
    x, y = normal(seed, 2, grad_dim)
    assert_unbiased(make, {"a": grad_dim // 2, "b": grad_dim - grad_dim // 2}, x, x + y, proj_dim, 150)


@pytest.mark.parametrize("proj_dim", [1, 2, 30])
def test_inner_products_of_a_few_cells_are_unbiased(proj_dim: int) -> None:
    x, y = normal(0, 2, 40)
    for kind in ("sjlt", "rademacher", "trak"):
        assert_unbiased(maker(kind), 40, x, x + y, proj_dim, 150)


class SignFromBucket(SjltProjector):
    """The planted fault: one stream of bits for both."""

    def _draw(self, name: str, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        cells, _ = super()._draw(name, start, stop)
        return cells, ((cells & 1) * 2 - 1).to(torch.int8)


class ZeroOne(RademacherProjector):
    """The planted fault: bits taken as 0 and 1 (times sqrt(2), so that lengths of unit vectors are kept)."""

    def _signs(self, name: str, start: int, stop: int, tile: int, table: torch.Tensor) -> torch.Tensor:
        return (super()._signs(name, start, stop, tile, table) + 1) * 0.5**0.5


ONES = torch.ones(40, dtype=torch.float64)


@pytest.mark.parametrize("nonzeros", [1, 4, 8])
def test_the_check_of_bias_catches_signs_taken_from_the_bucket(nonzeros: int) -> None:
    """Entries that share a bucket then share a sign: their cross terms no longer cancel."""
    assert_unbiased(maker("sjlt", nonzeros), 40, ONES, ONES, 16, 100)
    with pytest.raises(AssertionError):
        assert_unbiased(
            lambda sizes, k, seed: SignFromBucket({"": 40}, k, seed, nonzeros=nonzeros), 40, ONES, ONES, 16, 100
        )


def test_the_check_of_bias_catches_signs_of_0_and_1() -> None:
    assert_unbiased(maker("rademacher"), 40, ONES, ONES, 16, 100)
    with pytest.raises(AssertionError):
        assert_unbiased(lambda sizes, k, seed: ZeroOne({"": 40}, k, seed), 40, ONES, ONES, 16, 100)


@every_streaming_kind
def test_the_check_of_bias_catches_one_stream_for_all_parameters(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Equal entries of two parameters then share cell and sign."""
    sizes = {"a": 20, "b": 20}
    assert_unbiased(make, sizes, ONES, ONES, 16, 100)
    for module in (sjlt, rademacher):
        monkeypatch.setattr(module, "stream_key", lambda seed, name, stream: stream_key(seed, "", stream))
    with pytest.raises(AssertionError):
        assert_unbiased(make, sizes, ONES, ONES, 16, 100)


def test_the_check_of_bias_catches_rows_without_their_scale() -> None:
    """traker's own rows, which are sqrt(k) longer."""

    class Unscaled:
        def __init__(self, sizes: Sizes, proj_dim: int, seed: int) -> None:
            self.project = lambda g: make_projector("trak", sizes, proj_dim, seed).project(g) * proj_dim**0.5

    with pytest.raises(AssertionError):
        assert_unbiased(Unscaled, 40, ONES, ONES, 16, 100)  # type: ignore[arg-type]


# As exact as the theory says


def assert_cosines_in_band(project: Project, proj_dim: int) -> None:
    """Random directions in 4,000 dimensions: the error of a cosine is near N(0, 1/k).

    Its mean size is sqrt(2 / pi) / sqrt(k) = 0.80 / sqrt(k); 40 directions make 780 pairs.  The band is 0.7 to 0.9.
    """
    rows = unit_rows(0, 40, 4000)
    projected = project(rows)
    upper = np.triu_indices(40, 1)
    error = (projected @ projected.T - rows @ rows.T).numpy()[upper]
    assert 0.7 < np.abs(error).mean() * proj_dim**0.5 < 0.9


def assert_lengths_in_band(project: Project, proj_dim: int) -> None:
    """Var |Rx|^2 = 2 (1 - sum x_j^4) / k for a unit x, in 2,000 dimensions.

    Over 200 directions the error of |Rx|^2 has the mean size 0.80 sqrt(2 / k), in a band of 0.65 to 0.95, and is never
    above 5 sqrt(2 / k): 0.44 at k = 256, 0.22 at k = 1024.
    """
    error = np.abs((project(unit_rows(1, 200, 2000)).numpy() ** 2).sum(axis=1) - 1) * (proj_dim / 2) ** 0.5
    assert 0.65 < error.mean() < 0.95
    assert error.max() < 5


@every_kind
@pytest.mark.parametrize("proj_dim", [64, 256, 1024, 1000])
def test_the_mean_error_of_a_cosine_is_near_one_over_root_k(make: Make, proj_dim: int) -> None:
    assert_cosines_in_band(make(4000, proj_dim, 5).project, proj_dim)


@every_kind
@pytest.mark.parametrize("proj_dim", [256, 1024])
def test_the_error_of_a_length_is_in_its_band(make: Make, proj_dim: int) -> None:
    assert_lengths_in_band(make(2000, proj_dim, 6).project, proj_dim)


@pytest.mark.parametrize("check", [assert_cosines_in_band, assert_lengths_in_band])
@pytest.mark.parametrize("fault", ["half of the cells", "every cell twice"])
def test_the_bands_catch_a_projection_that_uses_half_of_its_cells(
    check: Callable[[Project, int], None], fault: str
) -> None:
    """Unbiased still, and too noisy: the error is sqrt(2) larger."""

    def faulty(g: torch.Tensor) -> torch.Tensor:
        kind = "sjlt" if fault == "half of the cells" else "rademacher"
        half = make_projector(kind, g.shape[1], 128, 6).project(g)
        return torch.cat([half, torch.zeros_like(half)] if kind == "sjlt" else [half * 0.5**0.5] * 2, dim=1)

    with pytest.raises(AssertionError):
        check(faulty, 256)
