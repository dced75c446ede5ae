r"""Question and answer of a raw row, in the formats that data sets of this field come in.

The question is the first of these fields that has a value:

- `prompt`, as text, or as a list of chat messages of which exactly one is the user's (a system message is no part of
  the question; a list with an assistant's turn is refused);
- `question`, `problem`, as text.

verl's copies of DAPO-Math-17k (BytedTsinghua-SIA/DAPO-Math-17k) wrap it into an instruction.  It is taken off where
both its paragraphs are there: the first, which asks for a last line of the form `Answer: $Answer`, and the last, which
reminds of a line of its own after "Answer:".  The recipe's own prompt_template and system_prompt take its place.

The answer is the first of these that has a value: `answer`; `reward_model["ground_truth"]` (verl); `solution`, where it
is a single short line, as in open-r1/DAPO-Math-17k-Processed (elsewhere it is the worked solution).  A number is
written as text, a whole float as an integer: 142.0 is "142".
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from lean_align.errors import DataError

PROMPT_FIELDS = ("prompt", "question", "problem")
ANSWER_FIELDS = ("answer", "reward_model.ground_truth", "solution")
MAX_SOLUTION_CHARS = 200
"""A longer `solution` is a worked one."""

_FIRST_PARAGRAPH = re.compile(
    r"\s*Solve the following math problem[^\n]*\bof the form Answer: \$Answer[^\n]*\n[ \t]*\n"
)
_LAST_PARAGRAPH = re.compile(
    r"\n[ \t]*\n[ \t]*Remember to put your answer on its own line after [^\n]*Answer:[^\n]*\s*\Z"
)


def read_row(row: Any, where: str) -> tuple[str, str]:
    """Question and answer of a raw row, by the rules of the module.

    Parameters
    ----------
    row : mapping
        As it lies in the source.
    where : str
        File and row, named in errors.

    Returns
    -------
    tuple of str
        The question as written, white space at its ends included, and the answer.

    Raises
    ------
    DataError
        When there is no question or no answer, or it is not of a kind named above.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is {type(row).__name__}; expected an object with a prompt and an answer.")
    question = next((row[name] for name in PROMPT_FIELDS if row.get(name) is not None), None)
    if isinstance(question, Sequence) and not isinstance(question, str):
        question = _user_message(question, where)
    if question is not None and not isinstance(question, str):
        raise DataError(f"{where}: the prompt is {type(question).__name__}; expected text, or a list of chat messages.")
    question = unwrap(question or "")
    if not question.strip():
        raise DataError(f"{where} has no prompt: got {sorted(row)}, expected one of {', '.join(PROMPT_FIELDS)}.")
    return question, _answer_of(row, where)


def unwrap(question: str) -> str:
    """Take verl's instruction off a question of DAPO-Math-17k; any other text comes back as it is."""
    first, last = _FIRST_PARAGRAPH.match(question), _LAST_PARAGRAPH.search(question)
    return question[first.end() : last.start()] if first and last and first.end() <= last.start() else question


def _user_message(messages: Sequence[Any], where: str) -> str:
    wrong = [m for m in messages if not (isinstance(m, Mapping) and isinstance(m.get("content"), str))]
    if wrong or not messages:
        held = f"{type(wrong[0]).__name__} {str(wrong[0])[:80]!r}" if wrong else "nothing"
        raise DataError(
            f"{where}: the prompt is a list that holds {held}; expected chat messages, each with a 'role' and text "
            "as 'content'."
        )
    roles = [str(message.get("role")) for message in messages]
    if roles.count("user") != 1 or set(roles) - {"user", "system"}:
        raise DataError(
            f"{where}: the prompt is a chat of {', '.join(roles)}; expected one user message, which asks the question, "
            "and no other turn but a system message."
        )
    return str(messages[roles.index("user")]["content"])


def _answer_of(row: Mapping[str, Any], where: str) -> str:
    reward_model = row.get("reward_model")
    truth = reward_model.get("ground_truth") if isinstance(reward_model, Mapping) else None
    for value in (row.get("answer"), truth):
        if value is not None and (text := _as_text(value, where)):
            return text
    solution = _as_text(row["solution"], where) if row.get("solution") is not None else ""
    if "\n" in solution or len(solution) > MAX_SOLUTION_CHARS:
        raise DataError(
            f"{where} has no answer: its `solution`, of {len(solution)} characters, is a worked one; expected a field "
            f"'answer' with the final answer alone, or a `solution` of one line and {MAX_SOLUTION_CHARS} characters."
        )
    if not solution:
        raise DataError(
            f"{where} has no answer: got {sorted(row)}, expected a field 'answer' with a value "
            f"(or {' or '.join(ANSWER_FIELDS[1:])})."
        )
    return solution


def _as_text(value: Any, where: str) -> str:
    """The answer as text, empty where a float is NaN: that is how tables write a missing one."""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return float_text(value)
    if isinstance(value, str | int):
        return str(value).strip()
    raise DataError(f"{where}: the answer is {type(value).__name__}; expected text or a number.")


def float_text(value: float) -> str:
    """A float as an answer is written: whole ones as integers, 142.0 as 142."""
    return str(int(value)) if value.is_integer() else str(value)
