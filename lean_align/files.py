"""Files of a run: written whole or not at all, read with advice on what to do about damage, and hashed."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from io import BufferedReader
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew
from lean_align.disk import disk_errors
from lean_align.errors import StageError

MANIFEST = "manifest.json"
"""Of a finished stage; a folder without one is not known to be complete."""


_LONGEST_NAME = 200
"""Bytes of a file's name; most file systems take 255."""
_TICK_NS = 100_000_000
"""More than a tick of any kernel's clock, 1 to 10 ms."""
_hashes: dict[tuple[int, ...], str] = {}


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def text_hash(text: str) -> str:
    """SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits; a file is read once per process, and again after it has
    changed.

    A change is seen by the file's size, inode and times.  Times go on in ticks of the kernel's clock, so that the hash
    of a file which was touched just now is not kept: the next change might bear the same time.
    """
    with path.open("rb") as file:
        before = _stamp(file.fileno())
        if before not in _hashes:
            found = _digest(file)
            if time.time_ns() - max(before[-2:]) < _TICK_NS or _stamp(file.fileno()) != before:
                return found
            _hashes[before] = found
        return _hashes[before]


def _stamp(file: int) -> tuple[int, ...]:
    """What distinguishes a file, in one state, from all others."""
    now = os.fstat(file)
    return now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _digest(file: BufferedReader) -> str:
    return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of every file below a folder; hidden files are left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in files]
    return text_hash(
        canonical_json({n: file_hash(p) for n, p in zip(names, files) if not any(s[0] == "." for s in n.split("/"))})
    )


def safe_name(text: str) -> str:
    """A text as the name of one file or folder: it leads nowhere else and is not hidden; ordinary names stay as they
    are."""
    plain = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in text).strip()
    cut = plain.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
    return f"_{cut.lstrip('.')}" if cut.startswith(".") or not cut else cut


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    with disk_errors(path):
        partial = path.with_name(path.name + ".tmp")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """The text that `write_json` writes."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def read_json(path: Path) -> Any:
    """Read a JSON file; the error for a damaged one names it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing. Run the stage that writes it first.") from error
    except (ValueError, RecursionError) as error:  # cut, changed, or nested without end
        raise StageError(f"{path} is not valid JSON ({error}). {made_anew(stage_of(path))}") from error


def write_jsonl(path: Path, rows: Iterator[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    """Write one JSON object per line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object per line."""
    if not path.exists():
        raise StageError(f"{path} is missing. Run the stage that writes it first.")
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except (ValueError, RecursionError) as error:
        raise StageError(f"{path} is damaged ({error}). {made_anew(stage_of(path))}") from error


def whole_rows(path: Path) -> Iterator[tuple[Any, int]]:
    """Rows of a JSONL file up to the first line torn by a kill, each with the byte at which it ends."""
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:
                return
            yield row, file.tell()


def cut_file(path: Path, end: int) -> None:
    """Drop everything in a file from a byte on; a missing file is created."""
    with path.open("ab") as file:
        file.truncate(end)


def stage_of(path: Path) -> Path:
    """The folder of the stage that wrote a file, finished or not; the file itself where it is in none.

    Of stages within stages, as a training in rounds has them, the outermost that is finished: no part of it may go.
    """
    around = list(path.parents)[:6]
    whole = [p for p in around if (p / MANIFEST).exists() and (p.parent / "recipe.yaml").exists()]
    near = [p for p in around[:3] if (p / MANIFEST).exists() or p.name.endswith(".partial")]
    return next(iter([*whole[::-1], *near]), path)
