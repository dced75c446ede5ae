"""Paths and commands in messages, written so that they can be pasted into a shell as shown."""

from __future__ import annotations

import shlex
from pathlib import Path


def quoted(*paths: Path | str) -> str:
    """Paths as words of a shell command: spaces are quoted, and a leading dash is not taken for an option."""
    return " ".join(shlex.quote(f"./{path}" if str(path).startswith("-") else str(path)) for path in paths)


def removal(*paths: Path) -> str:
    """The command that deletes files and folders; for a link, also what it points to.

    A run of a comparison holds links to stages that its runs share: with the link alone deleted, the damaged stage
    would be linked again.
    """
    linked = [target for path in paths if path.is_symlink() and (target := path.resolve()).exists()]
    return f"rm -r {quoted(*paths, *linked)}"


def made_anew(*paths: Path) -> str:
    """What to do about damaged work; the last line is the command that deletes it."""
    what = "it" if len(paths) == 1 else "them"
    return f"Delete {what}, then run the same command again:\n  {removal(*paths)}"
