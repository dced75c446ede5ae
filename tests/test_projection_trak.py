"""`trak` equals calling traker, and says what to install where it cannot."""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec

import pytest
import torch
from trak.projectors import BasicProjector, ProjectionType

from lean_align.errors import LeanAlignError, MissingPackageError
from lean_align.projection import make_projector, trak


def direct(gradients: torch.Tensor, proj_dim: int, seed: int) -> torch.Tensor:
    """As LESS calls traker on a CPU: blocks of 128 columns, up to 16 rows."""
    projector = BasicProjector(
        grad_dim=gradients.shape[1],
        proj_dim=proj_dim,
        seed=seed,
        proj_type=ProjectionType.rademacher,
        device=torch.device("cpu"),
        block_size=128,
        dtype=torch.float32,
    )
    return projector.project(gradients, model_id=0) / proj_dim**0.5


def random_rows(n: int, grad_dim: int) -> torch.Tensor:
    return torch.randn(n, grad_dim, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("proj_dim", [16, 128, 300])
@pytest.mark.parametrize("seed", [0, 7])
def test_rows_are_traks_to_the_bit(proj_dim: int, seed: int) -> None:
    rows = random_rows(32, 500)
    expected = torch.cat([direct(rows[:16], proj_dim, seed), direct(rows[16:], proj_dim, seed)])
    projector = make_projector("trak", {"a": 200, "b": 300}, proj_dim, seed)
    assert torch.equal(projector.project(rows), expected)
    assert torch.equal(projector.project(rows), expected)  # a second call draws the same signs
    assert not torch.equal(projector.project(rows), expected * proj_dim**0.5)  # the scale is seen
    assert not torch.equal(projector.project(rows), direct(rows, proj_dim, seed + 1))  # and the seed


@pytest.mark.parametrize("n", [1, 5, 17])
def test_fewer_rows_are_those_of_a_full_batch(n: int) -> None:
    rows = random_rows(32, 500)
    projector = make_projector("trak", 500, 64)
    assert torch.equal(projector.project(rows[:n]), projector.project(rows)[:n])


def test_blocks_of_one_projection_have_seeds_of_their_own() -> None:
    """Seed + 1000 i for block i: distinct beyond 100 blocks too, since only model 0 is used."""
    seeds = make_projector("trak", 2, 200 * 128)._projector.seeds  # type: ignore[attr-defined]
    assert seeds == [1000 * i for i in range(200)]


def test_seeds_1000_apart_share_blocks() -> None:
    """Block 1 of seed 0 is block 0 of seed 1000: why a second projection needs another seed than that."""
    first, second = (make_projector("trak", 40, 256, seed).project(torch.eye(40)) for seed in (0, 1000))
    assert torch.equal(first[:, 128:], second[:, :128])


def test_the_fingerprint_names_class_and_versions() -> None:
    found = make_projector("trak", 5, 8).fingerprint()
    assert found["class"] == "trak.projectors.BasicProjector"
    assert (found["traker"], found["block_columns"]) == ("0.3.2", 128)
    assert found["torch"] == torch.__version__.split("+")[0]


def hide(monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
    """Let `find_spec` find everything but one package."""
    monkeypatch.setattr(trak, "find_spec", lambda name: None if name == missing else ModuleSpec(name, None))


def test_without_traker_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "trak")
    with pytest.raises(MissingPackageError, match=r"pip install lean-align\[trak\]") as error:
        make_projector("trak", 8, 4)
    assert isinstance(error.value, LeanAlignError)
    assert isinstance(error.value, ImportError)


def test_on_a_card_without_the_kernel_the_error_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "fast_jl")
    with pytest.raises(MissingPackageError, match=r"fast_jl is not installed.*sjlt or rademacher"):
        make_projector("trak", 8, 4, device="cuda")


def test_other_kinds_load_no_traker() -> None:
    code = "import sys, lean_align as la; la.make_projector('rademacher', 8, 4); print('trak' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False"]
