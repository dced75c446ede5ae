"""A positive definite matrix in tiles of 64 x 64 numbers: its Cholesky factor L, and L^-1 times columns.

    A = L L^T;    L_jj L_jj^T = A_jj - sum_{p<j} L_jp L_jp^T,    L_ij = (A_ij - sum_{p<j} L_ip L_jp^T) L_jj^-T

Only the lower half is held, in float64, and the factor takes its place.  A product of two tiles is so small that BLAS
leaves it to one thread; threads of our own take whole tiles, and what is added up is added in one order.  So no bit
depends on the number of either.  LAPACK's own factorisation is faster and has no such promise.

Source: the left-looking block algorithm, Golub and Van Loan, Matrix Computations, 4.2.
"""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

TILE = 64
"""Rows and columns of a tile.  OpenBLAS takes more than one thread for m x k times k x n where m n k > 2**18."""
Array = NDArray[np.float64]


def tiles_of(size: int) -> int:
    """How many tiles cover so many rows."""
    return -(-size // TILE)


class LowerTiles:
    """The lower half of a symmetric matrix, zero at first; rows beyond its size are zero too.

    Parameters
    ----------
    size : int
        Rows of the matrix (d).

    Attributes
    ----------
    count : int
        Rows of tiles.

    Notes
    -----
    Memory: 4 d (d + 64) bytes, 512 d of inverses on the diagonal, and while it is factored 512 d a thread.
    """

    def __init__(self, size: int) -> None:
        self.count = tiles_of(size)
        self._tiles = np.zeros((self.count * (self.count + 1) // 2, TILE, TILE))
        self._inverses = np.zeros((self.count, TILE, TILE))

    def row(self, i: int) -> Array:
        """Tiles 0 .. i of row i, (i + 1, 64, 64); a view."""
        start = i * (i + 1) // 2
        return self._tiles[start : start + i + 1]

    def trace(self) -> float:
        """Sum of the diagonal."""
        return float(sum(np.trace(self.row(i)[i]) for i in range(self.count)))

    def add_to_diagonal(self, value: float) -> None:
        """Add a multiple of the identity."""
        for i in range(self.count):
            np.einsum("ii->i", self.row(i)[i])[:] += value

    def factor(self, pool: ThreadPoolExecutor) -> None:
        """Put L in the matrix's place.

        Raises
        ------
        ValueError
            When the matrix is not positive definite.
        """
        for j in range(self.count):
            left = self.row(j)[:j].transpose(0, 2, 1)
            self.row(j)[j] -= _sum_of_products(self.row(j)[:j], left)
            self.row(j)[j], self._inverses[j] = _factor_tile(self.row(j)[j])
            finish_all(pool.map(partial(self._finish, j, left), range(j + 1, self.count)))

    def _finish(self, j: int, left: Array, i: int) -> None:
        row = self.row(i)
        row[j] = (row[j] - _sum_of_products(row[:j], left)) @ self._inverses[j].T

    def solve(self, columns: Array, start: int = 0) -> Array:
        """L^-1 times columns, in place.

        Parameters
        ----------
        columns : (count, 64, c) float64
            At most 64 columns; zero above tile `start`.
        start : int

        Returns
        -------
        (count, 64, c) float64
        """
        for i in range(start, self.count):
            known = _sum_of_products(self.row(i)[start:i], columns[start:i])
            columns[i] = self._inverses[i] @ (columns[i] - known)
        return columns


def finish_all(work: Iterable[None]) -> None:
    """Wait for every task; the first error is raised."""
    for _ in work:
        pass


def _sum_of_products(a: Array, b: Array) -> Array:
    """sum_p a_p b_p of two stacks of tiles."""
    total: Array = np.matmul(a, b).sum(axis=0)
    return total


def _factor_tile(tile: Array) -> tuple[Array, Array]:
    """L and L^-1 of one tile, column by column."""
    lower, inverse = np.zeros((TILE, TILE)), np.zeros((TILE, TILE))
    for c in range(TILE):
        rest = tile[c:, c] - lower[c:, :c] @ lower[c, :c]
        if not rest[0] > 0:
            raise ValueError(f"the matrix is not positive definite: a pivot is {rest[0]:g}. Raise the ridge.")
        lower[c:, c] = rest / np.sqrt(rest[0])
        inverse[c] = -(lower[c, :c] @ inverse[:c])
        inverse[c, c] += 1
        inverse[c] /= lower[c, c]
    return lower, inverse
