"""Rows of local files, each with its place: a file, a folder of shards, or a pattern such as `shards/*.parquet`.

| name ends in | rows |
| --- | --- |
| .jsonl, .ndjson, .json | one JSON object per line, one JSON list of objects, or one object that holds one such list |
| .csv, .tsv | a line with the names of the columns, then one row per line; every value stays text |
| .parquet, .arrow | the table's |

and .gz behind any of the first five.  Any other file is read as JSON lines.  Text is UTF-8, with or without a byte
order mark, or UTF-16 with one; a .csv or .tsv that is neither is read as cp1252, which Excel writes, and that is said.

From a folder, the data files directly in it are read, in the order of their names; where there are none, those in its
subfolder named `data.config`, then in `data`.  Where some are named after a split (`train-00000-of-00002.jsonl`) only
those of the requested split.  All must be of one format.
"""

from __future__ import annotations

import csv
import glob
import itertools
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from lean_align.data.columns import value_of
from lean_align.data.encodings import text_of
from lean_align.data.questions import PROMPT_FIELDS
from lean_align.errors import DataError

FORMATS = ".jsonl, .json, .csv, .tsv or .parquet"
PARQUET_ROWS = 256
"""Rows of a table that are turned into Python objects at once."""
_SUFFIXES = (".jsonl", ".ndjson", ".json", ".csv", ".tsv", ".parquet", ".arrow")
_NO_ROWS = frozenset("dataset_info.json dataset_infos.json dataset_dict.json state.json".split())
_SPLIT = re.compile(r"(train|test|validation|valid|val|dev|eval)(?![a-z])", re.IGNORECASE)


class Row(dict[str, Any]):
    """A raw row that knows where it lies: `where` is "FILE line 3" of a text, "FILE row 3" of a table or a list."""

    __slots__ = ("_file", "_kind", "_number")

    def __init__(self, values: Mapping[str, Any], file: str, kind: str, number: int) -> None:
        super().__init__(values)
        self._file, self._kind, self._number = file, kind, number

    @property
    def where(self) -> str:
        """File and line, or row, counted from 1."""
        return f"{self._file} {self._kind} {self._number}"


def is_local(source: str) -> bool:
    """Whether a source is a file, a folder or a pattern, and not a name on the hub."""
    path = Path(source).expanduser()
    return _format(path) != "" or path.suffix == ".gz" or path.exists() or _is_pattern(source) or _is_path(source)


def local_files(source: str, config: str | None = None, split: str = "train") -> list[Path]:
    """The files that a local source stands for, in the order in which they are read.

    Parameters
    ----------
    source : str
        A file, a folder or a pattern.
    config : str, optional
        A folder's subfolder, where none of its own files holds rows.
    split : str
        Of a folder's files, where they are named after one.

    Raises
    ------
    DataError
        When there is none, or a folder's are of several formats.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return _shards(path, config, split)
    if not path.exists() and _is_pattern(source):
        found = sorted(Path(name) for name in glob.glob(str(path), recursive=True) if Path(name).is_file())
        if not found:
            raise DataError(f"no file matches {source}; expected {FORMATS} with one prompt per row.")
        return found
    if not path.is_file():
        kind = "is not a file" if path.exists() else "there is no file"
        text = f"{path} {kind}" if path.exists() else f"{kind} {path}"
        raise DataError(f"{text}; expected {FORMATS} with one prompt per row, or a folder of them.")
    return [path]


def read_file(path: Path) -> Iterator[Row]:
    """Every row of one file.

    Raises
    ------
    DataError
        When it cannot be read, or a row is not an object; the message names file and line.
    """
    try:
        kind = _format(path)
        if kind in (".parquet", ".arrow"):
            yield from _table_rows(path, kind)
        else:
            yield from _delimited_rows(path, kind) if kind in (".csv", ".tsv") else _json_rows(path, kind)
    except UnicodeDecodeError as error:
        raise DataError(f"{path} cannot be read: it is not UTF-8 ({error}). Save it as UTF-8; {FORMATS}.") from error
    except (OSError, EOFError, ValueError, csv.Error) as error:  # pyarrow's and gzip's own are among them
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} cannot be read: {error}. Expected {FORMATS}.") from error


def _format(path: Path) -> str:
    """The suffix that says what a file holds, that of a packed one too; empty where none does."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes[-1:] == [".gz"]:
        suffixes.pop()
    return suffixes[-1] if suffixes and suffixes[-1] in _SUFFIXES else ""


def _is_pattern(source: str) -> bool:
    return glob.has_magic(source)


def _is_path(source: str) -> bool:
    """Whether a name that leads to nothing was meant as a path: the hub's are NAME or OWNER/NAME."""
    return source.startswith(("/", ".", "~")) or source.endswith("/") or source.count("/") > 1 or not source.strip()


def _shards(folder: Path, config: str | None, split: str) -> list[Path]:
    places = [folder, *([folder / config] if config else []), folder / "data"]
    found = next((files for place in places if (files := _data_files(place))), [])
    if not found:
        below = sorted(p.name for p in folder.iterdir() if p.is_dir() and _data_files(p))
        advice = f" Its subfolders {', '.join(below)} have some: give one of them." if below else ""
        raise DataError(f"{folder} is a folder without data files; expected {FORMATS} in it.{advice}")
    named = {path: match[1].lower() for path in found if (match := _SPLIT.match(path.name))}
    if named:
        found = [path for path in named if path.name.lower().startswith(split.lower())]
        if not found:
            raise DataError(
                f"{folder} has files of {', '.join(sorted(set(named.values())))} and none of {split}; set "
                "data.train_split or data.test_split, or give one file."
            )
    kinds = sorted({_format(path) for path in found})
    if len(kinds) > 1:
        raise DataError(
            f"{folder} has files of several formats ({', '.join(kinds)}), which may hold the same rows; give one of "
            f"them, or a pattern such as {folder}/*{kinds[0]}."
        )
    return found


def _data_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = (path for path in folder.iterdir() if path.is_file() and path.name[0] not in "._")
    return sorted(path for path in files if _format(path) and path.name not in _NO_ROWS)


def _table_rows(path: Path, kind: str) -> Iterator[Row]:
    numbers = itertools.count(1)
    for batch in _batches(path, kind):
        for start in range(0, batch.num_rows, PARQUET_ROWS):
            for values in batch.slice(start, PARQUET_ROWS).to_pylist():
                yield Row(values, str(path), "row", next(numbers))


def _batches(path: Path, kind: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    if kind == ".parquet":
        with pyarrow.parquet.ParquetFile(path) as file:
            yield from file.iter_batches(batch_size=PARQUET_ROWS)
        return
    with pyarrow.memory_map(str(path)) as source:
        try:
            yield from pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            source.seek(0)
            table = pyarrow.ipc.open_file(source)
            yield from (table.get_batch(i) for i in range(table.num_record_batches))


def _delimited_rows(path: Path, kind: str) -> Iterator[Row]:
    csv.field_size_limit(2**31 - 1)  # a cell may hold a whole solution; the rows' own limit comes later
    with text_of(path, "", "cp1252") as file:
        header = file.readline()
        mark = "\t" if kind == ".tsv" else next((m for m in ",;\t" if m in header), ",")
        names = next(csv.reader([header], delimiter=mark, strict=True), [])
        if len(set(names)) < len(names) or not all(names):
            raise DataError(f"{path} line 1: the columns are {names}; expected a name for each, and each once.")
        rows = csv.reader(file, delimiter=mark, strict=True)
        line = 2
        for cells in rows:
            if cells and len(cells) != len(names):
                raise DataError(
                    f"{path} line {line} has {len(cells)} cells and the header has {len(names)}; expected one for each "
                    f"of {', '.join(names)}, with quotes around a cell that holds {mark!r}."
                )
            if cells:
                yield Row(dict(zip(names, cells)), str(path), "line", line)
            line = rows.line_num + 2


def _json_rows(path: Path, kind: str) -> Iterator[Row]:
    # newline: str.splitlines() and universal newlines cut at characters that JSON allows inside a text
    with text_of(path, "\n") as file:
        lines: Iterator[tuple[int, str]] = ((n, line) for n, line in enumerate(file, 1) if line.strip())
        first = next(lines, None)
        if first is None:
            return
        second = next(lines, None) if kind == ".json" else None
        lines = itertools.chain([first], [] if second is None else [second], lines)
        alone = kind == ".json" and second is None and _holds_rows(first[1])
        if alone or first[1].lstrip().startswith("[") or first[1].strip() == "{":
            rows = _rows_of(_parse_json("".join(line for _, line in lines), str(path)), path)
            yield from _checked(((number, row) for number, row in enumerate(rows, 1)), str(path), "row")
            return
        parsed = ((number, _parse_json(line, f"{path} line {number}")) for number, line in lines)
        yield from _checked(parsed, str(path), "line")


def _holds_rows(line: str) -> bool:
    """Whether the one line of a file is an object around its rows, and not a row that holds messages or options."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):  # said by the caller, with its place
        return False
    if not isinstance(value, dict) or any(value_of(value, name) is not None for name in PROMPT_FIELDS):
        return False
    lists = [held for held in value.values() if isinstance(held, list)]
    return len(lists) == 1 and all(isinstance(row, dict) and "role" not in row for row in lists[0])


def _rows_of(value: Any, path: Path) -> list[Any]:
    """The rows of a file that is one JSON value: a list, or an object that holds one."""
    if isinstance(value, list):
        return value
    lists = [name for name, held in value.items() if isinstance(held, list)]
    if len(lists) != 1:
        raise DataError(
            f"{path} holds one object with {', '.join(map(str, value))}; expected one JSON object per line, a list of "
            "objects, or an object that holds one list of them."
        )
    return list(value[lists[0]])


def _checked(rows: Iterable[tuple[int, Any]], file: str, kind: str) -> Iterator[Row]:
    for number, row in rows:
        if not isinstance(row, dict):
            raise DataError(
                f"{file} {kind} {number} is {type(row).__name__}; expected an object with a prompt and an answer."
            )
        yield Row(row, file, kind, number)


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except RecursionError as error:
        raise DataError(f"{where} is nested too deeply; expected one flat JSON object per row.") from error
    except ValueError as error:
        raise DataError(f"{where} is not valid JSON: {error}. Expected one JSON object per line.") from error
