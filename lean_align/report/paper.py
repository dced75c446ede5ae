"""The paper's own figures, in percent as printed, to stand next to ours, clearly set apart.

LearnAlign, arXiv 2506.11480 v4 (Findings of ACL 2026).  The paper trains whole weights; models and decoding are its
own.  The names of benchmarks are those of `lean_align.benchmarks`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

CITATION = "LearnAlign, arXiv 2506.11480 v4"
_OFF = 0.06
"""A mean of figures with one decimal is off by at most this."""


@dataclass(frozen=True)
class PaperRow:
    """A method's figures by benchmark, and the mean that the paper prints next to them; percent."""

    method: str
    percent: Mapping[str, float]
    mean: float | None = None

    @property
    def recomputed_mean(self) -> float | None:
        """Mean of the figures where the printed mean is not theirs; else None."""
        if self.mean is None:
            return None
        mean = math.fsum(self.percent.values()) / len(self.percent)
        return mean if abs(mean - self.mean) > _OFF else None


@dataclass(frozen=True)
class PaperTable:
    """Rows of one table of the paper: the model, what it trained on, and the benchmarks in printed order."""

    model: str
    trained_on: str
    benchmarks: tuple[str, ...]
    rows: tuple[PaperRow, ...]
    citation: str = CITATION


_DAPO_BENCHMARKS = ("gsm8k", "math500", "amc2023", "aime2024", "crux")
_DAPO_FIGURES: dict[str, tuple[float, ...]] = {
    "base": (26.4, 67.2, 18.1, 16.7, 25.1, 30.7),
    "all 17K": (89.8, 76.4, 47.0, 30.0, 51.1, 58.9),
    "random": (81.1, 65.0, 30.1, 23.3, 40.8, 48.1),
    "SelectIT": (85.4, 67.0, 32.7, 26.7, 41.5, 50.7),
    "LIMR": (84.2, 61.6, 27.1, 16.7, 39.9, 45.9),
    "LearnAlign": (88.3, 70.4, 35.4, 30.0, 44.0, 54.6),
}
DAPO_MATH_17K = PaperTable(
    model="Qwen2.5-7B",
    trained_on="DAPO-MATH-17K, 1,000 selected",
    benchmarks=_DAPO_BENCHMARKS,
    rows=tuple(
        PaperRow(method, dict(zip(_DAPO_BENCHMARKS, figures[:-1], strict=True)), figures[-1])
        for method, figures in _DAPO_FIGURES.items()
    ),
)
"""Qwen2.5-7B, 1,000 prompts of DAPO-MATH-17K."""

GSM8K_SIZES = (100, 500, 1000, 2000)
GSM8K_FIGURES: dict[str, tuple[float, ...]] = {
    "random": (73.1, 75.1, 75.6, 75.5),
    "IFD": (72.0, 76.0, 75.6, 75.4),
    "token length": (72.3, 74.4, 76.2, 75.6),
    "LIMR": (74.2, 76.2, 76.1, 76.7),
    "LearnAlign": (74.8, 76.4, 77.5, 78.3),
}
"""Accuracy on GSM8K by number of selected prompts (`GSM8K_SIZES`)."""
GSM8K_BASE, GSM8K_ALL = 55.7, 77.0
"""Before training, and after training on all 7,473 prompts."""
ABLATION_SIZES = (1000, 2000)
ABLATION_FIGURES: dict[str, tuple[float, float]] = {
    "LearnAlign": (77.5, 78.3),
    "no warm-up": (76.6, 76.6),
    "no learnability": (75.6, 76.7),
    "hidden-state similarity in place of gradients": (75.7, 76.6),
}
"""Parts left out, on GSM8K with Qwen2.5-1.5B-Instruct."""


def gsm8k_table(n_selected: int) -> PaperTable:
    """The column of the paper's GSM8K table for a number of selected prompts.

    Raises
    ------
    ValueError
        When the paper has no such column.
    """
    if n_selected not in GSM8K_SIZES:
        raise ValueError(f"got n_selected = {n_selected}; the paper has {', '.join(map(str, GSM8K_SIZES))}.")
    column = GSM8K_SIZES.index(n_selected)
    figures = {"base": GSM8K_BASE, "all 7,473": GSM8K_ALL}
    figures |= {method: row[column] for method, row in GSM8K_FIGURES.items()}
    return PaperTable(
        model="Qwen2.5-1.5B-Instruct",
        trained_on=f"GSM8K, {n_selected:,} selected",
        benchmarks=("gsm8k",),
        rows=tuple(PaperRow(method, {"gsm8k": figure}) for method, figure in figures.items()),
    )


def table_for(benchmarks: Collection[str], n_selected: int | None) -> PaperTable | None:
    """The paper's table to show with a run: GSM8K's for GSM8K alone, DAPO-MATH-17K's for two of its benchmarks.

    Parameters
    ----------
    benchmarks : collection of str
        Names of the run's benchmarks.
    n_selected : int or None
        How many prompts the run selected.
    """
    if set(benchmarks) == {"gsm8k"}:
        return gsm8k_table(n_selected) if n_selected in GSM8K_SIZES else None
    return DAPO_MATH_17K if len(set(benchmarks) & set(_DAPO_BENCHMARKS)) > 1 else None
