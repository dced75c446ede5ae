"""Raw rows from the generator, from a file or from the hub, read one after the other."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lean_align.demo.pool import KINDS, PoolPrompt, make_held_out, make_pool
from lean_align.demo.problems import problem_stream
from lean_align.errors import DataError
from lean_align.progress import say
from lean_align.recipe import DataRecipe, PoolRecipe

TRAIN_SEED, TEST_SEED = 1, 2
GENERATED = ("demo", "testbed")
"""Sources that are made on the spot."""
PARQUET_ROWS = 1024
"""Rows of a parquet file that are turned into Python objects at once."""
_LOCAL_SUFFIXES = (".jsonl", ".json", ".parquet", ".gz")


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
        raise DataError(f"{source} has no rows; expected one prompt with its answer a row.")
    return found


def read_rows(source: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    """Every raw row of a file, or of a split of a data set on the hub, as they lie there.

    Raises
    ------
    DataError
        When the source does not exist or cannot be read.
    """
    if Path(source).suffix in _LOCAL_SUFFIXES or Path(source).exists():
        return _read_file(Path(source))
    return _read_hub(source, config, split)


def _without_copies(rows: Iterable[dict[str, Any]], source: str) -> list[dict[str, Any]]:
    seen: set[bytes] = set()
    found, n_copies = [], 0
    for row in rows:
        known = hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()
        if known in seen:
            n_copies += 1
        else:
            seen.add(known)
            found.append(row)
    if n_copies:
        say(f"data: {source} holds {len(found)} different rows; {n_copies} more repeat one of them in every field")
    return found


def _demo_rows(data: DataRecipe, split: str) -> Iterator[dict[str, Any]]:
    weights = dict(enumerate(data.demo_grade_weights, start=1))
    test = list(problem_stream(TEST_SEED, data.demo_test, weights))
    if split == "test":
        chosen = test
    else:
        skip = frozenset(problem.question for problem in test)
        chosen = list(problem_stream(TRAIN_SEED, data.demo_train, weights, skip))
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
        raise DataError(f"data.{split}_path is `testbed`, and no make-up was given with it; give the section `pool`.")
    if split == "train":
        return [{"prompt": prompt.question, "answer": str(prompt.answer)} for prompt in testbed_pool(pool)]
    held_out = make_held_out(data.demo_test, pool.target_families, pool.target_grades)
    return [{"prompt": question, "answer": str(answer)} for question, answer in held_out]


def _read_file(path: Path) -> Iterator[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected .jsonl, .json or .parquet with one prompt a row.")
    try:
        yield from _parquet_rows(path) if path.suffix == ".parquet" else _json_rows(path)
    except (OSError, EOFError, ValueError) as error:  # pyarrow's and gzip's own are among them
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}.") from error


def _parquet_rows(path: Path) -> Iterator[dict[str, Any]]:
    import pyarrow.parquet

    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=PARQUET_ROWS):
            yield from batch.to_pylist()


def _json_rows(path: Path) -> Iterator[dict[str, Any]]:
    opener = gzip.open if path.suffix == ".gz" else open
    # newline: str.splitlines() and universal newlines cut at characters that JSON allows inside a text
    with opener(path, "rt", encoding="utf-8", newline="\n") as file:
        lines = ((number, line) for number, line in enumerate(file, 1) if line.strip())
        first = next(lines, None)
        if first is None:
            return
        if first[1].lstrip().startswith("["):
            yield from _parse_json("".join(line for _, line in itertools.chain([first], lines)), str(path))
            return
        for number, line in itertools.chain([first], lines):
            yield _parse_json(line, f"{path} line {number}")


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not valid JSON: {error}. Expected one JSON object a line.") from error


def _read_hub(name: str, config: str | None, split: str) -> Iterator[dict[str, Any]]:
    import datasets

    try:
        yield from datasets.load_dataset(name, config, split=split)
    except Exception as error:  # the hub client raises a dozen kinds
        raise DataError(
            f"{name!r} is no local file, and the hub did not give it (config {config!r}, split {split!r}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} "
            "Give the path of a .jsonl, .json or .parquet, or check the name and the connection."
        ) from error
