"""The LearnAlign score of every prompt, and how far the choice that it leads to can be trusted.  Imports no torch."""

from lean_align.scoring.aimed import aimed_alignment, mean_without, target_mean
from lean_align.scoring.estimates import (
    exact_estimates,
    learnability,
    plug_in_scale,
    success_estimates,
    unbiased_estimates,
)
from lean_align.scoring.ranks import rank_correlation, rank_scores, selection_change
from lean_align.scoring.score import score_prompts, weighted_alignment
from lean_align.scoring.stability import SelectionStability, selection_stability

__all__ = [
    "SelectionStability",
    "aimed_alignment",
    "exact_estimates",
    "learnability",
    "mean_without",
    "plug_in_scale",
    "rank_correlation",
    "rank_scores",
    "score_prompts",
    "selection_change",
    "selection_stability",
    "success_estimates",
    "target_mean",
    "unbiased_estimates",
    "weighted_alignment",
]
