"""Where the prompts that were met pull the policy, and how far each of them goes along.

    m = sum_j w_j V_j u_j / sum_j w_j,    w_j = gamma^age of prompt j's last visit
    a_i = <u_i, m>, with j = i left out of both sums

u_j : unit row of a prompt's projected gradient at its last visit that had one, (k,); V_j = p (1 - p) at its last visit.

What is expected of a_i is drawn towards the mean of all a, by the share of their variance that the noise of the
projection explains, that of <u, m> over random directions u: of many prompts the ones that look best would otherwise be
those with the luckiest noise.

    E[a_i] = mean a + r (a_i - mean a),    r = max(0, 1 - |m|^2 / (k var a))

A prompt without a row has mean a.

Source: the mean gradient m of LearnAlign, arXiv 2506.11480; r is empirical Bayes (James and Stein, 1961).

Differs from LearnAlign in: 1. m is of the prompts met, each at its last visit, and fades; 2. j = i is left out; 3. a is
shrunk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError

BLOCK = 1024
"""Rows that are widened to float64 at a time."""


class MeanDirection:
    """Rows of the prompts that were met, and what they say of one another.

    Parameters
    ----------
    n, proj_dim : int
        Size of the pool; length of a row (k).  Rows take 2 n k bytes once all prompts were met.

    Attributes
    ----------
    rows : (n, k) float16
        Unit rows; zeros where there is none.
    has_row : (n,) bool
    """

    def __init__(self, n: int, proj_dim: int) -> None:
        self.rows = np.zeros((n, proj_dim), dtype=np.float16)
        self.has_row = np.zeros(n, dtype=bool)

    def keep(self, place: int, row: NDArray[np.floating[Any]]) -> None:
        """Take the row of a prompt, of any length but 0 and infinity.

        Raises
        ------
        DataError
            When it is of another projection, or none.
        """
        k = self.rows.shape[1]
        if row.shape != (k,):
            raise DataError(f"a row of shape {row.shape} was given; expected ({k},), of the projection of all others.")
        norm = float(np.linalg.norm(row.astype(np.float64)))
        if not (norm > 0 and np.isfinite(norm)):
            raise DataError(f"a row of norm {norm} was given; expected a gradient. Leave out what was not run.")
        self.rows[place] = row.astype(np.float64) / norm
        self.has_row[place] = True

    def alignment(self, weights: NDArray[np.float64], learnability: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """What is expected of each prompt's alignment.

        Parameters
        ----------
        weights, learnability : (n,) float64
            w and V of the last visits; 0 of prompts that were not met.

        Returns
        -------
        (n,) float64, or None
            None where the mean alignment is not above 0: then nothing is known yet of a common direction.
        """
        met = np.flatnonzero(self.has_row)
        if len(met) < 2:
            return None
        own, whole = weights[met] * learnability[met], weights.sum()
        total, a, squares = np.zeros(self.rows.shape[1]), np.empty(len(met)), np.empty(len(met))
        blocks = [slice(i, i + BLOCK) for i in range(0, len(met), BLOCK)]
        for block in blocks:
            rows = self.rows[met[block]].astype(np.float64)
            total += own[block] @ rows
            squares[block] = (rows**2).sum(1)
        for block in blocks:
            a[block] = self.rows[met[block]].astype(np.float64) @ total
        others = whole - weights[met]
        a = np.divide(a - own * squares, others, out=np.zeros(len(met)), where=others > 0)
        mean, spread = float(a.mean()), float(a.var())
        if mean <= 0:
            return None
        noise = float(total @ total) / (self.rows.shape[1] * whole**2)
        found = np.full(len(self.has_row), mean)
        found[met] = mean + (max(0.0, 1 - noise / spread) if spread > 0 else 0.0) * (a - mean)
        return found
