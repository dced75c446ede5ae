"""Kernel locks on row ranges: byte i of `written.npy` stands for row i; they end with the process.

Open-file-description locks are used on Linux.  Elsewhere the whole file is locked, so that a store has one
writer at a time whatever its rows: record locks of POSIX end as soon as the process closes any
descriptor of the file.
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lean_align.errors import RowsHeldError
from lean_align.progress import say

_CREATION = 1 << 62  # a byte no row has: held while the files are made
_FLOCK = "hhqqi"  # struct flock of 64-bit Linux; the last field must be 0
_OFD = sys.platform == "linux" and hasattr(fcntl, "F_OFD_SETLK")


@contextmanager
def creation_lock(descriptor: int) -> Iterator[None]:
    """Wait for, and hold, the right to make the files of a store."""
    _change_creation_lock(descriptor, fcntl.F_WRLCK, fcntl.LOCK_EX)
    try:
        yield
    finally:
        _change_creation_lock(descriptor, fcntl.F_UNLCK, fcntl.LOCK_UN)


def keeps_no_locks(error: OSError) -> bool:
    """Whether an error says that the file system has no locks, as with some network file systems."""
    return error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS)


def _change_creation_lock(descriptor: int, kind: int, whole: int) -> None:
    try:
        if _OFD:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLKW, _request(kind, _CREATION, 1))
        else:
            fcntl.flock(descriptor, whole)
    except OSError as error:
        if not keeps_no_locks(error):  # said by `lock_rows`, which follows
            raise


def lock_rows(descriptor: int, rows: range, folder: Path) -> None:
    """Lock a row range until the descriptor is closed.

    Raises
    ------
    RowsHeldError
        When another writer holds rows of the range.
    """
    if not rows:  # a length of 0 would mean: to the end
        return
    try:
        if _OFD:
            fcntl.fcntl(descriptor, fcntl.F_OFD_SETLK, _request(fcntl.F_WRLCK, rows.start, len(rows)))
        else:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if keeps_no_locks(error):
            say(f"{folder} cannot be locked ({error.strerror}): make sure that no other process writes there")
            return
        if not isinstance(error, BlockingIOError | PermissionError):
            raise
        raise RowsHeldError(
            f"rows {rows.start}:{rows.stop} of {folder} overlap rows{_holder(descriptor, rows)} that another writer "
            "is filling. Wait for it, stop it, or give rows that no other writer has."
        ) from error


def _holder(descriptor: int, rows: range) -> str:
    if not _OFD:
        return ""
    answer = fcntl.fcntl(descriptor, fcntl.F_OFD_GETLK, _request(fcntl.F_WRLCK, rows.start, len(rows)))
    kind, _, start, length, _ = struct.unpack(_FLOCK, answer[: struct.calcsize(_FLOCK)])
    return "" if kind == fcntl.F_UNLCK else f" {start}:{start + length}"


def _request(kind: int, start: int, length: int) -> bytes:
    return struct.pack(_FLOCK, kind, os.SEEK_SET, start, length, 0) + bytes(4)
