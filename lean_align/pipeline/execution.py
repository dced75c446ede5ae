"""The stages of a run: all of them in order, each in a process of its own, or one in this process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from lean_align.advice import removal
from lean_align.artifacts import read_json, read_manifest, stage_folder, write_text
from lean_align.choices import choose_backend, choose_engine
from lean_align.disk import disk_errors
from lean_align.errors import RecipeError, StageError
from lean_align.pipeline.children import run_in_child
from lean_align.pipeline.environment import made_by, set_threads
from lean_align.pipeline.folder_locks import run_lock, stage_lock
from lean_align.pipeline.graph import Graph, refuse_comparison, stored_recipe
from lean_align.pipeline.stage import Rows, Stage, StageRun
from lean_align.progress import PART_OF_MORE, say
from lean_align.recipe import Recipe, dump_recipe


def run_stages(graph: Graph, recipe: Recipe, run_dir: Path | str, stop_after: str | None = None) -> dict[str, Any]:
    """Run a recipe in a folder, or continue what an earlier call left there.

    Parameters
    ----------
    graph : Graph
        The stages that there are.
    recipe : Recipe
    run_dir : Path
        Made when absent.  Finished stages are skipped; a stage that was cut off goes on where it stopped.
    stop_after : str, optional
        Last stage to run, by its command or folder.

    Returns
    -------
    dict
        The run's result (`RUN/summary.json`), or `{"run_dir", "finished"}` when stopped early.

    Raises
    ------
    StaleStageError
        When the folder holds stages made from another recipe, other files or another model.
    MissingPackageError
        When an engine or a backend is asked for and is not installed.
    StageError
        When a stage failed; its own message went to stderr, and is the error's `reason`.  At once, when another run
        works in the folder.
    """
    run_dir, last = Path(run_dir), _last_stage(graph, recipe, stop_after)
    refuse_comparison(run_dir)
    with run_lock(run_dir):
        return _run(graph, recipe, run_dir, last)


def run_stage(graph: Graph, command: str, run_dir: Path, rows: Rows | None = None) -> dict[str, Any]:
    """Run one stage of a run folder in this process, unless it is finished.

    Parameters
    ----------
    graph : Graph
        The stages that there are.
    command : str
        The stage's.
    run_dir : Path
    rows : tuple of int or None, optional
        Only these rows, first and after the last, of a stage that is made of rows; other processes may do others.

    Returns
    -------
    dict
        The stage's counts; with `rows`, while others are open, how many.

    Raises
    ------
    StageError
        When stages before it have not finished, the recipe does without it, or it has no rows.
    """
    stage, recipe = graph.by_command[command], stored_recipe(run_dir)
    if not stage.needed(recipe):
        raise StageError(
            f"the recipe does without {command} (selection.method {recipe.selection.method}, "
            f"warmup.steps {recipe.warmup.steps}); nothing to do."
        )
    if graph.is_finished(stage, recipe, run_dir):
        say(f"{stage.folder}: already finished; to make it again: {removal(run_dir / stage.folder)}")
        return dict((read_manifest(run_dir / stage.folder) or {})["counts"])
    if stage.uses_torch:
        set_threads(recipe)
    inputs = graph.stage_inputs(stage, recipe, run_dir)
    if rows is not None:
        if stage.run_rows is None:
            raise StageError(f"{command} is made in one piece; it takes no --rows.")
        return stage.run_rows(recipe, run_dir, inputs, rows)
    with stage_lock(run_dir):
        if (finished := read_manifest(run_dir / stage.folder)) is not None:  # by a worker, while this process waited
            return dict(finished["counts"])
        with stage_folder(run_dir, stage.folder, inputs, stage.resumable) as folder:
            folder.made_by, folder.beside = made_by(), stage.beside
            stage.run(StageRun(recipe, run_dir, folder, graph))
    return folder.counts


def _run(graph: Graph, recipe: Recipe, run_dir: Path, last: Stage | None) -> dict[str, Any]:
    stages, finished = graph.needed_stages(recipe), list[str]()
    with disk_errors(run_dir):
        graph.check_run(recipe, run_dir)
        _check_packages(stages, recipe, run_dir)
        write_text(run_dir / "recipe.yaml", dump_recipe(recipe))
    for stage in stages:
        if graph.is_finished(stage, recipe, run_dir):
            if PART_OF_MORE not in os.environ:  # a comparison comes here many times
                say(f"{stage.folder}: already finished")
        else:
            run_in_child(stage, run_dir)
        finished.append(stage.folder)
        if stage == last:
            break
    else:
        if stage.page is not None:
            say(f"{stage.folder}: {run_dir / stage.folder / stage.page}")
        if stage.result is not None:
            return dict(read_json(run_dir / stage.result))
    return {"run_dir": str(run_dir), "finished": finished}


def _check_packages(stages: list[Stage], recipe: Recipe, run_dir: Path) -> None:
    """Refuse now what a stage would refuse hours later: an engine or a backend that is asked for and not installed."""
    for stage in stages:
        if (run_dir / stage.folder).exists():
            continue
        if stage.trains is not None:
            backend = getattr(recipe, stage.trains).backend
            if backend != "auto":  # that takes what there is, and only a stage has torch to ask
                choose_backend(backend, stage.trains)
        elif stage.samples and recipe.rollouts.engine != "auto":
            choose_engine(recipe.rollouts.engine)


def _last_stage(graph: Graph, recipe: Recipe, stop_after: str | None) -> Stage | None:
    if stop_after is None:
        return None
    stage = graph.by_command.get(stop_after) or graph.by_folder.get(stop_after)
    stages = graph.needed_stages(recipe)
    if stage is None or stage not in stages:
        names = ", ".join(s.command for s in stages)
        raise RecipeError(f"--stop-after is {stop_after!r}; expected one of this recipe's stages: {names}.")
    return stage
