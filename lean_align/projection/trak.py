"""TRAK's own projectors (`trak`) behind the same call: dense random signs drawn by traker.

Source: Park et al. 2023, TRAK: Attributing Model Behavior at Scale, arXiv 2303.14186; package traker.

Differs from calling traker in: 1. rows are divided by sqrt(k), so that inner products are unbiased; 2. they are
projected 16 at a time, padded with zeros, so that a row's bits do not depend on the number of rows.

BasicProjector seeds block i of 128 columns with seed + 1000 i (+ 100,000 model_id).  Only model 0 is used here, so
the blocks of one projection differ, however many there are.  But seeds that are a multiple of 1000 apart share
blocks: two such projections are not independent draws.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any

import torch

from lean_align.errors import MissingPackageError
from lean_align.projection.projector import ParameterProjector

BLOCK_COLUMNS = 128


class TrakProjector(ParameterProjector):
    """traker's BasicProjector on a CPU, its CudaProjector on a CUDA device.

    Parameters
    ----------
    sizes, proj_dim, seed, device
        See `ParameterProjector`.

    Raises
    ------
    MissingPackageError
        Without traker, or without fast_jl on a CUDA device.

    Notes
    -----
    BasicProjector holds one block of R, 512 P bytes: 9.5 GB for P = 18.5 million.  CudaProjector holds none.  The two
    draw different signs from the same seed; the fingerprint names the class, and torch's version for BasicProjector,
    whose signs come from torch's generator.
    """

    kind = "trak"
    batch_rows = 16

    def __init__(
        self, sizes: Mapping[str, int], proj_dim: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(sizes, proj_dim, seed, device)
        if find_spec("trak") is None:
            raise MissingPackageError(
                "gradients.projection is 'trak', but the package traker is not installed. "
                "Install it with `pip install lean-align[trak]`, or set gradients.projection to sjlt or rademacher."
            )
        projectors = import_module("trak.projectors")
        arguments: dict[str, Any] = {
            "grad_dim": self.grad_dim,
            "proj_dim": proj_dim,
            "seed": seed,
            "proj_type": projectors.ProjectionType.rademacher,
            "device": self.device,
        }
        if self.device.type == "cuda":
            if find_spec("fast_jl") is None:
                raise MissingPackageError(
                    "gradients.projection is 'trak' on a CUDA device, but traker's kernel fast_jl is not installed. "
                    "Install it with `pip install --no-build-isolation fast_jl` (needs nvcc), or set "
                    "gradients.projection to sjlt or rademacher, which need no extension."
                )
            self._projector = projectors.CudaProjector(**arguments, max_batch_size=self.batch_rows)
        else:
            self._projector = projectors.BasicProjector(**arguments, block_size=BLOCK_COLUMNS, dtype=torch.float32)

    def _project(self, matrix: torch.Tensor) -> torch.Tensor:
        out = torch.empty(len(matrix), self.proj_dim, dtype=matrix.dtype, device=matrix.device)
        for start in range(0, len(matrix), self.batch_rows):
            rows = matrix[start : start + self.batch_rows]
            batch = torch.zeros(self.batch_rows, self.grad_dim, dtype=torch.float32, device=matrix.device)
            batch[: len(rows)] = rows
            out[start : start + len(rows)] = self._projector.project(batch, model_id=0)[: len(rows)]
        return out.div_(self.proj_dim**0.5)

    def fingerprint(self) -> dict[str, object]:
        """What two stores must share for their rows to be comparable."""
        name = type(self._projector).__name__
        drawn_by: dict[str, object] = {"class": f"trak.projectors.{name}", "traker": version("traker")}
        if name == "BasicProjector":
            drawn_by |= {"block_columns": BLOCK_COLUMNS, "torch": torch.__version__.partition("+")[0]}
        return super().fingerprint() | drawn_by
