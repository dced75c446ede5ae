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
from lean_align.scoring.transfer import MeanCosine, mean_cosines
from lean_align.scoring.whitening import Aim, WhitenedScores, whitened_scores

__all__ = [
    "Aim",
    "MeanCosine",
    "SelectionStability",
    "WhitenedScores",
    "aimed_alignment",
    "exact_estimates",
    "learnability",
    "mean_cosines",
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
    "whitened_scores",
]
