"""Dense random signs (`rademacher`): every entry of R is +-1/sqrt(k), drawn when needed and never stored.

    phi[b] = (1/sqrt(k)) sum over j of s(j, b) g[j],    b = 0 .. k - 1

The sign s(j, b) of entry j of a parameter is bit b mod 64 of output j of a stream keyed by (seed, parameter
name, b div 64).  It does not depend on k, so projections are nested: the first k' cells of a row, times
sqrt(k/k'), are the row of length k' with the same seed.

Signs of a block of entries and columns are drawn, looked up eight at a time in a table of 256 x 8 floats,
and multiplied with the gradients by a matrix product; the block is small enough for a CPU's cache.

Differs from Achlioptas (2003, Database-friendly random projections, J. Comput. Syst. Sci. 66(4),
doi:10.1016/S0022-0000(03)00025-4) in: 1. the signs are pseudo-random.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch

from lean_align.projection.projector import StreamedProjector
from lean_align.projection.streams import splitmix64, stream_key

_WORD = 64  # signs in one output of the generator
_BLOCK = {"cpu": (4096, 256), "cuda": (1 << 16, 1024)}  # entries, columns (a multiple of 64)


class RademacherProjector(StreamedProjector):
    """Dense projection by random signs, of gradients given whole or parameter by parameter.

    Parameters
    ----------
    sizes, proj_dim, seed, device
        See `ParameterProjector`.

    Notes
    -----
    State is k/8 bytes a parameter (not an entry).  A call needs a block of signs, 5.2 MB on a CPU (4096 entries,
    256 columns, 5 bytes a sign with the words) and 336 MB on CUDA, and 16 rows of the block's entries.

    Time is that of drawing P k signs, and 2 P k multiply-adds a row; the drawing is shared by the rows of a call.

    `project` draws the signs once for blocks of 16 rows; these are padded with zeros and always of the same shapes, so
    that a row gives the same bits whatever the rows next to it hold.  `add_to` is slower a row, and equal to it up to
    rounding.
    """

    kind = "rademacher"
    batch_rows = 16

    def __init__(
        self, sizes: Mapping[str, int], proj_dim: int, seed: int = 0, device: torch.device | str = "cpu"
    ) -> None:
        super().__init__(sizes, proj_dim, seed, device)
        self._entries, self._columns = _BLOCK["cpu" if self.device.type == "cpu" else "cuda"]
        self._n_tiles = -(-proj_dim // self._columns)  # the last one whole too: nested in k to the bit
        self._keys = {name: self._tiles_of_keys(name) for name in self.sizes}

    def _tiles_of_keys(self, name: str) -> torch.Tensor:
        """(tiles, words a tile) int64 keys of the streams, one for 64 columns."""
        n_words = self._n_tiles * self._columns // _WORD
        keys = [stream_key(self.seed, name, f"rademacher/{q}") for q in range(n_words)]
        return torch.tensor(keys, device=self.device).view(self._n_tiles, -1)

    def _signs(self, name: str, start: int, stop: int, tile: int, table: torch.Tensor) -> torch.Tensor:
        """(stop - start, columns) of R sqrt(k): -1 and 1."""
        words = splitmix64(self._keys[name][tile], start, stop, self.device)
        index = words.view(torch.uint8).reshape(-1).int()  # bytes of a word, lowest first (little endian)
        return table.index_select(0, index).view(stop - start, self._columns)

    def _add_part(self, sums: torch.Tensor, name: str, part: torch.Tensor) -> None:
        """Add part (n, size) times the signs to sums (groups, rows a group, whole tiles), in place."""
        n_groups, group_rows, _ = sums.shape
        bits = (torch.arange(256, device=self.device)[:, None] >> torch.arange(8, device=self.device)) & 1
        table = (bits * 2 - 1).to(sums.dtype)  # row v: signs of the bits of the byte v, lowest first
        for start in range(0, part.shape[1], self._entries):
            stop = min(start + self._entries, part.shape[1])
            rows = torch.zeros(n_groups * group_rows, stop - start, dtype=sums.dtype, device=self.device)
            rows[: len(part)] = part[:, start:stop]  # a copy, so that every product sees the same alignment
            groups = rows.view(n_groups, group_rows, stop - start)
            for tile, columns in enumerate(sums.split_with_sizes([self._columns] * self._n_tiles, 2)):
                signs = self._signs(name, start, stop, tile, table)
                for group, total in zip(groups, columns):
                    total += group @ signs

    def _sums(self, n_groups: int, group_rows: int, dtype: torch.dtype) -> torch.Tensor:
        return torch.zeros(n_groups, group_rows, self._n_tiles * self._columns, dtype=dtype, device=self.device)

    def _add(self, row: torch.Tensor, name: str, flat: torch.Tensor) -> None:
        sums = self._sums(1, 1, row.dtype)
        self._add_part(sums, name, flat[None])
        row += sums[0, 0, : self.proj_dim] * self.proj_dim**-0.5

    def _project(self, matrix: torch.Tensor) -> torch.Tensor:
        sums = self._sums(-(-len(matrix) // self.batch_rows), self.batch_rows, matrix.dtype)
        for name, part in self._parts(matrix):
            self._add_part(sums, name, part)
        rows: torch.Tensor = sums.flatten(0, 1)[: len(matrix), : self.proj_dim] * self.proj_dim**-0.5
        return rows
