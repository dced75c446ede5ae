"""Who works in a run folder: one `run` from start to end, or single stages; a lock ends with its process.

    .run.lock   held alone by `lean-align run` until it ends, shared by stages that were started by themselves
    .lock       held by the process of a stage, alone; shared by workers on rows of their own
    .turn       held for a moment by a worker that begins or ends

A stage that a run started knows it by the environment, and leaves `.run.lock` to it.
"""

from __future__ import annotations

import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from lean_align.errors import StageError
from lean_align.progress import say
from lean_align.store.row_locks import keeps_no_locks

LOCK_SECONDS = 5.0
RUN_LOCK, STAGE_LOCK, TURN = ".run.lock", ".lock", ".turn"
RUN_PROCESS = "LEAN_ALIGN_RUN_PROCESS"
"""Environment variable of a stage's process: who it works for, as `.run.lock` says it."""
_held: dict[Path, str] = {}  # run folders that this process holds, and what it wrote into them


@contextmanager
def run_lock(run_dir: Path) -> Iterator[None]:
    """Hold a run folder from the beginning to the end of a run; a folder that stays empty is not left behind.

    Parameters
    ----------
    run_dir : Path
        Made when absent.

    Raises
    ------
    StageError
        At once, when another run works there; after a few seconds, when a stage that was started by itself does.
    """
    made = [folder for folder in (run_dir, *run_dir.parents) if not folder.exists()]
    run_dir.mkdir(parents=True, exist_ok=True)
    try:
        with (run_dir / RUN_LOCK).open("a+") as file:
            _take_alone(file, run_dir)
            holder = _sign(file)
            _held[run_dir.resolve()] = holder
            try:
                yield
            finally:
                del _held[run_dir.resolve()]
                file.truncate(0)
    finally:
        _leave_no_empty(run_dir, made)


@contextmanager
def stage_lock(run_dir: Path, shared: bool = False) -> Iterator[None]:
    """Hold a run folder for one stage.

    Parameters
    ----------
    run_dir : Path
    shared : bool
        Let in other processes that also ask for a shared lock: workers on rows of their own.

    Raises
    ------
    StageError
        At once, when a run works there that did not start this process.
    """
    with _beside_no_run(run_dir), lock(run_dir, shared):
        yield


@contextmanager
def lock(folder: Path, shared: bool = False) -> Iterator[None]:
    """Keep other processes out of a folder that is being filled.

    Parameters
    ----------
    folder : Path
    shared : bool
        Let in other processes that also ask for a shared lock.

    Raises
    ------
    StageError
        When another process works there, and still does after a few seconds (one that was killed may take a moment to
        go).
    """
    with (folder / STAGE_LOCK).open("a+") as file:
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        if not _wait_for(lambda: _try_lock(file, kind)):
            file.seek(0)
            raise StageError(_refusal(f"process {file.read().strip() or '?'} is working in {folder}"))
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def turn(run_dir: Path) -> Iterator[None]:
    """Wait for, and hold, the turn of one worker among those that share a run folder."""
    with (run_dir / TURN).open("a") as file:
        _try_lock(file, fcntl.LOCK_EX, wait=True)
        yield


def child_environment(run_dir: Path) -> dict[str, str]:
    """What a stage's process needs to know that it works for the run which this process is."""
    holder = _held.get(run_dir.resolve())
    return {} if holder is None else {RUN_PROCESS: holder}


@contextmanager
def _beside_no_run(run_dir: Path) -> Iterator[None]:
    """Make runs wait; pass at once in the process of a run of this folder, and in those that it started."""
    with (run_dir / RUN_LOCK).open("a+") as file:
        if run_dir.resolve() not in _held and os.environ.get(RUN_PROCESS) != (_holder(file) or "?"):
            if not _try_lock(file, fcntl.LOCK_SH):
                raise StageError(_refusal(_who(file, run_dir)))
            _sign(file)
        yield


def _take_alone(file: IO[str], run_dir: Path) -> None:
    if _try_lock(file, fcntl.LOCK_EX):
        return
    if not _try_lock(file, fcntl.LOCK_SH) or not _wait_for(lambda: _try_lock(file, fcntl.LOCK_EX)):
        raise StageError(_refusal(_who(file, run_dir)))


def _wait_for(succeeds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + LOCK_SECONDS
    while not succeeds():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _try_lock(file: IO[str], kind: int, wait: bool = False) -> bool:
    """Whether the lock was taken; on a file system without locks it says so, and the work goes on."""
    try:
        fcntl.flock(file, kind if wait else kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if not keeps_no_locks(error):
            raise
        say(f"{file.name} cannot be locked ({error.strerror}): make sure that no other process works in its folder")
    return True


def _sign(file: IO[str]) -> str:
    """Write down who holds the lock, and since when."""
    holder = f"{os.getpid()} {socket.gethostname()} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    file.truncate(0)
    file.write(holder)
    file.flush()
    return holder


def _holder(file: IO[str]) -> str:
    file.seek(0)
    return file.read().strip()


def _who(file: IO[str], run_dir: Path) -> str:
    pid, host, since = [*_holder(file).split(" ", 2), "?", "?", "?"][:3]
    return f"process {pid} on {host} has been working in {run_dir} since {since}"


def _refusal(who: str) -> str:
    return f"{who}. Wait for it, stop it, or choose another --run-dir."


def _leave_no_empty(run_dir: Path, made: list[Path]) -> None:
    if made and [path.name for path in run_dir.iterdir()] == [RUN_LOCK]:
        (run_dir / RUN_LOCK).unlink()
        with suppress(OSError):  # another process has begun there
            for folder in made:
                folder.rmdir()
