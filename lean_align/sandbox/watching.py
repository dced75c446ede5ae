"""Watch a child until it ends or overruns, and leave no process behind."""

from __future__ import annotations

import contextlib
import os
import resource
import selectors
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass

from lean_align.sandbox.outcome import Limits, Outcome, SandboxError

LOOK_SECONDS = 0.05
"""How often the size of the throw-away folder is looked at, where anything can be written."""
_READ_BYTES = 65_536


@dataclass(frozen=True)
class Ended:
    """A child that has ended.  `stopped` says why the parent killed it, and is None where it did not."""

    stopped: Outcome | None
    report: bytes
    stdout: bytes
    stderr: bytes
    returncode: int
    wall_seconds: float
    cpu_seconds: float
    peak_rss_bytes: int | None


def start_watch(start: Callable[[int], subprocess.Popen[bytes]], folder: str, limits: Limits) -> _Watch:
    """Start a child that writes its report to the descriptor it is given."""
    began = time.monotonic()
    reading, writing = os.pipe()
    try:
        process = start(writing)
    except BaseException:
        os.close(reading)
        raise
    finally:
        os.close(writing)
    return _Watch(process, reading, folder, limits, began)


class _Watch:
    """One child: its three outputs, and a descriptor that tells its end."""

    def __init__(
        self, process: subprocess.Popen[bytes], report: int, folder: str, limits: Limits, began: float
    ) -> None:
        assert process.stdout is not None
        assert process.stderr is not None
        self._process, self._folder, self._limits, self._began = process, folder, limits, began
        outputs = (report, process.stdout.fileno(), process.stderr.fileno())
        self._outputs = {descriptor: bytearray() for descriptor in outputs}
        self._report = report
        self._stopped: Outcome | None = None

    def until_end(self) -> Ended:
        """Wait, kill where a limit of the parent's is passed, and reap."""
        try:
            with contextlib.closing(selectors.DefaultSelector()) as selector:
                self._look(selector)
        finally:
            status, usage = self._reap()
        wall = time.monotonic() - self._began
        report, stdout, stderr = (bytes(output) for output in self._outputs.values())
        cpu = usage.ru_utime + usage.ru_stime
        code = os.waitstatus_to_exitcode(status)
        return Ended(self._stopped, report, stdout, stderr, code, wall, cpu, _own_peak(usage))

    def _look(self, selector: selectors.BaseSelector) -> None:
        end = os.pidfd_open(self._process.pid)
        try:
            for descriptor in (end, *self._outputs):
                selector.register(descriptor, selectors.EVENT_READ)
            while selector.get_map() and self._stopped is None:
                for key, _ in selector.select(self._patience()):
                    self._take(selector, key.fd, end)
                self._stopped = self._stopped or self._overrun()
        finally:
            os.close(end)

    def _patience(self) -> float:
        left = max(0.0, self._began + self._limits.wall_seconds - time.monotonic())
        return min(left, LOOK_SECONDS) if self._limits.file_bytes else left

    def _take(self, selector: selectors.BaseSelector, ready: int, end: int) -> None:
        if ready == end:
            self._kill()  # the group, so that no descendant holds the outputs open
            selector.unregister(end)
            return
        data = os.read(ready, _READ_BYTES)
        if not data:
            selector.unregister(ready)
        output = self._outputs[ready]
        output += data[: self._limits.output_bytes + 1 - len(output)]

    def _overrun(self) -> Outcome | None:
        if any(len(output) > self._limits.output_bytes for output in self._outputs.values()):
            return "output"
        if self._limits.file_bytes and _folder_is_full(self._folder, self._limits):
            return "files"
        return "timeout" if time.monotonic() - self._began >= self._limits.wall_seconds else None

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):  # not yet reaped, so the number is still this child's
            os.killpg(self._process.pid, signal.SIGKILL)

    def _reap(self) -> tuple[int, resource.struct_rusage]:
        self._kill()
        try:
            _, status, usage = os.wait4(self._process.pid, 0)
        except ChildProcessError as error:
            raise SandboxError(
                "another part of this program took the child's exit status; expected no wait for all children "
                "and no SIG_IGN for SIGCHLD in it"
            ) from error
        finally:
            self._process.returncode = -signal.SIGKILL  # reaped: Popen has nothing left to wait for
            os.close(self._report)
            for stream in (self._process.stdout, self._process.stderr):
                if stream is not None:
                    stream.close()
        return status, usage


def _own_peak(usage: resource.struct_rusage) -> int | None:
    """ru_maxrss, KiB on Linux, begins with the peak of the process that started the child."""
    inherited = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return usage.ru_maxrss * 1024 if usage.ru_maxrss > inherited else None


def _folder_is_full(folder: str, limits: Limits) -> bool:
    total = files = 0
    with os.scandir(folder) as entries:
        for entry in entries:
            files += 1
            with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                total += max(entry.stat(follow_symlinks=False).st_size, 0)
    return files > limits.files or total > limits.file_bytes
