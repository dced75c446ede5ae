"""Raw rows from the generator, from a file or from the hub, one after the other, and the columns to read them by."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lean_align.data.answers import ANSWER_FIELDS
from lean_align.data.columns import value_of
from lean_align.data.local_files import FORMATS, Row, is_local, local_files, read_file
from lean_align.data.questions import PROMPT_FIELDS
from lean_align.demo.pool import KINDS, PoolPrompt, make_held_out, make_labelled, make_pool
from lean_align.demo.problems import problem_stream
from lean_align.errors import DataError
from lean_align.progress import say
from lean_align.recipe import HELD_OUT, TESTBED, DataRecipe, PoolRecipe, Recipe, TargetSource

TRAIN_SEED, TEST_SEED = 1, 2
GENERATED = ("demo", "testbed")
"""Sources that are generated on the spot."""


def load_rows(data: DataRecipe, split: str, pool: PoolRecipe | None = None) -> list[dict[str, Any]]:
    """Read the raw rows of a split; one that repeats an earlier one in every field is passed over.

    Memory is that of the different rows, and 16 bytes a row to know them by.

    Parameters
    ----------
    data : DataRecipe
    split : str
        `train` or `test`.
    pool : PoolRecipe, optional
        Make-up of the source `testbed`, and needed for it alone.

    Returns
    -------
    list of dict
        Rows as they lie in the source.

    Raises
    ------
    DataError
        When the source does not exist, cannot be read, or is empty; when it is `testbed` without a make-up.
    """
    source = data.train_path if split == "train" else data.test_path
    if source is None:
        raise DataError(
            f"data.{split}_path is null, so there are no {split} rows; expected a file, a hub id, `demo` or `testbed`."
        )
    if source == "demo":
        return list(_demo_rows(data, split))
    if source == "testbed":
        return _testbed_rows(data, split, pool)
    rows = read_rows(source, data.config, data.train_split if split == "train" else data.test_split)
    found = _without_copies(rows, source)
    if not found:
        raise DataError(f"{source} has no rows; expected one prompt with its answer per row.")
    return found


def target_rows(recipe: Recipe, target: TargetSource) -> list[dict[str, Any]]:
    """Read the raw rows of a target that is not set apart from the training rows themselves.

    `testbed:N` gives problems of the pool's target kind that are in no pool of this make-up and in no evaluation;
    `held-out:N` of the generator `demo` the N that follow those it trains on.

    Raises
    ------
    DataError
        As `load_rows`, and where the generator has too few.
    """
    data, pool = recipe.data, recipe.pool
    if target.source == TESTBED and target.n is not None:
        labelled = make_labelled(target.n, testbed_pool(pool), pool.target_families, pool.target_grades)
        return [{"prompt": question, "answer": str(answer)} for question, answer in labelled]
    if target.source == HELD_OUT and target.n is not None:
        return list(_demo_rows(data, "train", target.n))[data.demo_train :]
    config = data.config if target.source in (data.train_path, data.test_path) or is_local(target.source) else None
    found = _without_copies(read_rows(target.source, config, data.train_split), target.source)
    if not found:
        raise DataError(f"selection.target: {target.source} has no rows; expected one prompt with its answer per row.")
    return found


def read_rows(source: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Every raw row of a local source (`local_files.py`), or of a split of a data set on the hub, as they are there.

    Raises
    ------
    DataError
        When the source does not exist or cannot be read.
    """
    if is_local(source):
        return (row for path in local_files(source, config, split) for row in read_file(path))
    return _read_hub(source, config, split)


def data_sources(data: DataRecipe) -> set[str]:
    """The files that a recipe's rows come from; the name of a source that is not local, or that cannot be read."""
    named = ((data.train_path, data.train_split), (data.test_path, data.test_split))
    return {path for source, split in named if source is not None for path in local_sources(source, data.config, split)}


def local_sources(source: str, config: str | None, split: str) -> set[str]:
    """The files of one source; its name where it is not local, or cannot be read."""
    try:
        if source not in GENERATED and not Path(source).is_file() and is_local(source):
            return {str(path) for path in local_files(source, config, split)}
    except DataError:  # the stage that reads it says what is wrong
        pass
    return {source}


def _without_copies(rows: Iterable[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    seen: set[bytes] = set()
    found, n_copies = [], 0
    for row in rows:
        try:
            text = repr(row)
        except RecursionError as error:
            raise DataError(f"{getattr(row, 'where', source)} is nested too deeply; expected one flat row.") from error
        known = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if known in seen:
            n_copies += 1
        else:
            seen.add(known)
            found.append(row)
    if n_copies:
        say(f"data: {source} holds {len(found)} different rows; {n_copies} more repeat one of them in every field")
    return found


def _demo_rows(data: DataRecipe, split: str, n_more: int = 0) -> Iterator[dict[str, Any]]:
    weights = dict(enumerate(data.demo_grade_weights, start=1))
    test = list(problem_stream(TEST_SEED, data.demo_test, weights))
    if split == "test":
        chosen = test
    else:
        skip = frozenset(problem.question for problem in test)
        chosen = list(problem_stream(TRAIN_SEED, data.demo_train + n_more, weights, skip))
    for problem in chosen:
        yield {"prompt": problem.question, "answer": str(problem.answer)}


def testbed_pool(pool: PoolRecipe) -> tuple[PoolPrompt, ...]:
    """The prompts of `train_path: testbed` in the order of its rows, with kind and right answer.

    A function of the make-up alone, whatever the recipe's seed: row i is `train-{i:06d}`, as `prepare_prompts` counts.
    """
    return make_pool(
        {kind: getattr(pool, kind) for kind in KINDS},
        pool.duplicates_of_each,
        pool.wrong_share,
        pool.target_families,
        pool.target_grades,
    )


def _testbed_rows(data: DataRecipe, split: str, pool: PoolRecipe | None) -> list[dict[str, Any]]:
    if pool is None:
        raise DataError(f"data.{split}_path is `testbed`, but no make-up was given with it; give the section `pool`.")
    if split == "train":
        return [{"prompt": prompt.question, "answer": str(prompt.answer)} for prompt in testbed_pool(pool)]
    held_out = make_held_out(data.demo_test, pool.target_families, pool.target_grades)
    return [{"prompt": question, "answer": str(answer)} for question, answer in held_out]


def _read_hub(name: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        for number, row in enumerate(datasets.load_dataset(name, config, split=split), 1):
            yield Row(row, name, f"split {split} row", number)
    except Exception as error:  # the hub client raises a dozen kinds
        raise DataError(
            f"{name!r} is not a local file, and the hub did not provide it (config {config!r}, split {split!r}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} "
            f"Give the path of a {FORMATS}, or check the name and the connection."
        ) from error


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
    return named_or_usual(data, rows)


def named_or_usual(data: DataRecipe, rows: Sequence[Mapping[str, Any]]) -> tuple[str | None, str | None]:
    """The columns of question and answer that the recipe names; None for one that rows of another source lack."""
    return _or_usual(data.prompt_field, PROMPT_FIELDS, rows), _or_usual(data.answer_field, ANSWER_FIELDS, rows)


def _or_usual(field: str | None, usual: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str | None:
    if field is None or _any_has((field,), rows) or not _any_has(usual, rows):
        return field
    return None


def _any_has(names: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> bool:
    return any(isinstance(row, Mapping) and value_of(row, name) is not None for row in rows for name in names)
