"""Commands of lean_align in processes of their own that begin with its libraries imported.

Importing torch, transformers and trl takes most of a small stage's time.  A server imports them once and forks; what
runs in a fork is the command itself, from its arguments to its exit status, and it can be killed like any process.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from multiprocessing.context import ForkServerContext
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PRELOADED = [
    "bitsandbytes",
    "datasets",
    "matplotlib.figure",
    "peft",
    "pyarrow.parquet",
    "trl.trainer.grpo_trainer",
    "lean_align.cli",
    "lean_align.gradients",
    "lean_align.grpo",
    "lean_align.stages",
    "lean_align.rollouts",
]
"""Libraries of every stage; none of them starts a thread when it is imported."""


class Done(NamedTuple):
    """What a command left: as `subprocess.CompletedProcess` has it."""

    returncode: int
    stdout: str
    stderr: str


class Command:
    """A command that runs; `python -m lean_align` is left out of its arguments."""

    def __init__(self, *arguments: object) -> None:
        self._written = Path(tempfile.mkdtemp(prefix="forked-"))
        self._process = _server().Process(target=_main, args=([str(a) for a in arguments], self._written))
        self._process.start()

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    def wait(self) -> Done:
        self._process.join()
        assert self._process.exitcode is not None
        out, err = ((self._written / name).read_text() for name in ("out", "err"))
        return Done(self._process.exitcode, out, err)


def command(*arguments: object) -> Done:
    """Run a command to its end."""
    return Command(*arguments).wait()


@cache
def _server() -> ForkServerContext:
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when the library of threads is loaded, by the server
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    return context


def _main(arguments: Sequence[str], written: Path) -> None:
    for descriptor, name in ((1, "out"), (2, "err")):
        file = os.open(written / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdin = open(os.devnull)  # noqa: SIM115 - for as long as the process lives
    sys.stdout, sys.stderr = open(1, "w", closefd=False), open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    os.chdir(ROOT)
    from lean_align.cli import main

    sys.modules["lean_align.pipeline.execution"].run_in_child = _run_in_fork  # type: ignore[attr-defined]
    try:
        main(arguments, prog_name="lean-align")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()


def _close_run_lock() -> None:
    """A lock is open in a fork too, and held until that ends; a process that is started has no part in it."""
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(OSError):
            if os.readlink(f"/proc/self/fd/{descriptor}").endswith("/.run.lock"):
                os.close(int(descriptor))


def _run_in_fork(stage: SimpleNamespace, run_dir: Path) -> None:
    """A stage of `run` in a fork of this fork; the parent has run nothing heavy, so that it is as clean."""
    from lean_align.errors import StageError
    from lean_align.progress import say

    say(f"{stage.folder}: starting")
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            from lean_align.cli import main
            from lean_align.pipeline.children import die_with_parent

            die_with_parent()
            _close_run_lock()
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
            main([stage.command, str(run_dir)], prog_name="lean-align")
        except SystemExit as ended:
            status = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
        finally:
            sys.stderr.flush()
            os._exit(status)
    _, status = os.waitpid(child, 0)
    if status:
        raise StageError(f"the {stage.command} stage failed. What was finished before is kept in {run_dir}.")
