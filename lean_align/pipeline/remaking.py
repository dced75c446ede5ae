"""A choice made anew where the recipe asks for another one: what was sampled for the last is used again.

-n 500, then -n 200        rollouts and gradients stay, scores and selection take seconds
"""

from __future__ import annotations

import shutil
from pathlib import Path

from lean_align.artifacts import read_manifest
from lean_align.errors import StageError, StaleStageError
from lean_align.pipeline.graph import Stage, is_finished, needed_stages, stage_inputs
from lean_align.pipeline.locks import stage_lock
from lean_align.progress import say
from lean_align.recipe import Recipe

_CHOICE = ("scores", "selection")
"""Stages of seconds that depend on what is chosen."""
_AFTER = ("training", "evaluation", "report")


def forget_old_choice(recipe: Recipe, run_dir: Path) -> None:
    """Delete the scores and the selection of a run folder that were made from another recipe.

    Nothing is deleted where a stage before them was made from other inputs too, or where a training has begun: the run
    says what does not fit.

    Raises
    ------
    StaleStageError
        As a run does, of a stage before the choice.
    StageError
        When another process works there.
    """
    if not run_dir.is_dir() or any((run_dir / f"{name}{end}").exists() for name in _AFTER for end in ("", ".partial")):
        return
    stages = needed_stages(recipe)
    for stage in stages:
        if stage.folder in _CHOICE or not is_finished(stage, recipe, run_dir):
            break
    for stage in stages:
        if stage.folder in _CHOICE and _is_old(stage, recipe, run_dir):
            with stage_lock(run_dir):
                shutil.rmtree(run_dir / stage.folder)
            say(f"{stage.folder}: made anew, for what is asked for now")


def _is_old(stage: Stage, recipe: Recipe, run_dir: Path) -> bool:
    manifest = read_manifest(run_dir / stage.folder)
    if manifest is None:
        return False
    try:
        return bool(manifest["inputs"] != stage_inputs(stage, recipe, run_dir))
    except StaleStageError:
        return False  # a file that it reads was changed: the run refuses that
    except StageError:
        return True  # a stage that it reads now is still to come
