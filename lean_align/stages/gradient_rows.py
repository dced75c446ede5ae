"""Rows of the gradient store: each prompt's projected gradient, whoever takes it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import removal
from lean_align.artifacts import StageFolder, changes, read_json, write_json
from lean_align.errors import RecipeError, StoreError
from lean_align.memory import Halving
from lean_align.pipeline.folder_locks import turn
from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import StageRun
from lean_align.progress import Progress, say
from lean_align.recipe import Recipe
from lean_align.stages.inputs import POOL, Sampled, sampling_policy
from lean_align.stages.rollout_facts import groups_to_learn
from lean_align.store import PROJECTION, StoreWriter, open_store
from lean_align.types import Group

if TYPE_CHECKING:
    import torch

    from lean_align.policy import Policy
    from lean_align.projection import Projector

SECOND_SEED = "second_seed"


class RowWriters:
    """The store that is being filled, and its twin under another seed where the recipe wants one.

    Parameters
    ----------
    writers : sequence of StoreWriter
        Over the same rows; `write` gives each its part of a stacked row.
    closing : ExitStack
        Closes them.
    """

    def __init__(self, writers: Sequence[StoreWriter], closing: ExitStack) -> None:
        self.writers, self.first, self._closing = tuple(writers), writers[0], closing

    def open_rows(self) -> list[int]:
        """Rows of the range that are not written in all stores."""
        return sorted({row for writer in self.writers for row in writer.open_rows()})

    def write(self, row: int, projected: NDArray[np.float32]) -> None:
        """Write one row everywhere."""
        for writer, part in zip(self.writers, np.split(projected, len(self.writers))):
            writer.write(row, part)

    def flush(self) -> None:
        """Force what was written to the disk, then flag it."""
        for writer in self.writers:
            writer.flush()

    def __enter__(self) -> RowWriters:
        return self

    def __exit__(self, *error: object) -> None:
        self._closing.close()


def open_rows(
    recipe: Recipe, groups: Sequence[Group], folder: Path, rows: tuple[int | None, int | None] = (None, None)
) -> RowWriters:
    """Open the store for a half-open range of rows; None stands for the first and after the last.

    Raises
    ------
    StoreError
        When another writer holds rows of the range.
    RecipeError
        When the range is not within the run's prompts.
    """
    ids, held = [group.prompt.prompt_id for group in groups], _range_of(rows, len(groups))
    places = (folder, folder / SECOND_SEED) if recipe.gradients.second_seed else (folder,)
    with ExitStack() as opening:  # a store that cannot be opened closes those before it
        writers = [
            opening.enter_context(StoreWriter.open(place, ids, recipe.gradients.proj_dim, held)) for place in places
        ]
        return RowWriters(writers, opening.pop_all())


def fill_store(stage: StageRun, which: Sampled) -> None:
    """Fill the stage's store with the projected gradient of each prompt that is not there."""
    groups = groups_to_learn(stage.run_dir, which)
    with open_rows(stage.recipe, groups, stage.folder.path) as store:
        fill_rows(stage.recipe, stage.run_dir, stage.folder, groups, store, which)


def fill_rows(
    recipe: Recipe,
    run_dir: Path,
    folder: StageFolder,
    groups: Sequence[Group],
    store: RowWriters,
    which: Sampled = POOL,
) -> None:
    """Write the store's rows that are not there, and flush; the stage's counts go to `folder`.

    Rows that the rollouts left, since they were needed to choose whom to sample, are not taken again.
    """
    n_learnable = sum(group.learnability > 0 for group in groups)
    folder.counts |= {"n_rows": len(groups), "n_learnable": n_learnable}
    folder.counts |= {"trained_tokens": _tokens_of_gradients(recipe, groups)}
    folder.counts |= write_open_rows(recipe, run_dir, folder, groups, store, earlier=which.row_folders(run_dir))


def _tokens_of_gradients(recipe: Recipe, groups: Sequence[Group]) -> int:
    """Completion tokens that the gradients of all groups are taken of."""
    from lean_align.gradients import GradientSettings, completion_weights

    settings = GradientSettings.of(recipe)
    used = (
        group.completions[i] for group in groups if group.learnability > 0 for i in completion_weights(group, settings)
    )
    return sum(completion.n_tokens for completion in used)


def _range_of(rows: tuple[int | None, int | None], n: int) -> range:
    start, stop = rows[0] or 0, n if rows[1] is None else rows[1]
    if not 0 <= start < stop <= n:
        asked = ":".join("" if end is None else str(end) for end in rows)
        raise RecipeError(f"--rows is {asked}; expected a:b with 0 <= a < b <= {n}, the number of prompts of the run.")
    return range(start, stop)


def write_open_rows(
    recipe: Recipe,
    run_dir: Path,
    folder: StageFolder,
    groups: Sequence[Group],
    store: RowWriters,
    policy: Policy | None = None,
    earlier: Sequence[Path] = (),
) -> dict[str, Any]:
    """Write a store's rows that are not there, and flush.

    Parameters
    ----------
    recipe : Recipe
    run_dir : Path
    folder : StageFolder
        Of the stage, which is told of halvings.
    groups : sequence of Group
        One per row, at least one with a gradient.
    store : RowWriters
    policy : Policy, optional
        The policy that sampled them; loaded when not given.
    earlier : sequence of Path
        Stores whose rows are taken over.

    Returns
    -------
    dict
        How prompts were passed through the model, and the projection's fingerprints.

    Raises
    ------
    StoreError
        When rows that are there, or an earlier store's, are of another projection.
    """
    from lean_align.gradients import check_log_probs, checkpoint_layers
    from lean_align.projection import recipe_projector

    policy, settings = policy or sampling_policy(recipe, run_dir), recipe.gradients
    if settings.gradient_checkpointing:
        checkpoint_layers(policy)
    path = check_log_probs(policy, next(group for group in groups if group.learnability > 0), settings.share_prompt)
    if settings.share_prompt and not path.shares_prompt:
        say(f"{folder.final.name}: the prompt is computed again for each completion; {path.reason}")
    projector, fingerprints = recipe_projector(settings, policy.lora_sizes, recipe.seed, policy.device)
    check_projection(run_dir, store.first.folder / PROJECTION, fingerprints)
    for place in earlier:
        _take_over(place, store, fingerprints)
    open_rows, writable = store.open_rows(), len(store.first.writable)
    record, shared = recorder(folder, "gradients"), path.shares_prompt
    gradients = _gradients_of(recipe, run_dir, policy, groups, open_rows, projector, shared, record)
    with Progress(folder.final.name, writable, writable - len(open_rows)) as progress:
        for row, (_, projected) in zip(open_rows, gradients):
            store.write(row, projected.numpy())
            progress.advance()
    store.flush()
    return {"path": str(path), **fingerprints}


def _take_over(earlier: Path, store: RowWriters, fingerprints: dict[str, dict[str, object]]) -> None:
    """Copy rows of a finished store to where they are open.

    Raises
    ------
    StoreError
        When they are of another projection.
    """
    _refuse_differences(earlier / PROJECTION, fingerprints, earlier.parents[2])
    sources = [open_store(place) for place in (earlier, earlier / SECOND_SEED)[: len(store.writers)]]
    places = {prompt_id: place for place, prompt_id in enumerate(sources[0].prompt_ids)}
    for row in store.open_rows():
        place = places.get(store.first.prompt_ids[row])
        if place is not None:
            for writer, source in zip(store.writers, sources):
                writer.copy(row, source, place)


def check_projection(run_dir: Path, path: Path, fingerprints: dict[str, dict[str, object]]) -> None:
    """Keep the fingerprints next to the rows, or refuse rows that another projection made.

    The recipe does not say everything: `trak` projects differently on another device or in another release.
    Workers that begin together come here together, so they do it in turn.

    Raises
    ------
    StoreError
        With what differs.
    """
    with turn(run_dir):
        if not path.exists():
            write_json(path, fingerprints)
        _refuse_differences(path, fingerprints, path.parent)


def _refuse_differences(path: Path, fingerprints: dict[str, dict[str, object]], stage: Path) -> None:
    differences = changes(read_json(path), fingerprints)
    if differences:
        raise StoreError(
            f"{path.parent} holds rows of another projection:\n  "
            + "\n  ".join(differences)
            + "\nContinue with the device and packages it was begun with, or delete it to start again:\n  "
            + removal(stage)
        )


def _gradients_of(
    recipe: Recipe,
    run_dir: Path,
    policy: Policy,
    groups: Sequence[Group],
    rows: Sequence[int],
    projector: Projector,
    share_prompt: bool,
    on_halving: Callable[[Halving], None],
) -> Iterator[tuple[str, torch.Tensor]]:
    """Projected gradients of some rows, in their order; `groups` is the whole run, whatever the rows."""
    from lean_align.gradients import GradientSettings, prompt_gradients
    from lean_align.grpo import read_second_moments

    adam = recipe.gradients.precondition == "adam"
    ordinals = dict(zip((i for i, group in enumerate(groups) if group.learnability > 0), count()))
    return prompt_gradients(
        policy,
        (groups[row] for row in rows),
        projector,
        replace(GradientSettings.of(recipe), share_prompt=share_prompt),
        second_moments=read_second_moments(run_dir / "warmup") if adam else None,
        ordinals=[ordinals[row] for row in rows if row in ordinals],
        on_halving=on_halving,
    )
