"""The command line: a command parses, calls one function, and prints JSON or a table to stdout."""

from lean_align.cli import evaluating, machine, running
from lean_align.cli.common import main

__all__ = ["evaluating", "machine", "main", "running"]
