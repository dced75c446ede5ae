"""A cell of the comparison: one variant with one seed, which is a run of its own.

    DIR/seed-3/learnalign@130/       a run folder: selection, training, evaluation
    DIR/stages/rollouts-1f3a9c02e4/  a stage that several cells read; cells hold links to it

A stage before the selection depends on its recipe keys and on the stages before it.  Cells that agree in these share
one folder: warm-up, rollouts and gradients run once per seed.  Whether a shared stage is what the cell's recipe asks
for is checked by its manifest, as in any run.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from lean_align.advice import removal
from lean_align.artifacts import canonical_json, read_manifest, text_hash, write_text
from lean_align.compare.base_model import lend_base
from lean_align.compare.variants import Variant, cell_folder
from lean_align.errors import LeanAlignError, StageError, StaleStageError
from lean_align.pipeline.graph import picked
from lean_align.pipeline.stage import Stage
from lean_align.recipe import Recipe, dump_recipe
from lean_align.selection import withholding
from lean_align.stages import GRAPH, data, evaluation, run, run_stage, selection, training

STAGES = "stages"


def run_cell(
    folder: Path, variant: Variant, base: Recipe, seed: int, failed: dict[Path, str], finished: Iterable[Path] = ()
) -> Path:
    """Run a cell up to its evaluation, or continue it; returns its run folder.

    `finished` are cells whose evaluation of the base this one may take.  `failed` has the shared stages that did not
    end before, with the reason, and gets those that do not now: other cells that need them do not start them again.

    Raises
    ------
    LeanAlignError
        As a run does; what was finished is kept.
    """
    recipe, cell = variant.recipe(base, seed), cell_folder(folder, variant, seed)
    cell.mkdir(parents=True, exist_ok=True)
    for stage in GRAPH.needed_stages(recipe):
        if stage.shared:
            share_stage(folder, cell, stage, recipe, failed)
    write_text(cell / "recipe.yaml", dump_recipe(recipe))  # the selection runs in this process and reads it
    with withholding(folder):
        run_stage(selection.STAGE.command, cell)
    if not is_done(cell):
        run(recipe, cell, stop_after=training.STAGE.command)
        lend_base(recipe, cell, finished)
    run(recipe, cell, stop_after=evaluation.STAGE.command)
    return cell


def in_one_line(error: Exception) -> str:
    """What went wrong, for a table: what a stage's process said of it comes first."""
    reason = getattr(error, "reason", None)
    return " ".join((f"{reason} ({error})" if reason else str(error)).split())


def is_done(cell: Path) -> bool:
    """Whether a cell has its evaluation."""
    return read_manifest(cell / evaluation.STAGE.folder) is not None


def shared_key(stage: Stage, recipe: Recipe) -> str:
    """Ten hexadecimal digits of all that a stage depends on in the recipe, through the stages before it too."""
    own = picked(recipe, stage.all_keys(recipe))
    before = {s.folder: shared_key(s, recipe) for s in GRAPH.upstream(stage, recipe)}
    return text_hash(canonical_json({"stage": stage.folder, "recipe": own, "before": before}))[:10]


def share_stage(folder: Path, cell: Path, stage: Stage, recipe: Recipe, failed: dict[Path, str]) -> None:
    """Link a stage into a cell; the first cell that needs it runs it.  `failed` is as for `run_cell`."""
    home, link = folder / STAGES / f"{stage.folder}-{shared_key(stage, recipe)}", cell / stage.folder
    if home in failed:
        raise StageError(f"{stage.folder} did not end in another run of this comparison: {failed[home]}")
    if link.is_symlink() and not link.exists():
        link.unlink()  # its stage was deleted: it is made again
    if not home.exists():
        try:
            _make(stage, recipe, cell, home)
        except LeanAlignError as error:
            failed[home] = in_one_line(error)
            raise
    if not link.is_symlink():
        if link.exists():  # ended here and elsewhere, between two calls of which the first was cut off
            shutil.rmtree(link)
        link.symlink_to(os.path.relpath(home, cell))
    for name in stage.beside:  # also over those of a stage that was deleted and made again
        shutil.copyfile(f"{home}.{name}", cell / name)
    try:
        GRAPH.is_finished(stage, recipe, cell)
    except StaleStageError as error:
        raise StaleStageError(
            f"{error}\n{link} is a link to {home}, which other runs share: delete {home}.\n  {removal(link)}"
        ) from error


def _make(stage: Stage, recipe: Recipe, cell: Path, home: Path) -> None:
    """Run a stage in a cell and move it to where all cells find it."""
    home.parent.mkdir(exist_ok=True)
    if stage == data.STAGE:  # a size that the pool does not have is this cell's own fault, and the data everybody's
        recipe = replace(recipe, selection=replace(recipe.selection, n=1))
    run(recipe, cell, stop_after=stage.command)
    for name in stage.beside:
        shutil.copyfile(cell / name, f"{home}.{name}")
    (cell / stage.folder).replace(home)
