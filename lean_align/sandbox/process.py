"""Start a child with its walls, in a folder that is gone when it has ended.

Safe from many threads at once: the child is started by `subprocess` without `preexec_fn`, and puts up its walls itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from lean_align.sandbox.landlock import file_rules, handled_rights
from lean_align.sandbox.outcome import Limits, SandboxError
from lean_align.sandbox.seccomp import filter_program
from lean_align.sandbox.support import require_sandbox
from lean_align.sandbox.watching import Ended, start_watch

# -P and -s keep the working directory and the user's packages off sys.path, -S all other packages.  Not -I, which would
# ignore the hash seed: a function that goes through a set of strings must give the same list every time.
_FLAGS = ("-P", "-s", "-S", "-B", "-X", "utf8=1")
_ENVIRONMENT = {"PYTHONHASHSEED": "0"}
_FOR_THE_LOADER = "LD_LIBRARY_PATH"
"""Some interpreters need it to start.  The child clears its environment before foreign code runs."""


def run_child(
    work: Mapping[str, str], limits: Limits, stdin: str = "", left_out: frozenset[str] = frozenset()
) -> Ended:
    """Run `work` (see `child`) behind the walls.

    Parameters
    ----------
    work : mapping
        `kind` and what it needs.  It goes to the child: nothing that the code must not know belongs in it.
    limits : Limits
    stdin : str
    left_out : frozenset of {"files", "network", "processes", "signals"}
        Walls to leave out.  Only for tests, which show that it is the wall that stops an attack.

    Raises
    ------
    SandboxError
        Where the machine lacks what the walls need, or the child could not put them up.
    """
    # the folder is flat, so removing it cannot fail on depth, links or rights
    with tempfile.TemporaryDirectory(prefix="lean_align_sandbox_") as folder, contextlib.ExitStack() as stack:
        walls = _walls(limits, os.path.realpath(folder), left_out)
        request = stack.enter_context(_sealed(ascii({"walls": walls, "work": dict(work)})))
        given = stack.enter_context(_sealed(stdin))
        watch = start_watch(lambda report: _start(folder, request, given, report), folder, limits)
        return watch.until_end()


def _walls(limits: Limits, folder: str, left_out: frozenset[str]) -> dict[str, Any]:
    support = require_sandbox()
    abi = support.landlock_abi
    return {
        "parent": os.getpid(),
        "limits": {
            # SIGXCPU says what happened; the second number is for code that ignores it
            "RLIMIT_CPU": (limits.cpu_seconds, limits.cpu_seconds + 1),
            "RLIMIT_AS": (limits.memory_bytes,) * 2,
            "RLIMIT_FSIZE": (limits.file_bytes,) * 2,
            "RLIMIT_NOFILE": (limits.open_files,) * 2,
            "RLIMIT_CORE": (0, 0),
            **({} if "processes" in left_out else {"RLIMIT_NPROC": (0, 0)}),  # nothing to root: the filter is the wall
        },
        "landlock": b"" if "files" in left_out else handled_rights(abi, left_out),
        "rules": file_rules(abi, folder, writable=limits.file_bytes > 0),
        "seccomp": filter_program(support.architecture, left_out),
    }


@contextlib.contextmanager
def _sealed(text: str) -> Iterator[int]:
    """A file in memory that holds the text and cannot be changed: no pipe that must be fed while the child runs."""
    file = os.memfd_create("sandbox", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        with open(os.dup(file), "wb") as writer:
            writer.write(text.encode("utf-8", "surrogatepass"))
        os.lseek(file, 0, os.SEEK_SET)
        fcntl.fcntl(file, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        yield file
    finally:
        os.close(file)


@lru_cache
def _child_source() -> str:
    return Path(__file__).with_name("child.py").read_text(encoding="utf-8")


def _start(folder: str, request: int, given: int, report: int) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            [sys.executable, *_FLAGS, "-c", _child_source(), str(request), str(report)],
            stdin=given,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            cwd=folder,
            env={**_ENVIRONMENT, **{k: v for k, v in os.environ.items() if k == _FOR_THE_LOADER}},
            pass_fds=(request, report),
            start_new_session=True,
        )
    except OSError as error:
        raise SandboxError(f"{sys.executable} could not be started: {error}") from error
