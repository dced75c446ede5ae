"""What a run will take, before anything is downloaded or run: memory, disk, tokens and time of each stage.

Each stage's own code runs once, at its largest, on a model of the recipe's shapes that holds no numbers
(torch's `meta` device), while every tensor's bytes are counted.  So the figures follow from the model's
configuration, the recipe and the code, and change with them.

Not counted: what a kernel allocates within itself, and gaps between blocks of the allocator.
"""

from __future__ import annotations

from lean_align.plan.making import plan_run
from lean_align.plan.pool import EvaluationSet, Pool, pool_of
from lean_align.plan.records import Plan, StagePlan
from lean_align.plan.serving import check_model_serves
from lean_align.plan.speed import Speed

__all__ = ["EvaluationSet", "Plan", "Pool", "Speed", "StagePlan", "check_model_serves", "plan_run", "pool_of"]
