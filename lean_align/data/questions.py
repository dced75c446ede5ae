"""The question of a raw row: its text or chat, what stands in front of it, and what it must not lack."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from lean_align.data.columns import RowError, structure_of, value_of
from lean_align.errors import DataError

PROMPT_FIELDS = ("prompt", "question", "problem")
CONTEXT_FIELDS = ("body", "context", "passage", "background", "premise")
"""Text that stands in front of the question."""
PICTURE_FIELDS = ("image", "images", "video", "videos", "audio")
NO_PROMPT, NOT_TEXT = "no prompt", "more than text"

_FIRST_PARAGRAPH = re.compile(
    r"\s*Solve the following math problem[^\n]*\bof the form Answer: \$Answer[^\n]*\n[ \t]*\n"
)
_LAST_PARAGRAPH = re.compile(
    r"\n[ \t]*\n[ \t]*Remember to put your answer on its own line after [^\n]*Answer:[^\n]*\s*\Z"
)
_CHAT = re.compile(r"\s*\[\s*\{")


def question_of(row: Mapping[str, Any], where: str, field: str | None) -> tuple[str, str | None]:
    """The question, with its context in front, and the text of a system message.

    Raises
    ------
    RowError
        When the row has no question, or one that is not text alone.
    DataError
        When its question is of a kind that is not read.
    """
    names = PROMPT_FIELDS if field is None else (field,)
    found = next((value for name in names if (value := value_of(row, name)) is not None), None)
    system = None
    if isinstance(found, str) and _CHAT.match(found) and '"role"' in found.replace("'", '"'):
        found = _chat_in(found, where)
    if isinstance(found, Sequence) and not isinstance(found, str):
        found, system = _user_message(found, where)
    if found is not None and not isinstance(found, str):
        raise DataError(f"{where}: the prompt is {type(found).__name__}; expected text, or a list of chat messages.")
    question = unwrap(found or "")
    if not question.strip():
        expected = f"one of {', '.join(PROMPT_FIELDS)}, or data.prompt_field with the name of another"
        if field is not None:
            expected = f"text in {field}, which is data.prompt_field"
        raise RowError(where, NO_PROMPT, f"has no prompt: got {sorted(map(str, row))}, expected {expected}.")
    for name in PICTURE_FIELDS:
        if name not in names and value_of(row, name) is not None:
            raise RowError(where, NOT_TEXT, f"has {name!r} beside its question, which only text is read of.", question)
    return _with_context(row, where, names, question), system


def unwrap(question: str) -> str:
    """Take verl's instruction off a question of DAPO-Math-17k; any other text comes back as it is."""
    first, last = _FIRST_PARAGRAPH.match(question), _LAST_PARAGRAPH.search(question)
    return question[first.end() : last.start()] if first and last and first.end() <= last.start() else question


def _with_context(row: Mapping[str, Any], where: str, names: Sequence[str], question: str) -> str:
    """What stands in front of a question goes in front of it, unless the question holds it already."""
    parts = []
    for name in CONTEXT_FIELDS:
        text = None if name in names else value_of(row, name)
        if text is None:
            continue
        if isinstance(text, Sequence) and not isinstance(text, str) and all(isinstance(part, str) for part in text):
            text = "\n".join(text)
        if not isinstance(text, str):
            raise DataError(
                f"{where}: the field {name!r}, which stands in front of the question, is {type(text).__name__}; "
                "expected text. Write it as text, or leave the column out."
            )
        if text.strip() not in question:
            parts.append(text.strip())
    return "\n".join([*parts, question.strip()]) if parts else question


def _chat_in(text: str, where: str) -> Any:
    found = structure_of(text)
    if found is None:
        raise DataError(
            f"{where}: the prompt is a text that begins like chat messages but is not JSON: {text[:60]!r}; expected "
            "question text, or a list of messages."
        )
    return found


def _user_message(messages: Sequence[Any], where: str) -> tuple[str, str | None]:
    texts = [_content(message, where) for message in messages]
    wrong = [message for message, text in zip(messages, texts) if text is None]
    if wrong or not messages:
        held = f"{type(wrong[0]).__name__} {str(wrong[0])[:80]!r}" if wrong else "nothing"
        raise DataError(
            f"{where}: the prompt is a list that holds {held}; expected chat messages, each with a 'role' and text "
            "as 'content'."
        )
    roles = ["system" if (role := str(m.get("role"))) == "developer" else role for m in messages]
    if roles.count("user") != 1 or set(roles) - {"user", "system"}:
        raise DataError(
            f"{where}: the prompt is a chat of {', '.join(roles)}; expected one user message, which asks the question, "
            "and no other turn but a system message."
        )
    system = "\n".join(text for role, text in zip(roles, texts) if role == "system" and text and text.strip())
    return str(texts[roles.index("user")]), system or None


def _content(message: Any, where: str) -> str | None:
    """Text of a message: the parts of it joined by line breaks, as vLLM joins them for a template that takes text."""
    content = message.get("content") if isinstance(message, Mapping) else None
    if not isinstance(content, Sequence) or isinstance(content, str):
        return content if isinstance(content, str) else None
    parts = [{"text": part} if isinstance(part, str) else part for part in content]
    if not all(isinstance(part, Mapping) for part in parts):
        return None
    other = [str(part.get("type")) for part in parts if not isinstance(part.get("text"), str)]
    if other:
        raise RowError(where, NOT_TEXT, f"has a message with a part of the type {other[0]!r}; only text is read.")
    return "\n".join(part["text"] for part in parts)
