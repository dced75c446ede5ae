"""The short way through a run, as far as the choice: from a file of prompts to a file of the chosen ones."""

from lean_align.shortcut.choice import select_from_file

__all__ = ["select_from_file"]
