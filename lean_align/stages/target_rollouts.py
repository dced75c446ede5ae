"""Completions of the target's problems, as those of the pool are drawn."""

from __future__ import annotations

from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.dependencies import POLICY, asked_for, drawn
from lean_align.stages.inputs import TARGET
from lean_align.stages.rollouts import sample


def run(stage: StageRun) -> None:
    """Sample the target."""
    sample(stage, TARGET)


STAGE = Stage(
    "target_rollouts",
    "target-rollout",
    "Sample completions for every problem of the target, and reward them.",
    run,
    (*POLICY, "rollouts"),
    ("target", "warmup"),
    more_keys=drawn,
    needed=asked_for("target"),
    samples=True,
    work="rollouts",
    of_target=True,
)
