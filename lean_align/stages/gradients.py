"""Every prompt's projected gradient into a store, also by several processes: `lean-align gradients RUN --rows a:b`.

Workers share the run folder's lock, and the store refuses two of them on one row.  Whoever leaves last
with every row written gives the stage its manifest and its name.  What each cost is kept in
`workers/` until then: the manifest's seconds are their sum, its peaks the largest.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from lean_align.artifacts import StageFolder, open_stage_folder, read_json, read_manifest, write_json
from lean_align.disk import disk_errors
from lean_align.errors import RowsHeldError
from lean_align.pipeline.environment import made_by
from lean_align.pipeline.folder_locks import stage_lock, turn
from lean_align.pipeline.stage import Rows, Stage, StageRun
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.stages.dependencies import POLICY, asked_for, drawn
from lean_align.stages.gradient_rows import fill_rows, fill_store, open_rows
from lean_align.stages.inputs import POOL
from lean_align.stages.rollout_facts import groups_to_learn
from lean_align.types import Group

WORKERS = "workers"


def run(stage: StageRun) -> None:
    """Fill the store with the projected gradient of each prompt that is not there."""
    fill_store(stage, POOL)
    _add_workers(stage.folder)


def run_rows(recipe: Recipe, run_dir: Path, inputs: dict[str, Any], rows: Rows) -> dict[str, Any]:
    """Fill some rows of the store, and finish the stage when these were the last.

    Parameters
    ----------
    recipe : Recipe
    run_dir : Path
    inputs : dict
        Of the stage.
    rows : tuple of int or None
        First row and the row after the last; None stands for the first and the last of the run.

    Returns
    -------
    dict
        The stage's counts when it finished, else rows, n_rows, n_open and finished.

    Raises
    ------
    RowsHeldError
        When another worker holds rows of the range.
    """
    groups, final = groups_to_learn(run_dir), run_dir / STAGE.folder
    with stage_lock(run_dir, shared=True), disk_errors(run_dir):
        with turn(run_dir):  # the store is opened in turn too: who finishes sees every worker's rows
            if (finished := read_manifest(final)) is not None:  # by another worker, just now
                return dict(finished["counts"])
            folder = open_stage_folder(run_dir, STAGE.folder, inputs)
            store = open_rows(recipe, groups, folder.path, rows)
        started = replace(folder, earlier_seconds=0.0)  # of this worker: the others have records of their own
        with store:
            try:
                fill_rows(recipe, run_dir, folder, groups, store)
            finally:
                _keep_record(started)
        with turn(run_dir):
            if (finished := read_manifest(final)) is not None:
                return dict(finished["counts"])
            n_open = _open_everywhere(recipe, groups, folder.path)
            if n_open == 0:
                folder.started = time.monotonic()  # what came before is in the record
                _add_workers(folder)
                folder.made_by = made_by()
                folder.finish()
                return folder.counts
    held, n = store.first.writable, len(groups)
    note = "other workers are on them" if n_open is None else "run the stage again, without --rows for all of them"
    n_open = int((store.first.written == 0).sum()) if n_open is None else n_open
    say(f"gradients: rows {held.start}:{held.stop} are written; {n_open} of {n} are open, {note}")
    return {"rows": [held.start, held.stop], "n_rows": n, "n_open": n_open, "finished": False}


def _add_workers(folder: StageFolder) -> None:
    """Add what workers cost to a stage that is about to finish, and remove their records."""
    records = [read_json(path) for path in sorted((folder.path / WORKERS).glob("*.json"))]
    if records:
        folder.earlier_seconds += sum(record["wall_seconds"] for record in records)
        folder.earlier_peak_rss_bytes = max(record["peak_rss_bytes"] for record in records)
        vram = (record["peak_vram_bytes"] for record in records if record["peak_vram_bytes"] is not None)
        folder.earlier_peak_vram_bytes = max(vram, default=None)
        shutil.rmtree(folder.path / WORKERS)


def _keep_record(folder: StageFolder) -> None:
    """Write down what this worker cost, under a name that no other attempt has."""
    (folder.path / WORKERS).mkdir(exist_ok=True)
    write_json(folder.path / WORKERS / f"{os.getpid()}-{time.time_ns()}.json", folder.cost())


def _open_everywhere(recipe: Recipe, groups: Sequence[Group], folder: Path) -> int | None:
    """How many rows of the whole store are not written, each checked; None while other workers hold some."""
    try:
        with open_rows(recipe, groups, folder) as whole:
            return len(whole.open_rows())
    except RowsHeldError:
        return None


STAGE = Stage(
    "gradients",
    "gradients",
    "Take each prompt's gradient, project it, and store it.",
    run,
    (*POLICY, "gradients", "rollouts.temperature", "rollouts.max_new_tokens"),
    ("data", "warmup", "rollouts"),
    more_keys=drawn,
    needed=asked_for("gradients"),
    run_rows=run_rows,
    work="gradients",
)
