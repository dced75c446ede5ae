"""Rows in the format that a file's name asks for: JSON lines, JSON, parquet, CSV or TSV.  Imports no torch."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet

from lean_align.artifacts import write_text
from lean_align.disk import disk_errors
from lean_align.errors import RecipeError

FORMATS = (".jsonl", ".json", ".parquet", ".csv", ".tsv")


def check_output(path: Path) -> None:
    """Refuse, before anything runs, a file that could not be written at the end.

    Raises
    ------
    RecipeError
        When its extension is unknown, or no file can be written there.
    """
    if path.suffix.lower() not in FORMATS:
        raise RecipeError(f"-o is {path}; expected a name that ends in {', '.join(FORMATS)}: the ending is the format.")
    check_place(path)


def check_place(path: Path) -> None:
    """Refuse a file that could not be written: it is a folder, or its folder can be neither made nor written to.

    Raises
    ------
    RecipeError
    """
    if path.is_dir():
        raise RecipeError(f"-o is {path}, a folder; expected the name of a file.")
    there = next(folder for folder in path.absolute().parents if folder.exists())
    if not there.is_dir():
        raise RecipeError(f"-o is {path}, below {there}, which is a file; expected a folder there.")
    if not os.access(path if path.exists() else there, os.W_OK):
        raise RecipeError(f"-o is {path}, which may not be written. Give another name, or change its permissions.")


def write_rows(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows so that the file is either the old one or the whole new one.

    Parameters
    ----------
    path : Path
        Its folder is made when absent.
    rows : sequence of mapping
        Values that JSON has.  In tables every row has every column, null or empty where it lacks it; in CSV and TSV,
        and in a parquet column whose values have no common type, anything but text is written as JSON.

    Raises
    ------
    RecipeError
        When the extension is unknown.
    DiskFullError
    """
    check_output(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = path.suffix.lower()
    if kind == ".parquet":
        _write_parquet(path, rows)
    elif kind == ".jsonl":
        write_text(path, "".join(_json(row) + "\n" for row in rows))
    elif kind == ".json":
        write_text(path, json.dumps(list(rows), ensure_ascii=False, indent=2) + "\n")
    else:
        write_text(path, _separated(rows, "," if kind == ".csv" else "\t"))


def _columns(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Names in the order in which rows bring them."""
    return list(dict.fromkeys(name for row in rows for name in row))


def _separated(rows: Sequence[Mapping[str, Any]], delimiter: str) -> str:
    columns, text = _columns(rows), io.StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter, lineterminator="\n")
    writer.writerow(columns)
    for row in rows:
        values = (row.get(name) for name in columns)
        writer.writerow(["" if v is None else v if isinstance(v, str) else _json(v) for v in values])
    return text.getvalue()


def _write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    table = pyarrow.table({name: _array([row.get(name) for row in rows]) for name in _columns(rows)})
    partial = path.with_name(path.name + ".tmp")
    with disk_errors(path):
        pyarrow.parquet.write_table(table, partial)
        partial.replace(path)


def _array(values: Sequence[Any]) -> pyarrow.Array:
    """A column of one type; where the values have no type in common, text, with JSON for what is not text."""
    try:
        found = pyarrow.array(values)
        if found.to_pylist() == list(values) and not _has_empty_record(found.type):
            return found
    except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, pyarrow.ArrowNotImplementedError, OverflowError):
        pass  # values of several types, which a table has no column for
    return pyarrow.array([v if v is None or isinstance(v, str) else _json(v) for v in values], pyarrow.string())


def _has_empty_record(kind: pyarrow.DataType) -> bool:
    """Whether a type holds records without fields, which parquet has no column for."""
    if pyarrow.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_record(field.type) for field in kind)
    return pyarrow.types.is_list(kind) and _has_empty_record(kind.value_type)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
