r"""The answer of a raw row as text, and the final answer of a worked one."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from lean_align.data.columns import RowError, value_of
from lean_align.errors import DataError
from lean_align.verify.extraction import TAIL_CHARS

ANSWER_FIELDS = ("answer", "reward_model.ground_truth", "answerKey", "cop", "solution")
MAX_SOLUTION_CHARS = 200
"""A longer `solution` is a worked one."""
NO_ANSWER, SEVERAL = "no answer", "several answers"

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACE = re.compile(r"\\.|[{}]", re.DOTALL)
_SAYS_SO = re.compile(r"(?:the\s+)?(?:final\s+)?answer\s*(?:is\b\s*:?|:)\s*(.+?)\.?\s*", re.IGNORECASE)
_UNIT_IN_BRACKETS = re.compile(r"([-+$]?\d[\d.,/: ]*?)\s*\([^()\d]*\)")
_SCIENTIFIC = re.compile(r"[-+]?\d{1,20}(?:\.\d{0,20})?[eE][-+]?\d{1,2}")


def value_of_answer(row: Mapping[str, Any], where: str, field: str | None, question: str) -> Any:
    """The first answer that a row has, before it is turned into text; for a list of one, its element.

    Raises
    ------
    RowError
        When it has none, or several.
    """
    names = ANSWER_FIELDS if field is None else (field,)
    for name in names:
        found = value_of(row, name)
        while isinstance(found, Sequence) and not isinstance(found, str | bytes) and len(set(map(str, found))) == 1:
            found = value_of({"": found[0]}, "")
        if isinstance(found, Sequence) and not isinstance(found, str | bytes) and found:
            raise RowError(
                where, SEVERAL, f"has {len(found)} answers in {name!r}; expected one.", question, str(found)[:1000]
            )
        if found is not None:
            return found
    expected = f"a value in {field}, which is data.answer_field"
    if field is None:
        expected = f"a field 'answer' with a value (or {' or '.join(names[1:])}), or data.answer_field with its name"
    raise RowError(where, NO_ANSWER, f"has no answer: got {sorted(map(str, row))}, expected {expected}.", question)


def answer_text(value: Any, where: str, question: str, worked: bool) -> str:
    """An answer as text; for a worked one, the final answer.

    Parameters
    ----------
    value
        As `value_of_answer` found it.
    where, question : str
        For the message.
    worked : bool
        Whether a longer text without a mark is refused: a `solution`; an `answer` may be a formula of any length.
    """
    text = _as_text(value, where)
    long = "\n" in text or len(text) > MAX_SOLUTION_CHARS
    final = final_answer(text) if long or "\\boxed" in text else None
    if final is None and long and worked:
        raise RowError(
            where,
            NO_ANSWER,
            f"has no answer: its `solution`, of {len(text)} characters, is a worked one without a \\boxed{{}} or ####; "
            f"expected a field 'answer' with the final answer alone, or a `solution` of one line and "
            f"{MAX_SOLUTION_CHARS} characters.",
            question,
        )
    return mended(text if final is None else final)


def gold_of_options(value: Any) -> Any:
    """What an answer says about options: a worked one may end in the letter."""
    return mended(final_answer(value) or value.strip()) if isinstance(value, str) else value


def final_answer(text: str) -> str | None:
    r"""The final answer that a worked solution marks; None where it marks none.

    The content of its last `\boxed{}`; what follows the last `####` on its line; or what its last line says of itself
    ("The answer is: 7").
    """
    text = text[-TAIL_CHARS:]
    boxes = [found.end() for found in _BOX.finditer(text)]
    inside = _balanced(text, boxes[-1]) if boxes else None
    if inside is not None and inside.strip():
        return inside.strip()
    _, mark, after = text.rpartition("####")
    if mark and after.strip():
        return after.strip().partition("\n")[0].strip()
    said = _SAYS_SO.fullmatch(text.rstrip().rpartition("\n")[2].strip())
    return said[1] if said else None


def mended(answer: str) -> str:
    """An answer without a unit in brackets, `9 (plums)`, and a number like 5e-05 without its exponent."""
    unit = _UNIT_IN_BRACKETS.fullmatch(answer)
    if unit:
        return unit[1]
    return format(Decimal(answer), "f") if _SCIENTIFIC.fullmatch(answer) else answer


def float_text(value: float) -> str:
    """A float as an answer is written: whole ones as integers, 142.0 as 142, and none with an exponent."""
    if not math.isfinite(value):
        return str(value)
    return str(int(value)) if value.is_integer() else format(Decimal(repr(value)), "f")


def _balanced(text: str, start: int) -> str | None:
    depth = 1
    for brace in _BRACE.finditer(text, start):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if depth == 0:
            return text[start : brace.start()]
    return None


def _as_text(value: Any, where: str) -> str:
    if isinstance(value, float):
        return float_text(value)
    if isinstance(value, Decimal):
        return str(int(value)) if value.is_finite() and value == value.to_integral_value() else format(value, "f")
    if isinstance(value, str | int):
        return str(value).strip()
    inside = f" Set data.answer_field to the path of the text inside it: {', '.join(map(str, value))}." * isinstance(
        value, Mapping
    )
    raise DataError(f"{where}: the answer is {type(value).__name__}; expected text or a number.{inside}")
