"""Perplexity of each question under the policy, and its instruction-following difficulty (IFD)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.dependencies import POLICY, asked_for
from lean_align.stages.inputs import read_groups
from lean_align.stages.rollout_facts import completion_tokens
from lean_align.stages.signals import Row, fill_table, read_values
from lean_align.types import Group

if TYPE_CHECKING:
    from lean_align.policy import Policy

PERPLEXITY = "perplexity.parquet"


def run(stage: StageRun) -> None:
    """Write `perplexity.parquet`: prompt_id, perplexity of the question, ifd."""
    from lean_align.signals import likelihoods

    def rows_of(policy: Policy, groups: Sequence[Group]) -> Iterator[Row]:
        settings, record = stage.recipe.gradients, recorder(stage.folder, "gradients")
        found = likelihoods(policy, groups, settings.token_budget, settings.logprob_chunk, record)
        return (asdict(values) for values in found)

    fill_table(stage, PERPLEXITY, rows_of)
    # behind the question, and without it
    stage.folder.counts["read_tokens"] = 2 * completion_tokens(read_groups(stage.run_dir))


def read_perplexity(run_dir: Path) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Perplexity and IFD of each prompt, (n,) float64 each, in the order of the pool; DataError for other prompts."""
    perplexity, ifd = read_values(run_dir, STAGE.folder, PERPLEXITY, "perplexity", "ifd")
    return perplexity, ifd


STAGE = Stage(
    "perplexity",
    "perplexity",
    "Take each question's perplexity, and its instruction-following difficulty.",
    run,
    POLICY,
    ("data", "warmup", "rollouts"),
    needed=asked_for("perplexity"),
)
