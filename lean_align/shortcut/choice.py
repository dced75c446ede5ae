"""The short way: my prompts, my model, N of them chosen.

Where the recipe asks for a different choice from last time, what was sampled then is used again.

-n 500, then -n 200        rollouts and gradients stay, scores and selection take seconds
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lean_align.artifacts import read_json, read_manifest
from lean_align.data import FORMATS
from lean_align.errors import DataError, RecipeError, StageError, StaleStageError
from lean_align.pipeline.folder_locks import stage_lock
from lean_align.pipeline.stage import Stage
from lean_align.progress import say
from lean_align.recipe import Recipe, load_recipe
from lean_align.shortcut.chosen_rows import chosen_rows
from lean_align.shortcut.row_files import check_output, write_rows
from lean_align.stages import GRAPH, run, scores, selection
from lean_align.stages.inputs import SELECTED

DEMO = "demo"
BASE_RECIPE = "gsm8k"
_CHOICE = (scores.STAGE, selection.STAGE)
"""Stages of seconds that depend on what is chosen."""
_NO_NAME = re.compile(r"[^\w.,()+=@ -]")


def select_from_file(
    prompts: Path,
    model: str,
    n: int,
    output: Path,
    run_dir: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Choose n prompts of a file for a model, by the settings of `gsm8k` (of `demo` for the embedded model).

    Parameters
    ----------
    prompts : Path
        A file, or a folder of them, with prompt (or question, or problem) and answer: docs/data.md.
    model : str
        Hub id, local folder, or `demo`.
    n : int
    output : Path
        Where the chosen prompts go, best first, with all columns of their rows (`chosen_rows`); .jsonl, .json,
        .parquet, .csv or .tsv, which says the format.
    run_dir : Path, optional
        `<output>.run` when not given; the same call continues it, and one with another n or selection.method uses its
        rollouts and gradients again.
    overrides : mapping, optional
        Recipe keys and values, as for `run`.

    Returns
    -------
    dict
        output, run_dir, and what the selection counted.
    """
    if not prompts.exists():
        raise DataError(f"there is no file {prompts}; expected {FORMATS} with one prompt per row, or a folder of them.")
    if output.resolve() == prompts.resolve():
        raise RecipeError(f"-o is {output}, the file that is read; it would be lost. Give another name.")
    if prompts.is_dir() and prompts.resolve() in output.resolve().parents:
        raise RecipeError(f"-o is {output}, inside the folder that is read; give a place outside {prompts}.")
    check_output(output)
    path = str(prompts.resolve())
    base = {
        "name": f"select-from {_NO_NAME.sub('-', prompts.resolve().name)[:100].strip()}",
        "model.name": model,
        "data.train_path": path,
        "data.config": None,
        "data.test_path": DEMO,  # nothing is evaluated: the stages end with the selection
        "data.demo_test": 1,
        "selection.n": n,
    }
    run_dir = run_dir or output.with_name(output.name + ".run")
    recipe = load_recipe(DEMO if model == DEMO else BASE_RECIPE, {**base, **(overrides or {})})
    forget_old_choice(recipe, run_dir)
    run(recipe, run_dir, selection.STAGE.command)
    made = run_dir / selection.STAGE.folder
    write_rows(output, chosen_rows(recipe, made / SELECTED))
    counts = read_json(made / "manifest.json")["counts"]
    return {"output": str(output), "run_dir": str(run_dir), **counts}


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
    later = GRAPH.stages[GRAPH.stages.index(selection.STAGE) + 1 :]
    begun = any((run_dir / f"{stage.folder}{end}").exists() for stage in later for end in ("", ".partial"))
    if begun or not run_dir.is_dir():
        return
    stages = GRAPH.needed_stages(recipe)
    for stage in stages:
        if stage in _CHOICE or not GRAPH.is_finished(stage, recipe, run_dir):
            break
    for stage in stages:
        if stage in _CHOICE and _is_old(stage, recipe, run_dir):
            with stage_lock(run_dir):
                shutil.rmtree(run_dir / stage.folder)
            say(f"{stage.folder}: made again, for what is asked for now")


def _is_old(stage: Stage, recipe: Recipe, run_dir: Path) -> bool:
    manifest = read_manifest(run_dir / stage.folder)
    if manifest is None:
        return False
    try:
        return bool(manifest["inputs"] != GRAPH.stage_inputs(stage, recipe, run_dir))
    except StaleStageError:
        return False  # a file that it reads was changed: the run refuses that
    except StageError:
        return True  # a stage that it reads now is still to come
