"""The stages of a run, one module each: what it depends on and how it is called is its `STAGE`, what it does its `run`.

A stage reads from the run folder, calls the method, writes to its own folder, and leaves counts for the manifest.
Heavy modules are imported where they are used: report and selection run without torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lean_align.pipeline import execution
from lean_align.pipeline.graph import Graph
from lean_align.pipeline.stage import Rows
from lean_align.recipe import Recipe
from lean_align.stages import (
    data,
    evaluation,
    features,
    gradients,
    perplexity,
    prompt_states,
    ratings,
    report,
    reward_curves,
    rollouts,
    scores,
    selection,
    target,
    target_features,
    target_gradients,
    target_rollouts,
    training,
    warmup,
)

__all__ = ["GRAPH", "run", "run_stage"]

_MODULES = (
    data,
    target,
    warmup,
    target_rollouts,
    target_gradients,
    target_features,
    prompt_states,
    rollouts,
    gradients,
    scores,
    perplexity,
    ratings,
    features,
    reward_curves,
    selection,
    training,
    evaluation,
    report,
)
GRAPH = Graph(tuple(module.STAGE for module in _MODULES))
"""Every stage, in the order in which they run."""


def run(recipe: Recipe, run_dir: Path | str, stop_after: str | None = None) -> dict[str, Any]:
    """Run a recipe in a folder, or continue what an earlier call left there; see `execution.run_stages`."""
    return execution.run_stages(GRAPH, recipe, run_dir, stop_after)


def run_stage(command: str, run_dir: Path, rows: Rows | None = None) -> dict[str, Any]:
    """Run one stage of a run folder in this process, unless it is finished; see `execution.run_stage`."""
    return execution.run_stage(GRAPH, command, run_dir, rows)
