"""What `selection.target` names: problems of what is wanted, from a file or the hub, set apart, or generated."""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from pathlib import Path

from lean_align.errors import RecipeError

HELD_OUT, TESTBED = "held-out", "testbed"
FEWEST_PROBLEMS = 4
"""With fewer, the mean gradient of the target is that of a single problem."""

_EXPECTED = (
    f"expected a file, a hub id, {HELD_OUT}:N or {TESTBED}:N, such as {HELD_OUT}:64, with N at least {FEWEST_PROBLEMS}"
)
_NAMED = re.compile(r"([A-Za-z_-]+):(.*)", re.DOTALL)


@dataclass(frozen=True)
class TargetSource:
    """Where the problems of a target come from.

    Attributes
    ----------
    source : str
        `held-out` (rows of the training data, set apart), `testbed` (generated), or a file or hub id.
    n : int or None
        How many; None of a file or a hub id, whose rows are all taken.
    """

    source: str
    n: int | None = None

    @property
    def is_rows(self) -> bool:
        """Whether it is a file or a hub id."""
        return self.n is None


def read_target(text: str) -> TargetSource:
    """Read `selection.target`.

    Raises
    ------
    RecipeError
        When it is neither `held-out:N` nor `testbed:N`, nor can be a file or a hub id.

    Examples
    --------
    >>> read_target("held-out:64")
    TargetSource(source='held-out', n=64)
    >>> read_target("problems.jsonl")
    TargetSource(source='problems.jsonl', n=None)
    """
    name, number = found.groups() if (found := _NAMED.fullmatch(text)) else (text, None)
    if name in (HELD_OUT, TESTBED):
        digits = number or ""
        if not (digits.isascii() and digits.isdigit() and int(digits) >= FEWEST_PROBLEMS):
            raise RecipeError(f"selection.target is {text!r}; {_EXPECTED}.")
        return TargetSource(name, int(digits))
    if not text.strip() or text == "demo" or (number is not None and not Path(text).exists()):
        near = difflib.get_close_matches(name, (HELD_OUT, TESTBED), n=1)
        offer = f" Did you mean {near[0]}:{number}?" if near and number else ""
        raise RecipeError(f"selection.target is {text!r}; {_EXPECTED}.{offer}")
    return TargetSource(text)
