"""sjlt against a dense matrix of signs, drawn in blocks and never stored, as TRAK's CPU path does."""

from __future__ import annotations

from typing import Any

import torch

from bench.measure import compare
from lean_align.projection import make_projector

GRAD_DIM, PROJ_DIM, ROWS, BLOCK = 200_000, 1024, 8, 128


def dense(gradients: torch.Tensor) -> torch.Tensor:
    generator, pieces = torch.Generator().manual_seed(0), []
    for _ in range(0, PROJ_DIM, BLOCK):
        signs = torch.randint(0, 2, (GRAD_DIM, BLOCK), generator=generator, dtype=torch.int8).float() * 2 - 1
        pieces.append(gradients @ signs)
    return torch.cat(pieces, 1) / PROJ_DIM**0.5


def cosine_error(projected: torch.Tensor, exact: torch.Tensor) -> float:
    unit = torch.nn.functional.normalize(projected, dim=1)
    upper = torch.triu_indices(len(unit), len(unit), 1)
    return (unit @ unit.T - exact)[upper[0], upper[1]].abs().mean().item()


def measure() -> list[dict[str, Any]]:
    torch.manual_seed(0)
    gradients = torch.randn(ROWS, GRAD_DIM) + 0.7 * torch.randn(2, GRAD_DIM)[torch.arange(ROWS) % 2]
    projector = make_projector("sjlt", GRAD_DIM, PROJ_DIM)
    unit = torch.nn.functional.normalize(gradients, dim=1)
    row = compare(lambda: projector.project(gradients), lambda: dense(gradients), repeats=5)
    row["what"] = f"project {ROWS} rows, P = {GRAD_DIM:,}, k = {PROJ_DIM}"
    row["other"] = "dense signs in blocks"
    row["note"] = (
        f"mean cosine error {cosine_error(projector.project(gradients), unit @ unit.T):.4f} "
        f"against {cosine_error(dense(gradients), unit @ unit.T):.4f}"
    )
    return [row]
