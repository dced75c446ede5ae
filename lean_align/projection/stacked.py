"""Several projections of one gradient, side by side in one row: what `gradients.second_seed` needs."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from lean_align.errors import RecipeError
from lean_align.projection.projector import Projector


class StackedProjector:
    """Projections whose rows are laid end to end, (proj_dim of the first + ... + proj_dim of the last).

    Parameters
    ----------
    projectors : sequence of Projector
        Of gradients of one length; all take parameters one by one, or none does.

    Raises
    ------
    RecipeError
        When they differ in grad_dim or batch_rows.
    """

    kind = "stacked"

    def __init__(self, projectors: Sequence[Projector]) -> None:
        shapes = {(p.grad_dim, p.batch_rows) for p in projectors}
        if len(shapes) != 1:
            raise RecipeError(f"got projections of (grad_dim, batch_rows) {sorted(shapes)}; expected one such pair.")
        ((self.grad_dim, self.batch_rows),) = shapes
        self.projectors = tuple(projectors)
        self.widths = [p.proj_dim for p in projectors]
        self.proj_dim = sum(self.widths)

    def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
        """Add each projection of one parameter's gradient to its part of `row`, in place."""
        for projector, part in zip(self.projectors, torch.split(row, self.widths)):
            projector.add_to(part, name, gradient)  # type: ignore[attr-defined]

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        """(n, P) or (P,) to (n, k) or (k,), k over all projections."""
        return torch.cat([projector.project(gradients) for projector in self.projectors], -1)

    def fingerprint(self) -> dict[str, object]:
        """The fingerprints of all, in order."""
        return {"kind": self.kind, "projections": [projector.fingerprint() for projector in self.projectors]}
