"""Which columns a split's questions and answers lie in: those that the recipe names are those of the user's files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lean_align.data.answers import ANSWER_FIELDS
from lean_align.data.columns import value_of
from lean_align.data.questions import PROMPT_FIELDS
from lean_align.data.reading import GENERATED
from lean_align.recipe import DataRecipe


def fields_for(data: DataRecipe, split: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """Columns of question and answer to read a split by; None for the usual ones.

    Generated rows have the usual ones.  So has a test set without a value in the named column, where it has one in a
    usual column; where it has neither, the named column stays, and the error names it.

    Parameters
    ----------
    data : DataRecipe
    split : str
        `train` or `test`.
    rows : sequence of mapping
        The split's raw rows.

    Returns
    -------
    tuple of str or None
        `prompt_field` and `answer_field`, as `prepare_prompts` takes them.
    """
    if (data.train_path if split == "train" else data.test_path) in GENERATED:
        return None, None
    if split == "train":
        return data.prompt_field, data.answer_field
    return _or_usual(data.prompt_field, PROMPT_FIELDS, rows), _or_usual(data.answer_field, ANSWER_FIELDS, rows)


def _or_usual(field: str | None, usual: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    if field is None or _any_has((field,), rows) or not _any_has(usual, rows):
        return field
    return None


def _any_has(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(isinstance(row, Mapping) and value_of(row, name) is not None for row in rows for name in names)
