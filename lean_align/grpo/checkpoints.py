"""Checkpoints of a training: written beside, renamed when whole, two of them kept."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lean_align.advice import made_anew
from lean_align.errors import StageError
from lean_align.policy.saving import writing_tensors

COMPLETE = "complete"
STATE = "state.pt"
KEPT = 2


def last_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written whole; later, torn ones are deleted."""
    found = sorted(folder.glob("checkpoint-*"), key=steps_of, reverse=True)
    for path in found:
        if (path / COMPLETE).exists():
            return path
        shutil.rmtree(path)
    return None


def steps_of(checkpoint: Path) -> int:
    """Optimiser steps that had been taken."""
    return int(checkpoint.name.split("-")[1])


def save_checkpoint(folder: Path, steps: int, state: dict[str, Any]) -> None:
    """Write a checkpoint, and let go of all but the last two.

    Parameters
    ----------
    folder : Path
        Of all checkpoints.
    steps : int
        Optimiser steps taken.
    state : dict
        Tensors and plain values.

    Raises
    ------
    DiskFullError
    """
    with written_whole(folder / f"checkpoint-{steps}") as partial, writing_tensors(folder):
        with (partial / STATE).open("wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        (partial / COMPLETE).touch()
    for old in sorted(folder.glob("checkpoint-*"), key=steps_of)[:-KEPT]:
        _drop(old)


@contextmanager
def written_whole(folder: Path) -> Iterator[Path]:
    """A folder to fill beside `folder`, which takes its place when the block has ended."""
    partial = folder.with_name(f"partial-{folder.name.rpartition('-')[2]}")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)


def drop_checkpoints(folder: Path) -> None:
    """Delete all of them: what a training leaves is written."""
    for checkpoint in sorted(folder.glob("checkpoint-*"), key=steps_of):
        _drop(checkpoint)
    shutil.rmtree(folder, ignore_errors=True)


def _drop(checkpoint: Path) -> None:
    """Delete one, which is not whole from the first moment on."""
    (checkpoint / COMPLETE).unlink(missing_ok=True)
    shutil.rmtree(checkpoint)


def read_checkpoint(checkpoint: Path) -> dict[str, Any]:
    """The state of a checkpoint, on the CPU.

    Raises
    ------
    StageError
        When it is damaged, or another backend wrote it.
    """
    path = checkpoint / STATE
    try:
        return dict(torch.load(path, map_location="cpu", weights_only=True))
    except (OSError, RuntimeError, EOFError, ValueError, KeyError) as error:
        raise StageError(f"{path} cannot be read ({error}). {made_anew(checkpoint.parent.parent)}") from error
