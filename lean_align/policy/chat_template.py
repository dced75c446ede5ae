"""What a model's chat template does with messages, found by rendering it, whatever the model is called.

Templates are programs that come with a model.  Each is rendered first in a child with bounds on time and memory
(`template_child`), so that one that never ends is refused in a sentence, before anything costs.
"""

from __future__ import annotations

import inspect
import json
import re
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from lean_align.errors import ModelError, RecipeError

Messages = Sequence[Mapping[str, str]]

CPU_SECONDS, MEMORY_BYTES, MOST_CHARACTERS = 5, 2 * 2**30, 200_000
"""Of rendering a few short messages."""
_WALL_SECONDS = 120  # of a machine that is busy with other things
THOUGHT = ("<think>", "</think>")
_USER, _SYSTEM, _ANSWER = "How many plums?", "Mind the units here.", "There are nine of them."


@dataclass(frozen=True)
class ChatTemplate:
    """What a template was found to do.

    Attributes
    ----------
    takes_system : bool
        Whether a system message before the user's is rendered; where not, its text goes in front of the user's.
    turn_end : str or None
        Token right behind an assistant's text.
    opening : str
        What of a thought the template writes itself, `<think>` and a line break, where the answer begins inside one.
    dated : bool
        Whether it writes today's date.
    unread : tuple of str
        Names in data.chat_template_kwargs that it does not read.
    """

    takes_system: bool
    turn_end: str | None
    opening: str
    dated: bool
    unread: tuple[str, ...]


def put(
    tokenizer: Any,
    messages: Messages,
    variables: Mapping[str, Any],
    generation: bool = True,
    tokenize: bool = False,
) -> Any:
    """What the template makes of messages: a text, or the token ids of that text.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
    messages : sequence of mapping
    variables : mapping
        data.chat_template_kwargs.
    generation : bool
        Whether an answer is to begin behind them.
    tokenize : bool

    Raises
    ------
    ModelError
        When the template raises, whatever it is.
    """
    options = {"return_dict": True} if tokenize else {}
    try:
        found = tokenizer.apply_chat_template(
            list(messages), add_generation_prompt=generation, tokenize=tokenize, **options, **variables
        )
    except Exception as error:  # whatever another's template does
        reason = (str(error).splitlines() or [""])[0][:200]
        raise ModelError(
            f"the chat template cannot be rendered ({type(error).__name__}: {reason}). Fix chat_template.jinja in the "
            "model's folder, or set data.prompt_format=plain."
        ) from error
    return list(found["input_ids"]) if tokenize else str(found)


def read_template(tokenizer: Any, variables: Mapping[str, Any], name: str) -> ChatTemplate:
    """Find out what the template does.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        With a chat template.
    variables : mapping
        data.chat_template_kwargs.
    name : str
        The model's, for messages.

    Raises
    ------
    ModelError
        When it cannot be rendered, takes too long, or leaves out the user's text.
    RecipeError
        When a variable bears a name that is taken.
    """
    _check_names(tokenizer, variables)
    source = _source(tokenizer, name)
    if source is not None:
        _check_bounds(source, json.dumps({**tokenizer.special_tokens_map, **variables}, default=str), name)
    user, system, answer = (
        {"role": role, "content": text} for role, text in (("user", _USER), ("system", _SYSTEM), ("assistant", _ANSWER))
    )
    plain = put(tokenizer, [user], variables)
    if _USER not in plain:
        raise ModelError(
            f"the chat template of {name} leaves out the text of a user's message: it made {plain[:200]!r} of "
            f"{_USER!r}. Fix chat_template.jinja in the model's folder, or set data.prompt_format=plain."
        )
    both = _rendered(tokenizer, [system, user], variables)
    closed = _rendered(tokenizer, [user, answer], variables, generation=False)
    return ChatTemplate(
        both is not None and _SYSTEM in both and _USER in both,
        None if closed is None else _turn_end(tokenizer, closed),
        _opening(plain.rpartition(_USER)[2]),
        source is not None and "strftime_now" in source and "date_string" not in variables,
        tuple(name for name in variables if source is not None and not re.search(rf"\b{re.escape(name)}\b", source)),
    )


def _rendered(tokenizer: Any, messages: Messages, variables: Mapping[str, Any], generation: bool = True) -> str | None:
    """The text; None where the template refuses such messages."""
    try:
        return str(put(tokenizer, messages, variables, generation))
    except ModelError:
        return None


def _turn_end(tokenizer: Any, text: str) -> str | None:
    """The token that begins what stands behind the answer."""
    _, found, behind = text.rpartition(_ANSWER)
    behind = behind.lstrip()
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    names = [token.content for token in added] + list(tokenizer.all_special_tokens)
    fitting = [name for name in names if name.strip() and behind.startswith(name)]
    return max(fitting, key=len) if found and fitting else None


def _opening(text: str) -> str:
    """The end of what stands behind the user's text, from a thought that it opens and does not close."""
    opens, closes = THOUGHT
    start = text.rfind(opens)
    return "" if start < 0 or closes in text[start:] else text[start:]


def _source(tokenizer: Any, name: str) -> str | None:
    """The template that is rendered; None where the tokenizer writes messages in a way of its own."""
    try:
        return str(tokenizer.get_chat_template())
    except AttributeError:
        return None
    except ValueError as error:  # several templates, none of which is the usual one
        raise ModelError(f"{name}: {str(error).splitlines()[0]} Set data.prompt_format=plain.") from error


def _check_names(tokenizer: Any, variables: Mapping[str, Any]) -> None:
    taken = {*inspect.signature(tokenizer.apply_chat_template).parameters, "messages"}
    odd = [name for name in variables if not isinstance(name, str) or name in taken]
    if odd:
        raise RecipeError(
            f"data.chat_template_kwargs holds {odd[0]!r}; expected names of variables that the chat template reads, "
            "such as enable_thinking."
        )


@lru_cache(maxsize=32)
def _check_bounds(template: str, variables: str, name: str) -> None:
    """Refuse a template that takes too long, too much memory, or writes too much.

    Raises
    ------
    ModelError
    """
    texts = {"user": _USER, "system": _SYSTEM, "assistant": _ANSWER}
    orders = (("user",), ("system", "user"), ("user", "assistant"))
    work = {
        "template": template,
        "variables": json.loads(variables),
        "conversations": [
            ([{"role": role, "content": texts[role]} for role in roles], roles[-1] == "user") for roles in orders
        ],
        "cpu_seconds": CPU_SECONDS,
        "memory_bytes": MEMORY_BYTES,
    }
    child = [sys.executable, "-P", str(Path(__file__).with_name("template_child.py"))]
    try:
        ended = subprocess.run(child, input=json.dumps(work), capture_output=True, text=True, timeout=_WALL_SECONDS)
    except subprocess.TimeoutExpired:
        ended = None
    if ended is None or -ended.returncode in (signal.SIGXCPU, signal.SIGKILL):
        found = f"did not end within {CPU_SECONDS} s"
    elif ended.returncode:
        reason = (ended.stderr.strip().splitlines() or [f"signal {-ended.returncode}"])[-1][:200]
        found = f"ended the process that rendered it ({reason})"
    elif int(ended.stdout) > MOST_CHARACTERS:
        found = f"wrote {int(ended.stdout)} characters for two short messages"
    else:
        return
    raise ModelError(
        f"the chat template of {name} {found}; expected the text of the messages. Fix chat_template.jinja in the "
        "model's folder, or set data.prompt_format=plain."
    )
