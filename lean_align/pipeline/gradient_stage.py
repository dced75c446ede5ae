"""The gradient stage: every prompt's projected gradient into the store of the run folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from lean_align.artifacts import StageFolder
from lean_align.errors import NothingToLearnError, RecipeError
from lean_align.pipeline.diagnosis import rollout_facts, rollout_lines
from lean_align.pipeline.inputs import read_groups, sampling_policy
from lean_align.progress import Progress
from lean_align.recipe import Recipe
from lean_align.store import StoreWriter
from lean_align.types import Group

if TYPE_CHECKING:
    import torch

    from lean_align.gradients import Projector
    from lean_align.policy import Policy


def take_gradients(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Fill the store with the projected gradient of each prompt that is not there."""
    groups = groups_to_learn(run_dir)
    with open_rows(recipe, groups, folder.path) as store:
        fill_rows(recipe, run_dir, folder, groups, store)


def groups_to_learn(run_dir: Path) -> list[Group]:
    """Every group of the rollouts.

    Raises
    ------
    NothingToLearnError
        When no group has rewards that differ.
    """
    groups = read_groups(run_dir)
    if not any(group.learnability > 0 for group in groups):
        lines = rollout_lines(rollout_facts(groups), groups)
        raise NothingToLearnError("\n".join(lines) + f"\nThe rollouts are kept in {run_dir / 'rollouts'}.")
    return groups


def open_rows(
    recipe: Recipe, groups: Sequence[Group], folder: Path, rows: tuple[int | None, int | None] = (None, None)
) -> StoreWriter:
    """Open the store for a half-open range of rows; None stands for the first and after the last.

    Raises
    ------
    StoreError
        When another writer holds rows of the range.
    RecipeError
        When the range is not within the run's prompts.
    """
    ids = [group.prompt.prompt_id for group in groups]
    return StoreWriter.open(folder, ids, recipe.gradients.proj_dim, _range_of(rows, len(groups)))


def fill_rows(recipe: Recipe, run_dir: Path, folder: StageFolder, groups: Sequence[Group], store: StoreWriter) -> None:
    """Write the store's rows that are not there, and flush; the stage's counts go to `folder`."""
    n_learnable = sum(group.learnability > 0 for group in groups)
    folder.counts |= {"n_rows": len(groups), "n_learnable": n_learnable}
    _write_open_rows(recipe, run_dir, folder, groups, store)
    store.flush()


def _range_of(rows: tuple[int | None, int | None], n: int) -> range:
    start, stop = rows[0] or 0, n if rows[1] is None else rows[1]
    if not 0 <= start < stop <= n:
        asked = ":".join("" if end is None else str(end) for end in rows)
        raise RecipeError(f"--rows is {asked}; expected a:b with 0 <= a < b <= {n}, the number of prompts of the run.")
    return range(start, stop)


def _write_open_rows(
    recipe: Recipe, run_dir: Path, folder: StageFolder, groups: Sequence[Group], store: StoreWriter
) -> None:
    from lean_align.gradients import check_log_probs
    from lean_align.projection import make_projector

    policy, settings = sampling_policy(recipe, run_dir), recipe.gradients
    if settings.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    check_log_probs(policy, next(group for group in groups if group.learnability > 0))
    sizes = {name: parameter.numel() for name, parameter in policy.lora_parameters.items()}
    projector = make_projector(settings.projection, sizes, settings.proj_dim, recipe.seed, policy.device)
    folder.counts["projection"] = projector.fingerprint()
    open_rows = store.open_rows()
    gradients = _gradients_of(recipe, policy, groups, open_rows, projector)
    with Progress("gradients", len(store.writable), len(store.writable) - len(open_rows)) as progress:
        for row, (_, projected) in zip(open_rows, gradients):
            store.write(row, projected.numpy())
            progress.advance()


def _gradients_of(
    recipe: Recipe, policy: Policy, groups: Sequence[Group], rows: Sequence[int], projector: Projector
) -> Iterator[tuple[str, torch.Tensor]]:
    """Projected gradients of some rows, in their order; `groups` is the whole run, whatever the rows."""
    from lean_align.gradients import prompt_gradients

    settings = recipe.gradients
    return prompt_gradients(
        policy,
        (groups[row] for row in rows),
        projector,
        recipe.rollouts.temperature,
        settings.token_budget,
        settings.logprob_chunk,
    )
