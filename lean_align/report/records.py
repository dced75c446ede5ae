"""What the report reads besides plain dicts: the scores of the pool as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError


@dataclass(frozen=True)
class ReportScores:
    """Scores of the whole pool; every array has one entry a prompt, in one order.

    Attributes
    ----------
    prompt_ids : tuple of str
    success_rate : (n,) float64, p in [0, 1]
    learnability : (n,) float64, V = p (1 - p), in [0, 0.25]
    alignment : (n,) float64, in [-0.25, 0.25]
    score : (n,) float64
    rank : (n,) int64, 1 is best
    n_tokens : (n,) int64 or float64, mean length of the prompt's completions in tokens
    selected : (n,) bool, True where the prompt was chosen

    Raises
    ------
    DataError
        If a column is not one-dimensional with one entry a prompt.
    """

    prompt_ids: tuple[str, ...]
    success_rate: NDArray[np.float64]
    learnability: NDArray[np.float64]
    alignment: NDArray[np.float64]
    score: NDArray[np.float64]
    rank: NDArray[np.int64]
    n_tokens: NDArray[np.int64] | NDArray[np.float64]
    selected: NDArray[np.bool_]

    def __post_init__(self) -> None:
        expected = (len(self.prompt_ids),)
        for field in fields(self)[1:]:
            shape = getattr(self, field.name).shape
            if shape != expected:
                raise DataError(
                    f"report column {field.name} has shape {shape}, expected {expected}: one entry for each of "
                    "prompt_ids. Build all columns from one scores.parquet."
                )

    @property
    def n(self) -> int:
        """Number of prompts in the pool."""
        return len(self.prompt_ids)

    @property
    def n_selected(self) -> int:
        """Number of chosen prompts."""
        return int(self.selected.sum())

    @property
    def cut_score(self) -> float | None:
        """Lowest chosen score, or None where the choice is not simply the best N by rank."""
        if not self.n_selected or int(self.rank[self.selected].max()) != self.n_selected:
            return None
        return float(self.score[self.selected].min())
