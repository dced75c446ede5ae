"""Thinking, which models write before their answer: only what follows it is judged."""

from __future__ import annotations

import re

_TAGS = r"(?:think(?:ing)?|thoughts?|reasoning)"
_TAG = re.compile(
    rf"<(?P<close>/)?\s?{_TAGS}\s?>|(?P<bracket>\[/?THINK\])|<\|(?P<side>begin|end)_of_thought\|>", re.IGNORECASE
)
_MAY_THINK = re.compile(r"think|thought|reasoning", re.IGNORECASE)


def after_thinking(completion: str, inside: bool = False) -> str | None:
    """What follows the last closing tag of a completion's thinking; None where the thinking is not closed.

    Tags: `<think>`, `<thinking>`, `<thought>`, `<reasoning>`, `[THINK]`, `<|begin_of_thought|>`.  A text without any is
    returned as it is; a closing tag counts also where the prompt's template wrote the opening one.

    Parameters
    ----------
    completion : the text that the model sampled.
    inside : whether the prompt ends inside thinking, so that the completion opens it no more.

    Returns
    -------
    str or None : None where a block was opened, here or by the prompt, and not closed behind that.
    """
    if not inside and not _MAY_THINK.search(completion):
        return completion
    opened, start = inside, 0
    for tag in _TAG.finditer(completion):
        opened = not (tag["close"] or (tag["bracket"] or "").startswith("[/") or (tag["side"] or "").lower() == "end")
        start = tag.end()
    return None if opened else completion[start:]
