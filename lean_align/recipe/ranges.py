"""Fields of a recipe with what values they take."""

from __future__ import annotations

from dataclasses import field
from typing import Any


def choice(default: str, *others: str) -> Any:
    """A field that takes one of a few words."""
    return field(default=default, metadata={"choices": (default, *others)})


def number(default: float, low: float, high: float = float("inf")) -> Any:
    """A field that takes a number in [low, high]."""
    return field(default=default, metadata={"low": low, "high": high})
