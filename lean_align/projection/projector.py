"""What the kinds of projection have in common: parameters laid end to end, checks, the fingerprint."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Protocol, runtime_checkable

import torch

from lean_align.errors import RecipeError
from lean_align.projection.streams import STREAM_VERSION


class Projector(Protocol):
    """phi = R g for flat gradients, with E[<R x, R y>] = <x, y> over seeds.

    Attributes
    ----------
    kind : str
    proj_dim, grad_dim : int
        Length of a projected row (k) and of a gradient (P).
    batch_rows : int
        Rows that a call works on at a time.  Fewer cost as much; a row's result depends, to the bit, on the
        row and on its place modulo `batch_rows` only.
    """

    kind: str
    proj_dim: int
    grad_dim: int
    batch_rows: int

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        """(n, P) or (P,) to (n, k) or (k,)."""

    def fingerprint(self) -> dict[str, object]:
        """What two stores must share for their rows to be comparable."""


@runtime_checkable
class StreamingProjector(Projector, Protocol):
    """A projector that takes a gradient parameter by parameter, in any order."""

    def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
        """Add R restricted to parameter `name`, times `gradient`, to `row` in place."""


def project_parts(projector: Projector, parts: Mapping[str, torch.Tensor], slot: int = 0) -> torch.Tensor:
    """Project one gradient that is given parameter by parameter.

    Parameters
    ----------
    projector : Projector
    parts : mapping of str to tensor
        Of every parameter, in the order of a flat gradient.
    slot : int
        The row's place among those that a call works on at a time, in [0, batch_rows).

    Returns
    -------
    (proj_dim,) in the parts' dtype

    Notes
    -----
    Whole rows are made where the projector does not stream or works on several at a time: 4 (batch_rows + 1) P bytes.
    """
    slots = projector.batch_rows
    if slots == 1 and isinstance(projector, StreamingProjector):
        found = next(iter(parts.values())).new_zeros(projector.proj_dim)
        for name, part in parts.items():
            projector.add_to(found, name, part)
        return found
    whole = torch.cat([part.reshape(-1) for part in parts.values()])
    waiting = whole.new_zeros(slots, len(whole))
    waiting[slot] = whole
    return projector.project(waiting)[slot]


class ParameterProjector(ABC):
    """Base of the projectors: the parameters' sizes, and checks of what they are given.

    Parameters
    ----------
    sizes : mapping of str to int
        Number of entries of each parameter, in the order of a flat gradient.
    proj_dim : int
        Length of a projected row (k).
    seed : int
    device : torch.device or str

    Raises
    ------
    RecipeError
        When proj_dim is below 1, or a size below 0.
    """

    kind: str
    batch_rows: int

    def __init__(
        self, sizes: Mapping[str, int], proj_dim: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        if proj_dim < 1:
            raise RecipeError(f"gradients.proj_dim is {proj_dim}; expected at least 1.")
        if negative := [name for name, size in sizes.items() if size < 0]:
            raise RecipeError(f"parameter {negative[0]!r} has {sizes[negative[0]]} entries; expected at least 0.")
        self.sizes, self.proj_dim, self.seed, self.device = dict(sizes), proj_dim, seed, torch.device(device)
        self.grad_dim = sum(self.sizes.values())

    def fingerprint(self) -> dict[str, object]:
        """What two stores must share for their rows to be comparable."""
        return {
            "kind": self.kind,
            "proj_dim": self.proj_dim,
            "grad_dim": self.grad_dim,
            "seed": self.seed,
            "stream_version": STREAM_VERSION,
            "parameters": hashlib.sha256(repr(list(self.sizes.items())).encode()).hexdigest(),
        }

    def project(self, gradients: torch.Tensor) -> torch.Tensor:
        """Project flat gradients, best in multiples of `batch_rows`.

        Parameters
        ----------
        gradients : (n, P) or (P,) float32 or float64
            Entries in the order of `sizes`; other dtypes are taken as float32.

        Returns
        -------
        (n, proj_dim) or (proj_dim,) of the same dtype

        Raises
        ------
        ValueError
            When a row has not grad_dim entries.
        """
        return self._project(self._rows(gradients)).reshape(*gradients.shape[:-1], self.proj_dim)

    @abstractmethod
    def _project(self, matrix: torch.Tensor) -> torch.Tensor:
        """(n, P) to (n, k), in float32 or float64."""

    def _rows(self, gradients: torch.Tensor) -> torch.Tensor:
        """(n, P) in float32 or float64; lower precisions become float32, so that sums are not taken in them."""
        if gradients.ndim not in (1, 2) or gradients.shape[-1] != self.grad_dim:
            raise ValueError(
                f"got gradients with {gradients.shape[-1] if gradients.ndim else 0} entries and {gradients.ndim} "
                f"dimensions; expected grad_dim = {self.grad_dim} entries per row, (n, {self.grad_dim}) or "
                f"({self.grad_dim},)."
            )
        matrix = gradients.detach().reshape(-1, self.grad_dim)
        return matrix if matrix.dtype in (torch.float32, torch.float64) else matrix.float()

    def _flat(self, name: str, gradient: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """(sizes[name],): one parameter's gradient, checked."""
        if name not in self.sizes:
            raise ValueError(
                f"got a gradient of {name!r}; expected one of the {len(self.sizes)} parameters of `sizes`."
            )
        if gradient.numel() != self.sizes[name]:
            raise ValueError(
                f"got a gradient of {name!r} with {gradient.numel()} entries; expected {self.sizes[name]}."
            )
        return gradient.detach().reshape(-1).to(dtype)

    def _parts(self, matrix: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Name and (n, size) columns of each parameter."""
        start = 0
        for name, size in self.sizes.items():
            yield name, matrix[:, start : start + size]
            start += size


class StreamedProjector(ParameterProjector):
    """Base of the projectors that also take a gradient parameter by parameter."""

    def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
        """Add R restricted to parameter `name`, times `gradient`, to `row` in place.

        Parameters
        ----------
        row : (proj_dim,) float32 or float64
        name : str
            A key of `sizes`.
        gradient : any shape with sizes[name] entries

        Raises
        ------
        ValueError
            For an unknown name or another number of entries.
        """
        self._add(row, name, self._flat(name, gradient, row.dtype))

    @abstractmethod
    def _add(self, row: torch.Tensor, name: str, flat: torch.Tensor) -> None:
        """The same for a gradient of (sizes[name],)."""
