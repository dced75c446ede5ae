"""What only a whole file shows of the golds of its multiple-choice questions.

Whether a place is counted from 0 or from 1, and whether letters stand for options that the file does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lean_align.data.answers import gold_of_options, value_of_answer
from lean_align.data.options import options_of
from lean_align.errors import DataError
from lean_align.progress import say
from lean_align.types import Prompt

_WHOLE = re.compile(r"[0-9]{1,4}(?:\.0)?")
_LETTER = re.compile(r"\(?([A-E])[).]?")
_LISTED = re.compile(r"\(A\)|(?:^|[\s({*])A\s*[).:]")


def first_place(rows: Iterable[Any], answer_field: str | None, source: str) -> int | None:
    """What the place of the first option is, as far as the golds of a file that are numbers show it.

    A 0 among them shows that it is 0; without one, a gold that equals the number of its options shows that it is 1,
    unless a greater one shows that they are no places.  A number that is the text of an option shows nothing.

    Parameters
    ----------
    rows : iterable of mapping
        All rows of the file.
    answer_field : str, optional
        As `read_row` takes it.
    source : str
        Named in what is said.

    Returns
    -------
    int or None
        0 or 1; None where nothing shows it.
    """
    found: set[tuple[int, int]] = set()
    lettered = False
    for row in rows:
        try:
            options = options_of(row, "") if isinstance(row, Mapping) else {}
            gold = gold_of_options(value_of_answer(row, "", answer_field, "")) if options else ""
        except DataError:  # said where the row is read
            continue
        text = "" if isinstance(gold, bool) else str(gold).strip()
        if _WHOLE.fullmatch(text) and text not in options.values():
            found.add((int(float(text)), len(options)))
            lettered |= not next(iter(options)).isdecimal()
    if any(place == 0 for place, _ in found):
        return 0
    if any(place == n for place, n in found) and not any(place > n for place, n in found):
        say(
            f"data: {source}: golds that are places of options are counted from 1: one is the number of its options, "
            "none is 0"
        )
        return 1
    if lettered:
        say(
            f"data: {source}: golds that are places of options are counted from 0, which nothing in the file shows: no "
            "0 is among them. Write letters where that is wrong"
        )
    return None


def letters_without_options(prompts: Sequence[Prompt]) -> set[str]:
    """The prompt_ids whose gold is the letter of an option that the question does not list.

    Only where all golds are lone letters from A to E, two or more: a letter may be the answer to a question.
    """
    if len(prompts) < 2 or not all(_LETTER.fullmatch(prompt.answer) for prompt in prompts):
        return set()
    return {prompt.prompt_id for prompt in prompts if not _LISTED.search(prompt.prompt)}
