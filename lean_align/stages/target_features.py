"""Mean hidden state of each target problem's completions, as those of the pool are taken."""

from __future__ import annotations

from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.dependencies import POLICY, asked_for
from lean_align.stages.features import fill_features
from lean_align.stages.inputs import TARGET


def run(stage: StageRun) -> None:
    """Fill the store; a stage that was killed goes on with the rows that are missing."""
    fill_features(stage, TARGET)


STAGE = Stage(
    "target_features",
    "target-features",
    "Take the mean hidden state of each problem of the target.",
    run,
    POLICY,
    ("target", "warmup", "target_rollouts"),
    needed=asked_for("features", "target"),
)
