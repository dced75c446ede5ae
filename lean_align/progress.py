"""Progress on stderr: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from types import TracebackType


def say(line: str) -> None:
    """Print one line to stderr."""
    print(line, file=sys.stderr, flush=True)


class Progress:
    """Counts work done; use as a context manager.

    Parameters
    ----------
    label : str
        What is counted.
    total : int
        How many there are.
    done : int
        How many were done by an earlier run.
    every_seconds : float
        Least time between two plain lines.
    """

    def __init__(self, label: str, total: int, done: int = 0, every_seconds: float = 10.0) -> None:
        self.label, self.total, self.done, self.every_seconds = label, total, done, every_seconds
        self._bar = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        if self.done:
            say(f"{self.label}: continuing at {self.done} of {self.total}")
        if sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(desc=self.label, total=self.total, initial=self.done, file=sys.stderr)
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more, and show it when it is time."""
        self.done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note)
            self._bar.update(n)
        elif self.done >= self.total or time.monotonic() - self._last_line >= self.every_seconds:
            self._last_line = time.monotonic()
            say(f"{self.label}: {self.done}/{self.total}{' ' + note if note else ''}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
