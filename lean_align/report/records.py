"""What the report reads besides plain dicts: the scores of the pool as columns."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.types import Scores


@dataclass(frozen=True)
class ReportScores(Scores):
    """Scores of the whole pool and two more columns; every array has one entry a prompt, in one order.

    Attributes
    ----------
    n_tokens : (n,) int64 or float64, mean length of the prompt's completions in tokens
    selected : (n,) bool, True where the prompt was chosen

    Raises
    ------
    DataError
        If a column is not one-dimensional with one entry a prompt.
    """

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
