"""What a field of a recipe can be: its default, and the range or words that it takes."""

from __future__ import annotations

from dataclasses import field
from typing import Any

LATER = {"later": True}
"""Metadata of a field that recipes had not always: its default is what was done before, so that a stage which was made
then is one that has the default."""


def choice(default: str, *others: str, **more: Any) -> Any:
    """A field that takes one of a few words; `more` is further metadata."""
    return field(default=default, metadata={"choices": (default, *others), **more})


def number(default: float | None, low: float, high: float = float("inf"), **more: Any) -> Any:
    """A field that takes a number in [low, high]; `more` is further metadata."""
    return field(default=default, metadata={"low": low, "high": high, **more})


def switch(default: bool, **more: Any) -> Any:
    """A field that is true or false; `more` is further metadata."""
    return field(default=default, metadata=more)
