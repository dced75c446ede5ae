"""Adapters of a training's own steps: `at_steps/step-S/`, plain peft folders, the same however often it was killed.

One is written beside and renamed when whole, and before the checkpoint of its step: a training that goes on from a
checkpoint has those of the steps before it, and writes later ones again.
"""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from lean_align.grpo.checkpoints import written_whole
from lean_align.policy import save_adapter

AT_STEPS = "at_steps"


def kept_adapter(folder: Path, step: int) -> Path:
    """Where a training's folder has the adapter of a step, counted from 1."""
    return folder / AT_STEPS / f"step-{step}"


def keep_adapter(model: Any, folder: Path, step: int, steps: Collection[int]) -> None:
    """Keep the adapter after a step, where it is one of `steps`.

    Parameters
    ----------
    model : PeftModel
    folder : Path
        The training's.
    step : int
        Optimiser steps taken.
    steps : collection of int

    Raises
    ------
    DiskFullError
    """
    if step in steps:
        with written_whole(kept_adapter(folder, step)) as beside:
            save_adapter(model, beside)
