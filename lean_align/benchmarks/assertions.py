"""The answers of CRUXEval: an assertion `assert f(INPUT) == OUTPUT` between [ANSWER] and [/ANSWER].

The first pair of tags with a call of f between them counts, else the first pair: CRUXEval stops its models there, so
what they make up after it does not count.  A completion that opens the tag and is cut off is read from there; one that
has no tag, from its last line that begins with `assert f(` or `f(`.  Nothing is run here.
"""

from __future__ import annotations

import ast
import re

MAX_CHARS = 10_000
"""A longer answer counts as none."""

_OPEN, _CLOSE = "[ANSWER]", "[/ANSWER]"
_CALL = re.compile(r"^\s*(?:assert\s+)?f\(", re.MULTILINE)
_FENCE = re.compile(r"^\s*```[a-z]*\s*|\s*```\s*$")
_NO_SOURCE = (SyntaxError, ValueError, MemoryError, RecursionError)


def find_answer(completion: str) -> str | None:
    """What stands in the first tags, or the last line with an assertion; None where there is neither."""
    *closed, rest = completion.split(_CLOSE)
    answers = [text.rpartition(_OPEN)[2] for text in closed if _OPEN in text]
    if not answers and _OPEN in rest:
        answers = [rest.partition(_OPEN)[2]]
    calls = list(_CALL.finditer(completion))
    if answers:
        answer = _FENCE.sub("", next((text for text in answers if "f(" in text), answers[0])).strip()
    else:
        answer = completion[calls[-1].start() :].strip().partition("\n")[0].strip() if calls else ""
    return answer if 0 < len(answer) <= MAX_CHARS else None


def output_of(answer: str) -> str | None:
    """The text right of the `==` of an assertion; all of an answer that is not an assertion, such as `"ab"`."""
    compared = _comparison(answer)
    if compared is None:
        return answer if "==" not in answer else answer.rpartition("==")[2].strip()
    return ast.get_source_segment(answer, compared.comparators[0])


def arguments_of(answer: str) -> str | None:
    """The text between the parentheses of `f(...)`, None where the answer is not a call of f."""
    compared = _comparison(answer)
    call = compared.left if compared is not None else _expression(answer)
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "f"):
        return None
    text = ast.get_source_segment(answer, call) or ""
    return text.partition("(")[2].rpartition(")")[0]  # of `f(...)` alone, so the first and the last are its own


def _comparison(answer: str) -> ast.Compare | None:
    """The last `==` between two values that is asserted, or stands alone."""
    try:
        body = ast.parse(answer).body
    except _NO_SOURCE:
        return None
    statements = [node.test if isinstance(node, ast.Assert) else getattr(node, "value", None) for node in body]
    equal = [s for s in statements if isinstance(s, ast.Compare) and [type(op) for op in s.ops] == [ast.Eq]]
    return equal[-1] if equal else None


def _expression(answer: str) -> ast.expr | None:
    try:
        return ast.parse(answer, mode="eval").body
    except _NO_SOURCE:
        return None
