"""Progress on stderr: a bar with the time left on a terminal, plain lines elsewhere."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

PART_OF_MORE = "LEAN_ALIGN_PART_OF_MORE"
"""Environment variable of stages that are only part of the work: what started them shows the time left."""
_WITHOUT_TIME = "{l_bar}{bar}| {n_fmt}/{total_fmt}{postfix}"
_open_bars: list[tqdm] = []


def say(line: str) -> None:
    """Print one line to stderr, above the progress bar if there is one."""
    if _open_bars:
        _open_bars[-1].write(line, file=sys.stderr)
    else:
        print(line, file=sys.stderr, flush=True)


@contextmanager
def part_of_more() -> Iterator[None]:
    """Stages that start within the block, in processes of their own, show no time left."""
    before = os.environ.get(PART_OF_MORE)
    os.environ[PART_OF_MORE] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[PART_OF_MORE]


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
        self._bar: tqdm | None = None
        self._last_line = time.monotonic()

    def __enter__(self) -> Progress:
        if self.done:
            say(f"{self.label}: continuing at {self.done} of {self.total}")
        if sys.stderr.isatty():
            from tqdm import tqdm

            layout = _WITHOUT_TIME if PART_OF_MORE in os.environ else None
            self._bar = tqdm(
                desc=self.label,
                total=self.total,
                initial=self.done,
                file=sys.stderr,
                dynamic_ncols=True,
                bar_format=layout,
            )
            _open_bars.append(self._bar)
        return self

    def advance(self, n: int = 1, note: str = "") -> None:
        """Count `n` more, and update the display when that is due."""
        self.done += n
        if self._bar is not None:
            self._bar.set_postfix_str(note, refresh=False)
            self._bar.update(n)
        elif self.done >= self.total or time.monotonic() - self._last_line >= self.every_seconds:
            self._last_line = time.monotonic()
            say(f"{self.label}: {self.done}/{self.total}{' ' + note if note else ''}")

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            _open_bars.remove(self._bar)
            self._bar.close()


def duration(seconds: float) -> str:
    """Seconds as people say them, to the minute where it is more than two: `40 s`, `25 min`, `1 h 20 min`."""
    if seconds < 120:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
