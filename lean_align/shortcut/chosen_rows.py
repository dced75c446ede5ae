"""The chosen prompts as rows of their own file: what the selection says about them, and all that the file says."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from lean_align.artifacts import read_jsonl
from lean_align.data import float_text, load_rows
from lean_align.errors import DataError
from lean_align.recipe import Recipe

MAX_DEPTH = 50
RUN_ID = "run_prompt_id"


def chosen_rows(recipe: Recipe, selected: Path) -> list[dict[str, Any]]:
    """Rows of a finished selection, best first, each with the other columns of the row that it was read from.

    prompt, answer, score and rank are the selection's, and a column of the file with such a name is kept as `own_NAME`
    where it says something else.  prompt_id is the file's own where it has one; the run's id then stands in
    `run_prompt_id`.

    Parameters
    ----------
    recipe : Recipe
        Of the run.
    selected : Path
        Its `selected.jsonl`.

    Raises
    ------
    DataError
        When the file is no longer the one that was read.
    """
    rows = load_rows(recipe.data, "train", recipe.pool)
    return [_joined(found, rows, recipe.data.train_path) for found in read_jsonl(selected)]


def _joined(chosen: Mapping[str, Any], rows: list[dict[str, Any]], source: str) -> dict[str, Any]:
    number = int(chosen["prompt_id"].rpartition("-")[2])
    if number >= len(rows):
        raise DataError(f"{source} has changed since its prompts were chosen. Choose again, in another folder.")
    row, found = {str(name): plain(value) for name, value in rows[number].items()}, dict(chosen)
    if row.get("prompt_id") is not None:
        found |= {"prompt_id": row.pop("prompt_id"), RUN_ID: chosen["prompt_id"]}
    for name, value in row.items():
        if name not in found:
            found[name] = value
        elif value is not None and value != found[name]:
            found[f"own_{name}"] = value
    return found


def plain(value: Any, depth: int = 0) -> Any:
    """A value of a row as JSON has it: numbers that JSON lacks and dates become text, lone surrogates question marks.

    What lies more than `MAX_DEPTH` deep is written as text.
    """
    if depth < MAX_DEPTH and isinstance(value, Mapping):
        return {str(name): plain(held, depth + 1) for name, held in value.items()}
    if depth < MAX_DEPTH and isinstance(value, list | tuple):
        return [plain(held, depth + 1) for held in value]
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, Decimal):
        return format(value, "f")
    if isinstance(value, float) and value - value != 0.0:
        return None if value != value else float_text(value)
    if isinstance(value, datetime.date | datetime.time | datetime.datetime):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float) else str(value)
