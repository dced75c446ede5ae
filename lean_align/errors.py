"""Errors a user can meet: each says what was got, what was expected and what to do."""

from __future__ import annotations

REASON_FILE = "LEAN_ALIGN_REASON_FILE"
"""Environment variable of a child process: the file in which it records why it failed."""


class LeanAlignError(Exception):
    """Base of every error that lean_align raises on purpose."""


class RecipeError(LeanAlignError, ValueError):
    """A recipe, or a `--set key=value`, that cannot be used."""


class DataError(LeanAlignError, ValueError):
    """A data set that cannot be read or has nothing usable in it."""


class ModelError(LeanAlignError, ValueError):
    """A model that cannot be loaded or is not of a supported kind."""


class StageError(LeanAlignError, RuntimeError):
    """A stage that could not run: missing inputs, or a failed child process.

    `reason` is what the child said, where it ended with an error of its own; None elsewhere.
    """

    reason: str | None = None


class StaleStageError(StageError):
    """A finished stage whose inputs are no longer those of the recipe."""


class StoreError(LeanAlignError, ValueError):
    """A gradient store that is damaged, or was opened with other inputs."""


class RowsHeldError(StoreError):
    """Rows of a gradient store that another writer is filling."""


class GradientError(LeanAlignError, ArithmeticError):
    """A gradient that is missing, NaN or infinite; the message names parameter and prompt."""


class NothingToLearnError(LeanAlignError, RuntimeError):
    """No prompt has completions with different rewards, so no gradient exists."""


class DiskFullError(LeanAlignError, OSError):
    """The run folder's disk is full."""


class MissingPackageError(LeanAlignError, ImportError):
    """An optional package that the recipe asks for and that is not installed."""


class OutOfMemoryError(LeanAlignError, MemoryError):
    """Work that does not fit into memory even in its smallest pieces; the message names the bytes and the key to
    lower."""
