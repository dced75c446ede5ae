"""The LearnAlign score of every prompt, and how far the choice that it leads to can be trusted.  Imports no torch."""

from lean_align.scoring.estimates import (
    exact_estimates,
    learnability,
    plug_in_scale,
    success_estimates,
    unbiased_estimates,
)
from lean_align.scoring.score import rank_scores, score_prompts
from lean_align.scoring.stability import SelectionStability, rank_correlation, selection_change, selection_stability
from lean_align.scoring.weighted import weighted_alignment

__all__ = [
    "SelectionStability",
    "exact_estimates",
    "learnability",
    "plug_in_scale",
    "rank_correlation",
    "rank_scores",
    "score_prompts",
    "selection_change",
    "selection_stability",
    "success_estimates",
    "unbiased_estimates",
    "weighted_alignment",
]
