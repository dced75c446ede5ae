"""Finding a value in a raw row: by name, by a dotted path, and inside text that holds JSON."""

from __future__ import annotations

import ast
import json
import math
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from lean_align.errors import DataError

LONGEST_STRUCTURE = 1_000_000
"""Most characters of a text that is tried as JSON."""


class RowError(DataError):
    """A row that cannot be used, where the file as a whole may be: `kind` is counted, `reason` is written next to the
    row.

    `prompt` and `answer` are what could be read of it.
    """

    def __init__(self, where: str, kind: str, reason: str, prompt: str = "", answer: str = "") -> None:
        super().__init__(f"{where} {reason}")
        self.kind, self.reason, self.prompt, self.answer = kind, reason, prompt, answer


def value_of(row: Mapping[str, Any], name: str) -> Any:
    """The value of a column, None where it is missing or empty.

    A name is looked up as it is, then in any case (`Question`), then as a path: `a.b` is field b inside column a,
    which may be a struct or the JSON text of one; `a.0` is the first of a list.
    """
    found = _held(row, name)
    if found is None and "." in name:
        for part in name.split("."):
            held = row if found is None else _opened(found)
            found = _step(held, part)
            if found is None:
                return None
    return None if _is_empty(found) else found


def structure_of(text: str) -> Any:
    """The list or mapping that a text holds as JSON, or as Python prints it; None where it holds none."""
    bare = text.strip()
    if len(bare) > LONGEST_STRUCTURE or bare[:1] + bare[-1:] not in ("[]", "{}"):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(bare)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list | dict) else None
    return None


def _step(held: Any, part: str) -> Any:
    if isinstance(held, Mapping):
        return _held(held, part)
    if isinstance(held, Sequence) and not isinstance(held, str) and part.isdecimal() and int(part) < len(held):
        return held[int(part)]
    return None


def _held(row: Mapping[str, Any], name: str) -> Any:
    if name in row:
        return row[name]
    return next((value for key, value in row.items() if isinstance(key, str) and key.lower() == name.lower()), None)


def _opened(value: Any) -> Any:
    return structure_of(value) if isinstance(value, str) else value


def _is_empty(value: Any) -> bool:
    """Null, blank text, an empty list, and NaN, which is how tables write a missing value."""
    if isinstance(value, str):
        return not value.strip()
    if isinstance(value, float | Decimal):
        return math.isnan(value)
    return value is None or (isinstance(value, Sequence | Mapping) and not value)
