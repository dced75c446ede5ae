"""A model on problems: what is solved, the completions, the figures, and tables of them."""

from lean_align.evaluation.joint_tables import joint_table
from lean_align.evaluation.model import evaluate_model

__all__ = ["evaluate_model", "joint_table"]
