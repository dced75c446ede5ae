"""The options of a multiple-choice question: lettered lines under the question, and the letter as gold.

Read are `choices` and `options`: a list of texts, with or without their letters in front; a mapping of letters to
texts; a list of mappings with label and text; `{"text": [...], "label": [...]}`; the JSON text of any; and
columns of their own (`option_columns`).  The gold is

1. an option's label, with or without brackets, a period, or the option's text behind it: `B`, `(B)`, `B) 7`;
2. a whole number that is no text: the option at that place, counted from 0, or from 1 where the file shows it
   (`first_place`);
3. the text of exactly one option;
4. a whole number as text (CSV has no other): the option at that place, likewise.

Labels that are numbers are labels, unless the file shows that golds are places counted from elsewhere.

Where 3 and 4 both hold and differ, nobody knows which is meant, and the row cannot be used.
"""

from __future__ import annotations

import re
import string
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from lean_align.data.columns import RowError, structure_of, value_of
from lean_align.errors import DataError

OPTION_FIELDS = ("choices", "options")
ASKED_FOR = "Answer with the letter of the right option."
ASKED_FOR_NUMBER = "Answer with the number of the right option."

_LETTERED = re.compile(r"\s*\(?([A-Za-z])\s*[).:]\s*(.+)", re.DOTALL)
_LABEL = re.compile(
    r"\s*(?:option|choice|answer)?\s*:?\s*\(?([A-Za-z0-9]{1,2})(?:\)|\.|:|\s*$)\s*(.*)", re.DOTALL | re.I
)


def options_of(row: Mapping[str, Any], where: str, question: str = "") -> dict[str, str]:
    """Texts of a row's options by label, in order; empty where it has none.

    Raises
    ------
    RowError
        When one of the columns holds nothing.
    DataError
        When the field is of another form.
    """
    for name in OPTION_FIELDS:
        held = value_of(row, name)
        held = structure_of(held) if isinstance(held, str) else held
        if held is None and value_of(row, name) is None:
            continue
        found = _labelled(held)
        if found is None:
            raise DataError(
                f"{where}: the field {name!r} is {type(value_of(row, name)).__name__} "
                f"{str(value_of(row, name))[:80]!r}; expected the options of the question, as a list of up to 26 texts "
                "or a mapping of letters to texts. Leave the column out where it is not part of the question."
            )
        return found
    return option_columns(row, where, question)


def with_options(question: str, options: Mapping[str, str]) -> str:
    """The question with its options as lines under it, unless it lists them itself."""
    listed = all(
        re.search(rf"(?:^|[\s(]){re.escape(label)}\s*[).:]\s*{re.escape(text)}", question)
        for label, text in options.items()
    )
    lines = [] if listed else ["", *(f"{label}. {text}" for label, text in options.items())]
    asked_for = ASKED_FOR_NUMBER if all(label.isdecimal() for label in options) else ASKED_FOR
    return "\n".join([question.rstrip(), *lines, "", asked_for])


def label_of(answer: Any, options: Mapping[str, str], where: str, question: str, first: int | None = None) -> str:
    """The label of the option that the gold names, by the rules of the module.

    `first` is the place of the first option, 0 or 1, where the file shows it; else 0.

    Raises
    ------
    RowError
        When it names none, or more than one.
    """
    text = str(answer).strip()
    labels = {label.upper(): label for label in options}
    named = _LABEL.fullmatch(text)
    label = labels.get(named[1].upper()) if named else None
    is_number = isinstance(answer, int | float) and not isinstance(answer, bool)
    place = _place(answer, text, options, first or 0)
    if label is not None and label.isdecimal() and first is not None and next(iter(options)) != str(first):
        label = None
    if named and label is not None and _says(options[label], named[2]) and not (is_number and text in options.values()):
        return label
    if is_number and place is not None:
        return place
    same = [label for label, option in options.items() if _key(option) == _key(text)]
    if len(same) == 1 and place in (None, same[0]):
        return same[0]
    if place is not None and not same:
        return place
    why = "is the text of one option and the place of another" if len(same) == 1 else f"is none of its {len(options)}"
    raise RowError(
        where,
        NO_OPTION,
        f"has options and a gold that {why}: {text[:80]!r}; expected a letter, the place from {first or 0}, or an "
        "option's text.",
        question,
        text,
    )


def _labelled(held: Any) -> dict[str, str] | None:
    if isinstance(held, Mapping):
        texts, labels = value_of(held, "text"), value_of(held, "label")
        if isinstance(texts, Sequence) and isinstance(labels, Sequence) and not isinstance(texts, str):
            pairs = list(zip(labels, texts)) if len(labels) == len(texts) else []
        else:
            pairs = [(label, text) for label, text in held.items() if text is not None]  # of a struct some are null
        return _texts(pairs)
    if not isinstance(held, Sequence) or isinstance(held, str):
        return None
    if all(isinstance(option, Mapping) for option in held):
        pairs = [(value_of(option, "label"), value_of(option, "text")) for option in held]
        return _texts(pairs)
    lettered = [_LETTERED.fullmatch(option) if isinstance(option, str) else None for option in held]
    found = [match for match in lettered if match]
    if len(found) == len(held) and [m[1].upper() for m in found] == list(string.ascii_uppercase[: len(found)]):
        return {match[1].upper(): match[2].strip() for match in found}
    return _texts(list(zip(string.ascii_uppercase, held))) if len(held) <= len(string.ascii_uppercase) else None


def _texts(pairs: Sequence[tuple[Any, Any]]) -> dict[str, str] | None:
    whole = all(isinstance(label, str | int) and isinstance(text, str | int | float) for label, text in pairs)
    found = {str(label).strip(): str(text).strip() for label, text in pairs} if whole else {}
    return found if pairs and len(found) == len(pairs) and all(found) else None


def _says(option: str, rest: str) -> bool:
    """Whether nothing, or the option's own text, stands behind its label."""
    return not rest.strip() or _key(rest) == _key(option)


def _place(answer: Any, text: str, options: Mapping[str, str], first: int) -> str | None:
    whole = text.removesuffix(".0") if isinstance(answer, float) else text
    if isinstance(answer, bool) or not (whole.isascii() and whole.isdecimal()):
        return None
    place = int(whole[:4]) - first
    return list(options)[place] if 0 <= place < len(options) else None


def _key(text: str) -> str:
    return " ".join(text.split()).casefold().strip("$. ")


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
