"""The stages joined: what each reads, what it writes, and in which order they run."""

from lean_align.pipeline.model_evaluation import evaluate_model
from lean_align.pipeline.run import run
from lean_align.pipeline.short import select_from_file
from lean_align.pipeline.stages import run_stage
from lean_align.pipeline.tabulating import joint_table

__all__ = ["evaluate_model", "joint_table", "run", "run_stage", "select_from_file"]
