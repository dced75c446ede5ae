"""The state of an online selection on disk: a folder with its arrays (npz) and what they belong to (json).

Both are written into a folder beside, which is renamed when it is whole: equal states are equal files, byte for byte.
"""

from __future__ import annotations

import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from lean_align.advice import removal
from lean_align.disk import disk_errors
from lean_align.errors import DataError, StageError
from lean_align.files import file_hash, read_json, write_json

ARRAYS, BELONGS = "state.npz", "state.json"
FORMAT = 1


def write_state(folder: Path, state: Mapping[str, Any]) -> None:
    """Write a state in place of the one that a folder may hold.

    Parameters
    ----------
    folder : Path
    state : mapping
        `arrays`, a mapping of names to arrays, and further keys with what JSON can hold.

    Raises
    ------
    DiskFullError
    """
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    with disk_errors(folder):
        partial.mkdir(parents=True)
        with (partial / ARRAYS).open("wb") as file:
            np.savez(file, **state["arrays"])
            file.flush()
            os.fsync(file.fileno())
    told = {key: value for key, value in state.items() if key != "arrays"}
    write_json(partial / BELONGS, {"format": FORMAT, "sha256": file_hash(partial / ARRAYS), **told})
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def read_state(folder: Path) -> dict[str, Any]:
    """Read what `write_state` wrote.

    Raises
    ------
    DataError
        When it is missing, damaged, or of a format that is not known.
    """
    if not (folder / BELONGS).is_file():
        raise DataError(f"{folder} holds no state of an online selection: it has no {BELONGS}. Give the folder of one.")
    try:
        told = read_json(folder / BELONGS)
        if told["format"] != FORMAT:
            raise DataError(f"{folder} is of format {told['format']}; expected {FORMAT}. Use what wrote it.")
        if file_hash(folder / ARRAYS) != told["sha256"]:
            raise ValueError(f"{ARRAYS} is not the file that {BELONGS} was written with")
        with np.load(folder / ARRAYS, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except DataError:
        raise
    except (OSError, ValueError, KeyError, TypeError, zipfile.BadZipFile, StageError) as error:
        raise DataError(
            f"the state of an online selection in {folder} is damaged ({error}). Go on from an earlier one, or delete "
            f"it and start again:\n  {removal(folder)}"
        ) from error
    return {**told, "arrays": arrays}


def check_same(found: Mapping[str, str], expected: Mapping[str, str], source: str) -> None:
    """Refuse a state of something else.

    Raises
    ------
    DataError
        Naming the first thing that differs.
    """
    for key in sorted({*found, *expected}):
        if found.get(key) != expected.get(key):
            raise DataError(
                f"{source} belongs to another online selection: its {key} is {found.get(key)}; expected "
                f"{expected.get(key)}. Go on from a state of this one, or start without it."
            )
