"""The short way: my prompts, my model, N of them chosen."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lean_align.artifacts import read_json
from lean_align.data import FORMATS
from lean_align.errors import DataError, RecipeError
from lean_align.pipeline.chosen_rows import chosen_rows
from lean_align.pipeline.remaking import forget_old_choice
from lean_align.pipeline.run import run
from lean_align.pipeline.selected_files import check_output, write_rows
from lean_align.pipeline.selection_stage import SELECTED
from lean_align.recipe import load_recipe

DEMO = "demo"
BASE_RECIPE = "gsm8k"
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
        raise DataError(f"there is no file {prompts}; expected {FORMATS} with one prompt a row, or a folder of them.")
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
    run(recipe, run_dir, "select")
    write_rows(output, chosen_rows(recipe, run_dir / "selection" / SELECTED))
    counts = read_json(run_dir / "selection" / "manifest.json")["counts"]
    return {"output": str(output), "run_dir": str(run_dir), **counts}
