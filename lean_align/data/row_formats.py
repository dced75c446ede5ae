r"""Question and answer of a raw row, in the formats that data sets of this field come in; docs/data.md has the table.

The question is the first of these fields that has a value (null, blank text, an empty list and NaN do not count), or
what `data.prompt_field` names:

- `prompt`, `question`, `problem`, as text, or as a list of chat messages of which exactly one is the user's, also as
  JSON text; the text parts of a message are joined by line breaks.  A list with an assistant's turn is refused.

In front of it goes what it needs: `body`, `context`, `passage`, `background`, `premise`.  Under it go the options of a
multiple-choice question (`options.py`); the gold is then the letter.  A row with pictures is left out.

verl's copies of DAPO-Math-17k (BytedTsinghua-SIA/DAPO-Math-17k) wrap the question into an instruction.  It is taken off
where both its paragraphs are there: the first, which asks for a last line of the form `Answer: $Answer`, and the last,
which reminds of a line of its own after "Answer:".  The recipe's own prompt_template and system_prompt take its place.

The answer is the first of these that has a value, or what `data.answer_field` names: `answer`;
`reward_model.ground_truth` (verl), also inside JSON text; `answerKey`; `cop`; `solution`.  A text of several lines
or more than 200 characters is a worked one: its answer is the content of its last \boxed{}, or follows its last ####;
a `solution` without either is none.  A number is written as text, a whole one as an integer: 142.0 is "142", 5e-05 is
"0.00005".

Of the golds of multiple-choice questions only a whole file shows whether a place is counted from 0 or from 1, and
whether letters stand for options that the file does not hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lean_align.data.answers import answer_text, float_text, gold_of_options, value_of_answer
from lean_align.data.columns import RowError, value_of
from lean_align.data.options import label_of, options_of, with_options
from lean_align.data.questions import question_of, unwrap
from lean_align.errors import DataError
from lean_align.progress import say
from lean_align.types import Prompt

__all__ = ["MAX_PROMPT_CHARS", "float_text", "read_prompt", "read_row", "unwrap"]

MAX_PROMPT_CHARS = 1_000_000
"""A longer question is left out: no model's context holds it, and comparing it would take gigabytes."""
TOO_LARGE, BROKEN = "too large", "broken characters"
_SURROGATE = re.compile("[\ud800-\udfff]")


def read_row(row: Any, where: str, prompt_field: str | None = None, answer_field: str | None = None) -> tuple[str, str]:
    """Question and answer of a raw row, by the rules of the module.

    Parameters
    ----------
    row : mapping
        As it lies in the source.
    where : str
        File and row, named in errors.
    prompt_field, answer_field : str, optional
        Columns, or dotted paths into them, in place of those of the module.

    Returns
    -------
    tuple of str
        The question as written, white space at its ends included, and the answer.

    Raises
    ------
    DataError
        When there is no question or no answer, or it is not of a kind named above.
    """
    prompt = read_prompt(row, "", where, prompt_field, answer_field)
    return prompt.prompt, prompt.answer


def read_prompt(
    row: Any,
    prompt_id: str,
    where: str,
    prompt_field: str | None = None,
    answer_field: str | None = None,
    first: int | None = None,
) -> Prompt:
    """The prompt of a raw row, as `read_row`, with the text of its system message.

    `first` is the place of the first option, 0 or 1, where the file shows it.

    Raises
    ------
    RowError
        When this row cannot be used, where the others may be.
    DataError
        When the file is of another kind.
    """
    if not isinstance(row, Mapping):
        raise DataError(f"{where} is {type(row).__name__}; expected an object with a prompt and an answer.")
    question, system = question_of(row, where, prompt_field)
    if len(question) + len(system or "") > MAX_PROMPT_CHARS:
        raise RowError(
            where,
            TOO_LARGE,
            f"has a prompt of {len(question) + len(system or ''):,} characters; {MAX_PROMPT_CHARS:,} are read at most.",
            question[:1000],
        )
    options = options_of(row, where, question)
    value = value_of_answer(row, where, answer_field, question)
    if options:
        answer = label_of(gold_of_options(value), options, where, question, first)
        question = with_options(question, options)
    else:
        worked = answer_field is None and value_of(row, "answer") is None
        answer = answer_text(value, where, question, worked)
    if any(_SURROGATE.search(text) for text in (question, system or "", answer)):
        raise RowError(where, BROKEN, "holds half of a character (a lone surrogate); expected UTF-8.", question, answer)
    return Prompt(prompt_id, question, answer, system)


_WHOLE = re.compile(r"[0-9]{1,4}(?:\.0)?")
_LETTER = re.compile(r"\(?([A-E])[).]?")
_LISTED = re.compile(r"\(A\)|(?:^|[\s({*])A\s*[).:]")


def first_place(rows: Iterable[Any], answer_field: str | None, source: str) -> int | None:
    """Whether places of options are counted from 0 or from 1, as far as the numeric golds of a file show it.

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
            f"data: {source}: golds that are places of options are counted from 1: one equals the number of its "
            "options, and none is 0"
        )
        return 1
    if lettered:
        say(
            f"data: {source}: golds that are places of options are counted from 0, although nothing in the file shows "
            "it: no 0 is among them. Write letters if that is wrong"
        )
    return None


def letters_without_options(prompts: Sequence[Prompt]) -> set[str]:
    """The prompt_ids whose gold is the letter of an option that the question does not list.

    Only where all golds are lone letters from A to E, two or more: a letter may be the answer to a question.
    """
    if len(prompts) < 2 or not all(_LETTER.fullmatch(prompt.answer) for prompt in prompts):
        return set()
    return {prompt.prompt_id for prompt in prompts if not _LISTED.search(prompt.prompt)}
