"""How a run goes, whatever its stages: the graph, processes, locks, engines and backends.

A stage is known by its record (`stage.Stage`) alone, and `lean_align.stages` has the list of them.
"""

from lean_align.pipeline.model_evaluation import evaluate_model
from lean_align.pipeline.tabulating import joint_table

__all__ = ["evaluate_model", "joint_table"]
