"""The projected gradient of each group that a training passes over, in the form of the gradient store.

Row s * prompts_per_step + i is the i-th group that the loss counts of the s-th step that samples, both counted from 0;
`rows` in `rewards.jsonl` says which prompt's it is.  Groups that were not run have a row of zeros.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.artifacts import StageFolder, write_json
from lean_align.projection import project_parts, recipe_projector
from lean_align.recipe import Recipe
from lean_align.store import PROJECTION, StoreWriter

if TYPE_CHECKING:
    from lean_align.grpo import TrainerSettings
    from lean_align.policy import Policy
    from lean_align.projection import Projector

ROWS = "rows"


@contextmanager
def training_rows(
    recipe: Recipe, settings: TrainerSettings, policy: Policy, folder: StageFolder
) -> Iterator[TrainingRows | None]:
    """The store that a training fills, where `keep_rows` asks for one."""
    trainer = settings.trainer
    if not trainer.keep_rows:
        yield None
        return
    one = replace(recipe.gradients, second_seed=False)
    projector, fingerprints = recipe_projector(one, policy.lora_sizes, recipe.seed, policy.device)
    folder.counts |= fingerprints
    sampling = range(0, trainer.steps, trainer.num_iterations)
    ids = [f"{step}/{place}" for step in sampling for place in range(trainer.prompts_per_step)]
    with StoreWriter.open(folder.path / ROWS, ids, projector.proj_dim) as writer:
        write_json(folder.path / ROWS / PROJECTION, fingerprints)
        yield TrainingRows(writer, projector, trainer.prompts_per_step, trainer.num_iterations)


class TrainingRows:
    """Projects gradients into the store, a step's at a time."""

    def __init__(self, writer: StoreWriter, projector: Projector, per_step: int, num_iterations: int = 1) -> None:
        self.writer, self.projector, self.per_step, self.num_iterations = writer, projector, per_step, num_iterations
        self._kept: set[int] = set()

    def keep(self, step: int, place: int, gradients: Mapping[str, torch.Tensor]) -> int:
        """Write the row of a group; returns its number."""
        row = self._rows_of(step)[place]
        projected = project_parts(self.projector, gradients, row % self.projector.batch_rows)
        self.writer.write(row, projected.float().cpu().numpy())
        self._kept.add(row)
        return row

    def unit_row(self, number: int) -> NDArray[np.float16]:
        """A row that was kept, of length 1."""
        return np.array(self.writer.rows[number])

    def _rows_of(self, step: int) -> range:
        first = step // self.num_iterations * self.per_step
        return range(first, first + self.per_step)

    def end_step(self, step: int) -> None:
        """Write zeros for the groups of a step that were not run."""
        nothing = torch.zeros(self.projector.proj_dim).numpy()
        for row in self._rows_of(step):
            if row not in self._kept:
                self.writer.write(row, nothing)
        self._kept.clear()
        self.writer.flush()
