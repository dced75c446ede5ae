"""A store being filled, by one process or by several on rows of their own."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import removal
from lean_align.artifacts import write_json
from lean_align.errors import StoreError
from lean_align.progress import say
from lean_align.store.format import CHECKSUMS, DTYPES, IDS, NORMS, ROWS, WRITTEN, checksum, create
from lean_align.store.gradient_store import GradientStore
from lean_align.store.row_locks import creation_lock, lock_rows

FLUSH_SECONDS = 0.5
_sync = getattr(os, "fdatasync", os.fsync)


class StoreWriter(GradientStore):
    """A store being filled, new or continued; use as a context manager, or call `close`.

    Rows are forced to the disk together, at most every `FLUSH_SECONDS`, and flagged after that: a
    process that is killed loses the rows of its last half second.

    Attributes
    ----------
    writable : range
        The rows that this writer holds; no other writer may touch them until `close`.
    unflagged : tuple of int
        Rows that were flagged and not whole when the store was opened; they are to be written again.
    """

    def __init__(self, folder: Path, descriptor: int, rows: range) -> None:
        super().__init__(folder)
        self.writable, self._pending, self._last_flush = rows, list[int](), float("-inf")
        self.unflagged: tuple[int, ...] = ()
        self._files = {name: (folder / name).open("r+b", buffering=0) for name in DTYPES if name != WRITTEN}
        self._files[WRITTEN] = open(descriptor, "r+b", buffering=0)  # noqa: SIM115
        # the descriptor of WRITTEN holds the locks; close() ends both
        self._offsets = {
            name: array.offset  # type: ignore[union-attr]
            for name, array in ((ROWS, self.rows), (NORMS, self.norms), (WRITTEN, self.written))
        } | {CHECKSUMS: self.checksums.offset}  # type: ignore[union-attr]

    @classmethod
    def open(cls, folder: Path, prompt_ids: Sequence[str], proj_dim: int, rows: range | None = None) -> StoreWriter:
        """Create the files, or continue those that are there.

        Parameters
        ----------
        folder : Path
            Made when absent.
        prompt_ids : sequence of str
            Row order of the whole store.
        proj_dim : int
        rows : range, optional
            The rows to fill, of step 1; all of them when not given.  Other processes may fill other rows.

        Raises
        ------
        StoreError
            When the folder holds a store of another shape or prompt list, or another writer holds some
            of the rows.
        """
        rows = range(len(prompt_ids)) if rows is None else rows
        if rows.step != 1 or not 0 <= rows.start <= rows.stop <= len(prompt_ids):
            raise StoreError(f"rows are {rows}; expected a range of step 1 within 0:{len(prompt_ids)}.")
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / WRITTEN, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            with creation_lock(descriptor):
                _make_files(folder, prompt_ids, proj_dim)
            store = GradientStore(folder)
            if store.prompt_ids != tuple(prompt_ids) or store.proj_dim != proj_dim:
                raise StoreError(
                    f"{folder} holds {len(store)} rows of {store.proj_dim}, the run asks for {len(prompt_ids)} rows of "
                    f"{proj_dim} or for other prompts. Choose another --run-dir, or delete it:\n  {removal(folder)}"
                )
            lock_rows(descriptor, rows, folder)
            writer = cls(folder, descriptor, rows)
        except BaseException:
            os.close(descriptor)
            raise
        writer._unflag_damaged()
        return writer

    def write(self, row: int, projected: NDArray[np.floating[Any]]) -> None:
        """Write one projected gradient as a unit row with its norm and checksum, and flag it soon after.

        Parameters
        ----------
        row : int
            One of `writable`.
        projected : (proj_dim,) float
            Not normalised; a zero vector stays zero.
        """
        if row not in self.writable:
            raise StoreError(f"row {row} is not among this writer's rows {self.writable.start}:{self.writable.stop}.")
        vector = np.asarray(projected, dtype=np.float64)
        if vector.shape != (self.proj_dim,) or not np.isfinite(vector).all():
            raise StoreError(
                f"row {row} ({self.prompt_ids[row]}): got a gradient of shape {vector.shape}, "
                f"expected {self.proj_dim} finite numbers. It was not written."
            )
        length = float(np.linalg.norm(vector))
        unit = (vector / length if length > 0 else np.zeros_like(vector)).astype(np.float16)
        self._put_row(row, unit, np.float32(length))

    def copy(self, row: int, source: GradientStore, place: int) -> None:
        """Take a row of another store over, bit for bit; both must be of the same projection.

        Parameters
        ----------
        row : int
            One of `writable`.
        source : GradientStore
        place : int
            Row of the source.

        Raises
        ------
        StoreError
            When the row is of another prompt or of another length.
        """
        own, other = (self.prompt_ids[row], self.proj_dim), (source.prompt_ids[place], source.proj_dim)
        if row not in self.writable or own != other:
            raise StoreError(
                f"row {row} of {self.folder} is of {own[0]} and has {own[1]} numbers; got row {place} of "
                f"{source.folder}, of {other[0]} and with {other[1]}. It was not copied."
            )
        unit = np.empty((1, source.proj_dim), dtype=np.float16)
        source.read(place, unit)
        self._put_row(row, unit[0], source.norms[place])

    def _put_row(self, row: int, unit: NDArray[np.float16], norm: np.float32) -> None:
        if self.written[row]:  # written over: not whole until it is flagged again
            self._put(WRITTEN, row, b"\0")
        self._put(ROWS, row, unit.tobytes())
        self._put(NORMS, row, norm.tobytes())
        self._put(CHECKSUMS, row, np.uint32(checksum(self.prompt_ids[row], norm, unit)).tobytes())
        self._pending.append(row)
        if time.monotonic() - self._last_flush >= FLUSH_SECONDS:
            self.flush()

    def flush(self) -> None:
        """Force what was written to the disk, then flag it."""
        if self._pending:
            for name in (ROWS, NORMS, CHECKSUMS):
                _sync(self._files[name].fileno())
            for row in self._pending:
                self._put(WRITTEN, row, b"\1")
            _sync(self._files[WRITTEN].fileno())
            self._pending.clear()
        self._last_flush = time.monotonic()

    def open_rows(self) -> list[int]:
        """Rows of `writable` that are not written."""
        pending = set(self._pending)
        return [row for row in self.writable if not self.written[row] and row not in pending]

    def close(self) -> None:
        """Flush, and release the rows to other writers."""
        if not self._files[WRITTEN].closed:
            self.flush()
            for file in self._files.values():
                file.close()

    def __enter__(self) -> StoreWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _put(self, name: str, row: int, data: bytes) -> None:
        os.pwrite(self._files[name].fileno(), data, self._offsets[name] + row * len(data))

    def _unflag_damaged(self) -> None:
        """Unflag rows that a power cut left incomplete."""
        self.unflagged = tuple(row for row, _, _ in self.damaged_rows(self.writable))
        for row in self.unflagged:
            self._put(WRITTEN, row, b"\0")
        if self.unflagged:
            _sync(self._files[WRITTEN].fileno())
            first = self.prompt_ids[self.unflagged[0]]
            say(
                f"store: {len(self.unflagged)} rows of {self.folder} do not match their checksums (first: {first}); "
                "they are made again"
            )


def _make_files(folder: Path, prompt_ids: Sequence[str], proj_dim: int) -> None:
    """Create what is missing; the list of prompts comes last, and without it nothing else is trusted."""
    n = len(prompt_ids)
    if not (folder / IDS).exists():
        for name in DTYPES:
            create(folder / name, n, proj_dim)
        write_json(folder / IDS, list(prompt_ids))
    elif not (folder / CHECKSUMS).exists():
        _add_checksums(folder)


def _add_checksums(folder: Path) -> None:
    """Bring a store of format 1 to format 2; its flagged rows are taken as they are."""
    store = GradientStore(folder)
    partial = folder / f"{CHECKSUMS}.tmp"
    values = np.zeros(len(store), dtype=np.uint32)
    for row in np.flatnonzero(store.written):
        values[row] = checksum(store.prompt_ids[row], store.norms[row], store.rows[row])
    with partial.open("wb") as file:
        np.save(file, values)
    partial.replace(folder / CHECKSUMS)
