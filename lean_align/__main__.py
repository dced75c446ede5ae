"""`python -m lean_align` is the command `lean-align`."""

from __future__ import annotations

import os
import sys

from lean_align.memory import process_environment


def start() -> None:
    """Run the command, restarted where the environment lacks settings that are read at start-up."""
    environment = process_environment(os.environ)
    if environment != dict(os.environ):
        os.execve(sys.executable, sys.orig_argv, environment)
    try:
        from lean_align.cli import main  # not before: the process would import it twice

        main()
    except KeyboardInterrupt:  # while it was still being imported
        sys.exit(130)


if __name__ == "__main__":
    start()
