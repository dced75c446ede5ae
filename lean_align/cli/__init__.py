"""The command line: a command parses, calls one function, and prints JSON or a table to stdout."""

from lean_align.cli import comparing, evaluating, machine, running
from lean_align.cli.common import main

__all__ = ["comparing", "evaluating", "machine", "main", "running"]
