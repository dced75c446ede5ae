"""Every stage of a run, in order, each in a process of its own.

A process a stage gives the stage's memory back, and keeps a backend that patches its neighbours away
from the others.  The parent stays without torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lean_align.artifacts import read_json, write_text
from lean_align.choices import choose_backend, choose_engine
from lean_align.disk import disk_errors
from lean_align.errors import REASON_FILE, RecipeError, StageError
from lean_align.memory import address_space_limit, human_bytes, process_environment
from lean_align.pipeline.graph import (
    BY_COMMAND,
    BY_FOLDER,
    Stage,
    check_run,
    is_finished,
    needed_stages,
    refuse_comparison,
)
from lean_align.pipeline.locks import child_environment, run_lock
from lean_align.progress import PART_OF_MORE, say
from lean_align.recipe import Recipe, dump_recipe

_PR_SET_PDEATHSIG = 1


def run(recipe: Recipe, run_dir: Path | str, stop_after: str | None = None) -> dict[str, Any]:
    """Run a recipe in a folder, or continue what an earlier call left there.

    Parameters
    ----------
    recipe : Recipe
    run_dir : Path
        Made when absent.  Finished stages are skipped; a stage that was cut off goes on where it stopped.
    stop_after : str, optional
        Last stage to run, by its command or folder.

    Returns
    -------
    dict
        The run's summary (`RUN/summary.json`), or `{"run_dir", "finished"}` when stopped early.

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
    run_dir, last = Path(run_dir), _last_stage(recipe, stop_after)
    refuse_comparison(run_dir)
    with run_lock(run_dir):
        return _run(recipe, run_dir, last)


def _run(recipe: Recipe, run_dir: Path, last: Stage | None) -> dict[str, Any]:
    with disk_errors(run_dir):
        check_run(recipe, run_dir)
        _check_packages(recipe, run_dir)
        write_text(run_dir / "recipe.yaml", dump_recipe(recipe))
    finished = []
    for stage in needed_stages(recipe):
        if is_finished(stage, recipe, run_dir):
            if PART_OF_MORE not in os.environ:  # a comparison comes here many times
                say(f"{stage.folder}: finished before")
        else:
            _run_in_child(stage, run_dir)
        finished.append(stage.folder)
        if stage == last:
            return {"run_dir": str(run_dir), "finished": finished}
    say(f"report: {run_dir / 'report' / 'index.html'}")
    return dict(read_json(run_dir / "summary.json"))


def _check_packages(recipe: Recipe, run_dir: Path) -> None:
    """Refuse now what a stage hours later would: an engine or a backend that was asked for and is not installed."""
    for stage in needed_stages(recipe):
        if (run_dir / stage.folder).exists():
            continue
        if stage.folder in ("warmup", "training"):
            backend = getattr(recipe, stage.folder).backend
            if backend != "auto":  # that takes what there is, and only a stage has torch to ask
                choose_backend(backend, stage.folder)
        elif stage.folder in ("rollouts", "evaluation") and recipe.rollouts.engine != "auto":
            choose_engine(recipe.rollouts.engine)


def _last_stage(recipe: Recipe, stop_after: str | None) -> Stage | None:
    if stop_after is None:
        return None
    stage = BY_COMMAND.get(stop_after) or BY_FOLDER.get(stop_after)
    stages = needed_stages(recipe)
    if stage is None or stage not in stages:
        names = ", ".join(s.command for s in stages)
        raise RecipeError(f"--stop-after is {stop_after!r}; expected one of this recipe's stages: {names}.")
    return stage


def _run_in_child(stage: Stage, run_dir: Path) -> None:
    say(f"{stage.folder}: starting")
    command = [sys.executable, "-m", "lean_align", stage.command, str(run_dir)]
    environment = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",  # trl reports each trainer otherwise
    }
    environment |= process_environment(os.environ) | child_environment(run_dir)
    with TemporaryDirectory() as scratch:
        told = Path(scratch) / "reason"
        done = subprocess.run(
            command,
            stdout=subprocess.DEVNULL,
            env=environment | {REASON_FILE: str(told)},
            preexec_fn=_die_with_parent,
            check=False,
        )
        reason = told.read_text(encoding="utf-8") if told.exists() else None
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        raise StageError(
            f"the {stage.command} stage was ended by {name}"
            + (" (most often: out of memory)" if name == "SIGKILL" else "")
            + _limit_note()
            + ". What it wrote is kept: the same command continues the run."
        )
    if done.returncode:
        error = StageError(f"the {stage.command} stage failed. What was finished before is kept in {run_dir}.")
        error.reason = reason
        raise error


def _limit_note() -> str:
    limit = address_space_limit()
    return "" if limit is None else f" (the address space is limited to {human_bytes(limit)}, ulimit -v)"


def _die_with_parent() -> None:
    """Ask the kernel to end this child when the parent ends, so that no orphan writes to the run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
