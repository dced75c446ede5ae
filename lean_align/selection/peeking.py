"""Golds and evaluation problems are withheld from selection: a method that reaches for them is refused.

A `SelectionPool` has no field for them, and while `no_peeking` is in force no file of the run can be opened, nor one
that is named as a data set's split.  What was opened before (the stores, mapped from disk) stays readable.  A refusal
that a method swallows is raised again at the end.

This catches mistakes and plain cheating; it is not a sandbox.  Python's own ways to open a file are seen, in any
thread, also below NumPy and pandas.  Not seen are libraries that open files in compiled code, as pyarrow does, and
other processes.
"""

from __future__ import annotations

import os
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lean_align.errors import LeanAlignError

WITHHELD_WORDS = ("answer", "gold", "solution", "label", "evaluation", "test", "benchmark")
_SPLIT = re.compile(r"(train|test|dev|valid|validation|eval)(-\d+-of-\d+)?\.(jsonl?|parquet|csv|arrow)")


class WithheldError(LeanAlignError, AttributeError):
    """A selection method asked its pool for golds or evaluation problems."""


class PeekingError(LeanAlignError, PermissionError):
    """A selection method opened a file that may hold golds or evaluation problems."""


class _Guard:
    """What is closed to the method that runs, and what it tried."""

    def __init__(self, withheld: tuple[Path | str, ...]) -> None:
        self.withheld = [place(path) for path in withheld for place in (os.path.realpath, os.path.abspath)]
        self.refused: list[PeekingError] = []

    def check(self, path: str) -> None:
        real, named = os.path.realpath(path), os.path.abspath(path)  # a link's own place counts as well as its target's
        places = [(folder, place) for folder in self.withheld for place in (real, named)]
        inside = any(os.path.commonpath([folder, place]) == folder for folder, place in places)
        if inside or _SPLIT.fullmatch(os.path.basename(path)) or _SPLIT.fullmatch(os.path.basename(real)):
            self.refused.append(
                PeekingError(
                    f"the selection method opened {path}; golds, evaluation problems and the run's files are closed to "
                    "it while it chooses. Take what it needs from the SelectionPool, and name the stage in `needs`."
                )
            )
            raise self.refused[-1]


_also_withheld: list[Path | str] = []
_guards: list[_Guard] = []  # of the process and not of a context: a method's threads are held to it too
_installing = threading.Lock()
_installed = False


def refuse_gold(name: str) -> None:
    """Raise `WithheldError` when an attribute is named like golds or evaluation problems."""
    if not name.startswith("__") and any(word in name.lower() for word in WITHHELD_WORDS):
        raise WithheldError(
            f"a selection method asked its pool for {name!r}: golds and evaluation problems are withheld from "
            "selection. Choose by what the policy did (rewards, gradients) and by the questions (prompts)."
        )


@contextmanager
def no_peeking(run_dir: Path | str | None = None, *withheld: Path | str) -> Iterator[None]:
    """Refuse to open files below a run's folder, and data sets' splits by name, until the block ends.

    Parameters
    ----------
    run_dir : Path, optional
        Of the run; without one only names are looked at.
    *withheld : Path
        Further files and folders, such as the recipe's data.test_path and evaluation.data_dir.

    Raises
    ------
    PeekingError
        Where the file is opened, and at the end when the block kept that to itself.
    """
    _install()
    guard = _Guard((*(() if run_dir is None else (run_dir,)), *withheld, *_also_withheld))
    _guards.append(guard)
    try:
        yield
    finally:
        _guards.remove(guard)
    if guard.refused:
        raise guard.refused[0]


@contextmanager
def withholding(*paths: Path | str) -> Iterator[None]:
    """Close further files and folders to every method that chooses within the block: a comparison's other runs."""
    _also_withheld.extend(paths)
    try:
        yield
    finally:
        del _also_withheld[-len(paths) :]


def _install() -> None:
    global _installed
    with _installing:
        if not _installed:  # a hook stays for the life of the process
            sys.addaudithook(_audit)
            _installed = True


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and _guards and not isinstance(arguments[0], int):  # an int is a file opened before
        path = os.fsdecode(arguments[0])
        for guard in tuple(_guards):
            guard.check(path)
