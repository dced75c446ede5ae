"""Projection of 16 gradient rows: ours, and the peers' paths in pure torch.

The rows share components (four base vectors plus noise), so that their cosines are spread; `cosine_error` is the mean
absolute difference between the cosines before and after, over all pairs. All run in turn in one process of the peers'
environment.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch

from bench import peers
from bench.child import in_child
from bench.measure import Row, Settings, attempt, failure, in_turn, pairwise_cosines, ratio
from lean_align.projection import make_projector

ROWS = 16
SJLT = {"sjlt, 1 non-zero": 1, "sjlt, 4 non-zeros": 4, "sjlt, 8 non-zeros": 8}
WIDE = ["trak", *SJLT]
ALL = ["dattri", "bergson", "rademacher", *WIDE]


def measure(settings: Settings) -> Iterator[Row]:
    grad_dims = settings.pick((10_000, 10_000), (500_000, 100_000), (1_000_000, 1_000_000))
    repeats = settings.times(1, 5), settings.times(1, 5)
    options = {"seed": settings.seed}
    yield peers.version_row()
    if peers.READY.exists():
        options |= {"interpreter": str(peers.python())}
    for grad_dim, proj_dim, names, times in (
        (grad_dims[0], 1024, ALL, repeats[0]),
        (grad_dims[1], 8192, WIDE, repeats[1]),
    ):
        given = options | {"names": names, "grad_dim": grad_dim, "proj_dim": proj_dim, "repeats": times}
        found = attempt({}, lambda given=given: in_child("bench_projection:compare", **given))
        for row in found.get("rows", [found]):
            yield {"grad_dim": grad_dim, "proj_dim": proj_dim} | row


def compare(names: list[str], grad_dim: int, proj_dim: int, repeats: int, seed: int) -> Row:
    """One row per projection, over the same gradients; what cannot be made says why."""
    rows = gradients(grad_dim, seed)
    exact = pairwise_cosines(rows.numpy())
    works: dict[str, Callable[[], torch.Tensor]] = {}
    found: list[Row] = []
    for name in names:
        try:
            project = _projection(name, grad_dim, proj_dim, seed)
            works[name] = lambda project=project: project(rows)
            error = abs(pairwise_cosines(works[name]().float().cpu().numpy()) - exact).mean()
            found.append({"what": name, "cosine_error": float(error)})
        except Exception as error:
            works.pop(name, None)
            found.append({"what": name, "note": failure(error)})
    timings = in_turn(works, repeats, warm_up=False)  # each was called once above
    base = timings.get("trak")
    for row in found:
        if row["what"] in timings:
            timing = timings[row["what"]]
            row |= timing.columns(rows=ROWS) | {"times_faster_than_trak": base and ratio(base, timing)}
    return {"rows": found}


def gradients(grad_dim: int, seed: int) -> torch.Tensor:
    """(16, grad_dim) float32; on the card where there is one."""
    generator = torch.Generator().manual_seed(seed)
    base = torch.randn(4, grad_dim, generator=generator)
    rows = torch.randn(ROWS, grad_dim, generator=generator) + 0.7 * base[torch.arange(ROWS) % 4]
    return rows.to(_device())


def _device() -> torch.device:
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _projection(name: str, grad_dim: int, proj_dim: int, seed: int) -> Callable[[torch.Tensor], torch.Tensor]:
    device = _device()
    if name == "trak":
        from trak.projectors import BasicProjector, ProjectionType

        signs = BasicProjector(grad_dim, proj_dim, seed, ProjectionType.rademacher, device, block_size=128)
        return lambda rows: signs.project(rows, model_id=0)
    if name == "dattri":
        from dattri.func.projection import BasicProjector, ProjectionType

        options = {"proj_type": ProjectionType.rademacher, "device": device, "block_size": 128}
        matrix = BasicProjector(feature_dim=grad_dim, proj_dim=proj_dim, seed=seed, **options)
        return lambda rows: matrix.project(rows, ensemble_id=0)
    if name == "bergson":
        from bergson.collector.collector import project_global

        return lambda rows: project_global("lora/single", rows, proj_dim, "rademacher", "jl")
    options = {"nonzeros": SJLT[name]} if SJLT.get(name, 1) > 1 else {}
    kind = "sjlt" if name in SJLT else name
    return make_projector(kind, grad_dim, proj_dim, seed, device=device, **options).project
