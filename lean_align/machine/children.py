"""Run a probe in a process of its own: a crash, a hang or an import that fails is a fact, never a traceback.

The child has a session of its own, and is killed with what it started when its time is over.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lean_align.machine.findings import Report

SECONDS = {"hub": 30.0}
OTHER_SECONDS = 300.0
"""Long: a first import of Unsloth or vLLM compiles, and reads gigabytes from a cold disk."""


def run_probe(name: str, environment: Mapping[str, str] | None = None, seconds: float | None = None) -> Report:
    """Run one of `lean_align.machine.probes` in a child process.

    Parameters
    ----------
    name : str
    environment : mapping, optional
        Variables put over those of this process.
    seconds : float, optional
        Wall-clock limit; by the probe's name when not given.

    Returns
    -------
    Report
        What the probe reported, else why it did not: its error, the signal that ended it, or the time it took.
    """
    seconds = SECONDS.get(name, OTHER_SECONDS) if seconds is None else seconds
    # files, not pipes: a pipe stays open as long as any process that the child started
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output, errors = Path(folder) / "stdout", Path(folder) / "stderr"
        with output.open("wb") as out, errors.open("wb") as err:
            process = _start(name, {"TMPDIR": folder, **(environment or {})}, stdout=out, stderr=err)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return Report({}, f"no answer in {seconds:g} s")
            finally:
                _end(process)
        return _report(output.read_text(errors="replace"), errors.read_text(errors="replace"), code)


def _start(name: str, environment: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    paths = [os.path.abspath(path) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lean_align.machine.probes", name],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        start_new_session=True,
        **streams,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _report(output: str, errors: str, code: int) -> Report:
    try:
        report = json.loads(output)
        return Report(report["values"], report["error"])
    except (ValueError, KeyError, TypeError):
        last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return Report({}, f"{ended}: {last}" if last else ended)
