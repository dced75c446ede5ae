"""Frozen records of JSON objects: one key per field, in the order of the fields; a missing or null value is the field's
default."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from lean_align.errors import DataError

Record = TypeVar("Record")
WHERE_KNOWN: dict[str, bool] = {"where_known": True}
"""Metadata of a field whose key is written only where there is a value; others are written as null."""
_ADVICE = "It was changed, or comes from another version: run the step that wrote it again."


def from_json(kind: type[Record], tree: Any, where: str) -> Record:
    """Read a record; unknown keys are ignored.

    Parameters
    ----------
    kind : type
        A dataclass, whose fields may be records, tuples and mappings of records, and plain values.  A record with a
        `from_json` of its own is read by that.
    tree : mapping
    where : str
        What it is called in errors.

    Raises
    ------
    DataError
        When it is not an object, or lacks a field that has no default.
    """
    if not isinstance(tree, Mapping):
        raise DataError(f"{where} is of type {type(tree).__name__}, expected an object. {_ADVICE}")
    values, missing, hints = {}, [], _hints(kind)  # type: ignore[arg-type]
    for field in fields(kind):  # type: ignore[arg-type]
        hint, value = hints[field.name], tree.get(field.name)
        if value is not None and not (value == {} and is_dataclass(hint)):
            values[field.name] = _read(hint, value, field.name, where)
        elif _is_needed(field):
            missing.append(field.name)
    if missing:
        raise DataError(f"{where} has {', '.join(tree) or 'nothing'}; expected {', '.join(missing)} too. {_ADVICE}")
    return kind(**values)


def as_json(record: Any) -> dict[str, Any]:
    """A record as a JSON value; one with an `as_json` of its own is converted by that."""
    values = {field: getattr(record, field.name) for field in fields(record)}
    return {
        field.name: _plain(value)
        for field, value in values.items()
        if value is not None or not field.metadata.get("where_known")
    }


@cache
def _hints(kind: type) -> dict[str, Any]:
    """Types of the fields; of `X | None` the X."""
    return {name: _without_none(hint) for name, hint in get_type_hints(kind).items()}


def _without_none(hint: Any) -> Any:
    if get_origin(hint) in (Union, types.UnionType):
        return next(part for part in get_args(hint) if part is not type(None))
    return hint


def _is_needed(field: Field[Any]) -> bool:
    return field.default is MISSING and field.default_factory is MISSING


def _read(hint: Any, value: Any, name: str, where: str) -> Any:
    hint, of = _without_none(hint), f"{name} of {where}"
    if is_dataclass(hint):
        if not value:  # an object without a key says nothing
            return None if any(map(_is_needed, fields(hint))) else hint()  # type: ignore[operator]
        own = getattr(hint, "from_json", None)
        return from_json(hint, value, of) if own is None else own(value, of)  # type: ignore[arg-type]
    parts = get_args(hint)
    if get_origin(hint) is tuple and isinstance(value, list | tuple):
        return tuple(_read(parts[0], part, name, where) for part in value)
    if get_origin(hint) in (Mapping, dict) and parts[-1] is not Any:
        if not isinstance(value, Mapping):
            raise DataError(f"{of} is of type {type(value).__name__}, expected an object. {_ADVICE}")
        return {key: _read(parts[1], part, str(key), where) for key, part in value.items()}
    return value


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        own = getattr(value, "as_json", None)
        return as_json(value) if own is None else own()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    return [_plain(part) for part in value] if isinstance(value, list | tuple) else value
