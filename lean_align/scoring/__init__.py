"""The LearnAlign score of every prompt, and how far the choice that it leads to can be trusted.  Imports no torch."""

from lean_align.scoring.score import learnability, rank_scores, score_prompts
from lean_align.scoring.stability import SelectionStability, rank_correlation, selection_change, selection_stability

__all__ = [
    "SelectionStability",
    "learnability",
    "rank_correlation",
    "rank_scores",
    "score_prompts",
    "selection_change",
    "selection_stability",
]
