"""Text files in any of the encodings that can be read: UTF-8, UTF-16 with its mark, and what a spreadsheet writes."""

from __future__ import annotations

import codecs
import functools
import gzip
import io
import itertools
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lean_align.progress import say

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_BLOCK = 1 << 20
"""Bytes looked at together."""


def text_of(path: Path, newline: str, other: str | None = None) -> io.TextIOWrapper:
    """A file, packed or not, as text.

    Parameters
    ----------
    path : Path
    newline : str
        As `open` takes it.
    other : str, optional
        Encoding of a file that is neither UTF-8 nor marked as UTF-16, which is said; without it, reading raises
        UnicodeDecodeError there.
    """
    opener = gzip.open if path.suffix.lower() == ".gz" else open
    with opener(path, "rb") as file:
        start = file.read(2)
        encoding = next((name for mark, name in _MARKS if start == mark), "utf-8-sig")
        if other is not None and encoding == "utf-8-sig" and not _is_utf8(itertools.chain([start], _blocks(file))):
            encoding = other
            _say_once(f"data: {path} is not UTF-8 and is read as {other}; save it as UTF-8 if letters come out wrong")
    return io.TextIOWrapper(opener(path, "rb"), encoding=encoding, newline=newline)


def _blocks(file: Any) -> Iterator[bytes]:
    return iter(functools.partial(file.read, _BLOCK), b"")


def _is_utf8(blocks: Iterable[bytes]) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        for block in blocks:
            decoder.decode(block)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


@functools.lru_cache
def _say_once(text: str) -> None:
    """A run reads its file for the pool and again for the rows that were chosen."""
    say(text)
