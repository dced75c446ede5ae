"""A model on problems: what is solved, the completions, the figures, and tables of them."""

from lean_align.evaluation.model import evaluate_model
from lean_align.evaluation.table import joint_table

__all__ = ["evaluate_model", "joint_table"]
