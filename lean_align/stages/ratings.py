"""The model's own rating of each question with its completion (SelectIT)."""

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
from lean_align.stages.signals import Row, fill_table, read_values
from lean_align.types import Group

if TYPE_CHECKING:
    from lean_align.policy import Policy

RATINGS = "ratings.parquet"


def run(stage: StageRun) -> None:
    """Write `ratings.parquet`: prompt_id, rating, n_cut (tokens of the completion that did not fit the context)."""
    from lean_align.signals import ratings

    def rows_of(policy: Policy, groups: Sequence[Group]) -> Iterator[Row]:
        budget, record = stage.recipe.gradients.token_budget, recorder(stage.folder, "gradients")
        return (asdict(values) for values in ratings(policy, groups, budget, on_halving=record))

    from lean_align.signals import RATING_PROMPTS

    rows = fill_table(stage, RATINGS, rows_of)
    rated = sum(group.completions[0].n_tokens for group in read_groups(stage.run_dir))
    stage.folder.counts["n_cut"] = sum(row["n_cut"] > 0 for row in rows)
    stage.folder.counts["read_tokens"] = len(RATING_PROMPTS) * (rated - sum(row["n_cut"] for row in rows))


def read_ratings(run_dir: Path) -> NDArray[np.float64]:
    """SelectIT's rating of each prompt, (n,) float64, in the order of the pool; DataError for other prompts."""
    return read_values(run_dir, STAGE.folder, RATINGS, "rating")[0]


STAGE = Stage(
    "ratings",
    "ratings",
    "Let the model rate each question with its completion.",
    run,
    POLICY,
    ("data", "warmup", "rollouts"),
    needed=asked_for("ratings"),
)
