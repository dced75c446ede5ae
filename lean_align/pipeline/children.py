"""A stage in a process of its own.

One process per stage gives the stage's memory back, and keeps a backend's patches away from the other stages.
The parent never imports torch.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from lean_align.errors import REASON_FILE, StageError
from lean_align.memory import address_space_limit, human_bytes, process_environment
from lean_align.pipeline.folder_locks import child_environment
from lean_align.pipeline.stage import Stage
from lean_align.progress import say

_PR_SET_PDEATHSIG = 1


def run_in_child(stage: Stage, run_dir: Path) -> None:
    """Run the command of a stage.

    Raises
    ------
    StageError
        When it failed; its own message went to stderr, and is the error's `reason`.
    """
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
            preexec_fn=die_with_parent,
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


def die_with_parent() -> None:
    """Ask the kernel to end this child when the parent ends, so that no orphan writes to the run."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
