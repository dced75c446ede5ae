"""What a stage of a run is, as a record: the pipeline knows stages by these facts alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import StageFolder
from lean_align.recipe import Recipe

if TYPE_CHECKING:
    from lean_align.pipeline.graph import Graph

Rows = tuple[int | None, int | None]
"""First row and the row after the last; None stands for the first and the last of the run."""


@dataclass(frozen=True)
class StageRun:
    """What a stage is given: the recipe, the run's folder, its own folder to fill, and the stages of runs."""

    recipe: Recipe
    run_dir: Path
    folder: StageFolder
    graph: Graph


def _nothing(recipe: Recipe) -> tuple[str, ...]:
    return ()


def _no_inputs(recipe: Recipe) -> dict[str, Any]:
    return {}


def _always(recipe: Recipe) -> bool:
    return True


@dataclass(frozen=True)
class Stage:
    """A stage: its names, what its result depends on, what it does, and what others must know of it.

    Attributes
    ----------
    folder, command, help : str
        Its folder in the run, its command, and what the command says of it.
    run : callable
        Fills the stage's folder, and leaves counts for the manifest.  Heavy modules are imported where they are used.
    keys : tuple of str
        Recipe sections, or dotted fields, that its result depends on.
    after : tuple of str
        Folders of the stages that it reads; those that a recipe does without do not count.
    more_keys : callable
        Recipe -> keys that count under this recipe too.
    unread : callable
        Recipe -> those of `after` that it does not read under this recipe.
    more_inputs : callable
        Recipe -> what else its result depends on, such as hashes of files.
    needed : callable
        Recipe -> whether a run has the stage at all.
    run_rows : callable or None
        (recipe, run_dir, inputs, rows) -> counts: does some rows, alongside other processes; None if in one piece.
    resumable : bool
        False for a stage that takes seconds and always starts from scratch.
    beside : tuple of str
        Files that it writes into the run's folder itself.
    result : str or None
        The one of them that a run returns; without it the stage is incomplete.
    page : str or None
        A file of its folder for people, which the end of a run names.
    uses_torch : bool
    samples : bool
        Whether it samples with the recipe's engine.
    trains : str or None
        Section of the recipe that says how it trains.
    shared : bool
        Whether the cells of a comparison share it.
    for_selection : bool
        Whether it is part of what the selection costs.
    work : str or None
        What it mostly does, as plans count it: training, rollouts, gradients or evaluation.
    of_target : bool
        Whether it goes over the problems that the selection aims at, and not over the pool.
    """

    folder: str
    command: str
    help: str
    run: Callable[[StageRun], None]
    keys: tuple[str, ...]
    after: tuple[str, ...] = ()
    more_keys: Callable[[Recipe], tuple[str, ...]] = _nothing
    unread: Callable[[Recipe], tuple[str, ...]] = _nothing
    more_inputs: Callable[[Recipe], dict[str, Any]] = _no_inputs
    needed: Callable[[Recipe], bool] = _always
    run_rows: Callable[[Recipe, Path, dict[str, Any], Rows], dict[str, Any]] | None = None
    resumable: bool = True
    beside: tuple[str, ...] = ()
    result: str | None = None
    page: str | None = None
    uses_torch: bool = True
    samples: bool = False
    trains: str | None = None
    shared: bool = True
    for_selection: bool = True
    work: str | None = None
    of_target: bool = False

    def all_keys(self, recipe: Recipe) -> tuple[str, ...]:
        """The recipe keys that its result depends on under a recipe."""
        return (*self.keys, *self.more_keys(recipe))
