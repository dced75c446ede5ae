"""The projected gradient of each problem of the target, by the passes and the projection of the pool's."""

from __future__ import annotations

from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.dependencies import POLICY, asked_for, drawn
from lean_align.stages.gradient_rows import fill_store
from lean_align.stages.inputs import TARGET


def run(stage: StageRun) -> None:
    """Fill the store; a stage that was killed goes on with the rows that are missing."""
    fill_store(stage, TARGET)


STAGE = Stage(
    "target_gradients",
    "target-gradients",
    "Take the gradient of each problem of the target, project it, and store it.",
    run,
    (*POLICY, "gradients", "rollouts.temperature", "rollouts.max_new_tokens"),
    ("target", "warmup", "target_rollouts"),
    more_keys=drawn,
    needed=asked_for("gradients", "target"),
    work="gradients",
    of_target=True,
)
