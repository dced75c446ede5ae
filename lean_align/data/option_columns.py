"""Options that lie in columns of their own: `A`, `B`; `opa`, `opb`; `option_a`, `optionB`; `choice1`, `choice2`."""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

from lean_align.data.columns import RowError, value_of

NO_OPTION = "gold is none of the options"

_COLUMN = re.compile(r"(?i:(option|opt|op|choice)[ _-]?([a-z]|[0-9]{1,2}))|()([A-Z])")
"""A lone letter is a column of options as a capital only: `a` and `b` are numbers of a sum as often."""


def option_columns(row: Mapping[str, Any], where: str, question: str = "") -> dict[str, str]:
    """Texts of the options in columns of their own, by letter or number; empty where a row has fewer than two.

    The columns are named from A, 0 or 1 on, without a gap.  The last of them may hold nothing.

    Raises
    ------
    RowError
        When one of them holds nothing and one behind it does.
    """
    families: dict[str, dict[str, str]] = defaultdict(dict)
    for name in row:
        found = _COLUMN.fullmatch(name) if isinstance(name, str) else None
        if found:
            families[(found[1] or "").lower()].setdefault((found[2] or found[4]).upper(), name)
    for columns in families.values():
        labels = _from_the_first(columns)
        values = [value_of(row, columns[label]) for label in labels]
        texts = {label: str(v).strip() for label, v in zip(labels, values) if isinstance(v, str | int | float)}
        if len(texts) < 2 or len(texts) != sum(value is not None for value in values):
            continue
        if list(texts) != labels[: len(texts)]:
            gap = next(label for label in labels if label not in texts)
            reason = f"has no text in the column {columns[gap]!r}, an option, and has some in one behind it."
            raise RowError(where, NO_OPTION, reason, question)
        return texts
    return {}


def _from_the_first(columns: Mapping[str, str]) -> list[str]:
    """The labels in order up to the first that has no column; of letters and numbers those that there are more of."""
    numbers = [str(number) for number in range(int("0" not in columns), 100)]
    found: list[list[str]] = [[], []]
    for labels, known in zip(found, (string.ascii_uppercase, numbers)):
        for label in known:
            if label not in columns:
                break
            labels.append(label)
    return max(found, key=len)
