"""Sparse sign projection (`sjlt`): c non-zeros a column, each +-1/sqrt(c).

The k cells of a row are cut into c blocks of k/c.  Entry j of the gradient goes into one cell of each block,
h_i(j) with sign s_i(j), i = 1 .. c:

    phi[b] = (1/sqrt(c)) sum over (i, j) with h_i(j) = b of s_i(j) g[j]

so a row costs O(c P) and R is never stored.  c = 1 is the count sketch.  Cells and signs come from
independent streams: a sign read off the cell's hash would be a function of the cell.

Differs from the block construction of Kane and Nelson (2014, Sparser Johnson-Lindenstrauss Transforms,
J. ACM 61(1), doi:10.1145/2559902) in: 1. h and s are drawn for every entry, not from a small hash family;
2. every parameter has streams of its own, keyed by its name.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lean_align.errors import RecipeError
from lean_align.projection.projector import StreamedProjector
from lean_align.projection.streams import logical_shift_right, splitmix64, stream_key

MAX_NONZEROS = 64  # one word of the sign stream holds the signs of all blocks
_PIECE = {"cpu": 1 << 16, "cuda": 1 << 22}  # entries at a time


class SjltProjector(StreamedProjector):
    """Sparse sign projection of gradients given whole or parameter by parameter.

    Parameters
    ----------
    sizes, proj_dim, seed, device
        See `ParameterProjector`.
    nonzeros : int
        Non-zeros a column (c), 1 to 64; divides proj_dim.

    Raises
    ------
    RecipeError
        When nonzeros is out of range or does not divide proj_dim.

    Notes
    -----
    State for c = 1 is 5 P bytes (an int32 cell and an int8 sign an entry): 92 MB for P = 18.5 million.  For c > 1
    nothing is kept: cells and signs are drawn again in pieces of 2**16 entries (2**22 on CUDA), 9 c + 24 bytes an
    entry of the piece; so several rows a call cost less than one at a time.

    On a CPU equal calls give equal bits.  On CUDA additions into one cell may come in any order, unless
    `torch.use_deterministic_algorithms(True)` is set.
    """

    kind = "sjlt"
    batch_rows = 1

    def __init__(
        self,
        sizes: Mapping[str, int],
        proj_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        nonzeros: int = 1,
    ) -> None:
        super().__init__(sizes, proj_dim, seed, device)
        if not 1 <= nonzeros <= MAX_NONZEROS or proj_dim % nonzeros:
            raise RecipeError(
                f"gradients.sjlt_nonzeros is {nonzeros} with gradients.proj_dim {proj_dim}; expected a divisor of "
                f"proj_dim from 1 to {MAX_NONZEROS}. Set gradients.sjlt_nonzeros to 1, 4 or 8, or proj_dim to a "
                "multiple of it."
            )
        self.nonzeros = nonzeros
        self._piece = _PIECE["cpu" if self.device.type == "cpu" else "cuda"]
        self._kept = {name: self._keep(name, size) for name, size in self.sizes.items()} if nonzeros == 1 else {}

    def entries(self, name: str, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cells and signs of entries start .. stop - 1 of a parameter.

        Returns
        -------
        cells : (nonzeros, stop - start) int64, in [0, proj_dim)
        signs : (nonzeros, stop - start) int8, -1 or 1
            Before the division by sqrt(nonzeros).
        """
        if name in self._kept:
            cells, signs = self._kept[name]
            return cells[start:stop].long()[None], signs[start:stop][None]
        return self._draw(name, start, stop)

    def _draw(self, name: str, start: int, stop: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Cell of block i: half a word scaled to [0, k/c), no modulo, bias below k / 2**32.  Sign: bit 63 - i."""

        def words(stream: str) -> torch.Tensor:
            return splitmix64(stream_key(self.seed, name, stream), start, stop, self.device)

        width = self.proj_dim // self.nonzeros
        cells = torch.empty(self.nonzeros, stop - start, dtype=torch.int64, device=self.device)
        signs = torch.empty(self.nonzeros, stop - start, dtype=torch.int8, device=self.device)
        sign_word = words("sign")
        for i in range(self.nonzeros):
            if i % 2 == 0:  # high half of a word, then its low half
                word = words("bucket" if self.nonzeros == 1 else f"bucket/{i // 2}")
                logical_shift_right(word, 32, out=cells[i])
            else:
                torch.bitwise_and(word, 2**32 - 1, out=cells[i])
            cells[i].mul_(width).bitwise_right_shift_(32).add_(i * width)
            signs[i] = sign_word >> (63 - i)  # int8 keeps the low bits
        return cells, signs.bitwise_and_(1).mul_(2).sub_(1)

    def _keep(self, name: str, size: int) -> tuple[torch.Tensor, torch.Tensor]:
        cells = torch.empty(size, dtype=torch.int32, device=self.device)
        signs = torch.empty(size, dtype=torch.int8, device=self.device)
        for start in range(0, size, self._piece):
            stop = min(start + self._piece, size)
            drawn = self._draw(name, start, stop)
            cells[start:stop], signs[start:stop] = drawn[0][0], drawn[1][0]
        return cells, signs

    def _add_part(self, rows: torch.Tensor, name: str, part: torch.Tensor) -> None:
        """Add the projection of one parameter, (n, size), to rows, (n, k)."""
        size = part.shape[1]
        for start in range(0, size, self._piece):
            stop = min(start + self._piece, size)
            cells, signs = self.entries(name, start, stop)
            for row, gradient in zip(rows, part[:, start:stop]):
                scaled = gradient if self.nonzeros == 1 else gradient * self.nonzeros**-0.5
                for cell, sign in zip(cells, signs):  # scatter_add_ with int64 runs twice as fast as index_add_
                    row.scatter_add_(0, cell, scaled * sign)

    def _add(self, row: torch.Tensor, name: str, flat: torch.Tensor) -> None:
        self._add_part(row[None], name, flat[None])

    def _project(self, matrix: torch.Tensor) -> torch.Tensor:
        out = torch.zeros(len(matrix), self.proj_dim, dtype=matrix.dtype, device=matrix.device)
        for name, part in self._parts(matrix):
            self._add_part(out, name, part)
        return out

    def fingerprint(self) -> dict[str, object]:
        """What two stores must share for their rows to be comparable."""
        return super().fingerprint() | {"nonzeros": self.nonzeros}
