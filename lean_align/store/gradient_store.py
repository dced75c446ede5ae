"""Stores for reading: rows mapped from disk or read into a buffer, checked to the byte on request."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew, quoted, removal
from lean_align.artifacts import MANIFEST, changes, check_outputs, json_text, read_json, read_manifest, stage_of
from lean_align.errors import StageError, StoreError
from lean_align.store.format import CHECKSUMS, IDS, NORMS, PROJECTION, ROWS, WRITTEN, checksum, header_of, map_array

CHECK_BYTES = 1 << 22  # of rows read at a time while checksums are taken


class GradientStore:
    """Rows of a store, mapped from disk; use `open_store` or `StoreWriter`.

    Attributes
    ----------
    rows : (n, proj_dim) float16
    norms : (n,) float32
    checksums : (n,) uint32, or None for a store of format 1
    written : (n,) uint8
    prompt_ids : tuple of str
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not (folder / IDS).exists():
            raise StoreError(
                f"{folder} is not a gradient store: it has no {IDS}. A run has its store in RUN/gradients, once the "
                "gradients stage has begun."
            )
        try:
            ids = read_json(folder / IDS)
        except StageError as error:
            raise StoreError(f"{folder / IDS} is damaged. {self._again()}") from error
        if not isinstance(ids, list) or not all(isinstance(prompt_id, str) for prompt_id in ids):
            raise StoreError(f"{folder / IDS} is not a list of texts. {self._again()}")
        self.prompt_ids: tuple[str, ...] = tuple(ids)
        self.rows: NDArray[np.float16] = map_array(folder / ROWS)
        self.norms: NDArray[np.float32] = map_array(folder / NORMS)
        self.written: NDArray[np.uint8] = map_array(folder / WRITTEN)
        self.checksums: NDArray[np.uint32] | None = map_array(folder / CHECKSUMS) if _has_checksums(folder) else None
        self._file = (folder / ROWS).open("rb", buffering=0)
        n = len(self.prompt_ids)
        arrays = {ROWS: self.rows, NORMS: self.norms, WRITTEN: self.written, CHECKSUMS: self.checksums}
        for name, array in arrays.items():
            ndim = 2 if name == ROWS else 1
            if array is not None and array.ndim != ndim:
                raise StoreError(f"{folder / name} has shape {array.shape}; expected {ndim} dimensions.")
            if array is not None and len(array) != n:
                raise StoreError(f"{folder / name} has {len(array)} rows, {IDS} has {n}. {self._again()}")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def proj_dim(self) -> int:
        """Length of a row."""
        return int(self.rows.shape[1])

    def read(self, start: int, out: NDArray[np.float16]) -> None:
        """Read rows start .. start + len(out) - 1 into a buffer; unlike `rows` it maps no pages.

        Parameters
        ----------
        start : int
        out : (m, proj_dim) float16, contiguous
        """
        view = out.view(np.uint8).data.cast("B")
        offset = self.rows.offset + start * 2 * self.proj_dim  # type: ignore[attr-defined]
        while len(view):
            count = os.preadv(self._file.fileno(), [view], offset)
            if count == 0:
                raise StoreError(f"{self.folder / ROWS} ends at byte {offset}. {self._again()}")
            view, offset = view[count:], offset + count

    def blocks(self, block_rows: int = 1024) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, (<= block_rows, proj_dim) float32) in order; one block is in memory at a time."""
        for start in range(0, len(self), block_rows):
            yield start, np.asarray(self.rows[start : start + block_rows], dtype=np.float32)

    def first(self, proj_dim: int) -> FirstColumns:
        """A store of the first columns, renormalised, for a projection that is nested in k (`rademacher`).

        Parameters
        ----------
        proj_dim : int
            In [1, proj_dim of this store].

        Raises
        ------
        StoreError
            When the rows are known to be of another kind: their first columns are not a projection of the gradient.
        """
        kind = self._projection_kind()
        if kind not in (None, "rademacher"):
            raise StoreError(
                f"{self.folder} holds rows of {kind}, whose first {proj_dim} columns leave out most of the gradient; "
                "expected rademacher, which is nested in proj_dim. Compute gradients with "
                "gradients.projection=rademacher."
            )
        return FirstColumns(self, proj_dim)

    def other_projection(self, other: GradientStore) -> list[str]:
        """In what the projection of these rows differs from that of another store's; empty where that is not known."""
        paths = [store.folder / PROJECTION for store in (self, other)]
        return changes(*map(read_json, paths)) if all(path.exists() for path in paths) else []

    def _projection_kind(self) -> str | None:
        """Kind of projection as written next to the rows, or next to the first of two stores; None where it is not
        written."""
        for folder, name in ((self.folder, "projection"), (self.folder.parent, "second_projection")):
            if (folder / PROJECTION).exists():
                return str(read_json(folder / PROJECTION).get(name, {}).get("kind"))
        return None

    def damaged_rows(self, rows: range) -> Iterator[tuple[int, int, int]]:
        """Yield (row, checksum found, checksum stored) of flagged rows that are not what was written.

        Memory: `CHECK_BYTES`, or one row where that is longer.
        """
        if self.checksums is None:
            raise StoreError(f"{self.folder} has no {CHECKSUMS} (format 1): rows cannot be checked.")
        height = max(1, CHECK_BYTES // (2 * self.proj_dim))
        buffer = np.empty((height, self.proj_dim), dtype=np.float16)
        for start in range(rows.start, rows.stop, height):
            block = buffer[: min(height, rows.stop - start)]
            flagged = np.flatnonzero(self.written[start : start + len(block)])
            if len(flagged):
                self.read(start, block)
            for i in flagged.tolist():
                row, stored = start + i, int(self.checksums[start + i])
                found = checksum(self.prompt_ids[row], self.norms[row], block[i])
                if found != stored:
                    yield row, found, stored

    def require_complete(self) -> None:
        """Refuse a store with unwritten rows."""
        missing = np.flatnonzero(np.asarray(self.written) == 0)
        if len(missing):
            raise StoreError(
                f"{self.folder}: {len(missing)} of {len(self)} rows are not written (first: "
                f"{self.prompt_ids[missing[0]]}). {self._again(finished_too=False)}"
            )

    def _stage(self) -> Path:
        """Folder of the stage; that above, of the second of two stores."""
        return self.folder.parent if (self.folder.parent / IDS).exists() else self.folder

    def _again(self, finished_too: bool = True) -> str:
        """What to do about a store that is damaged, or not filled: a finished stage is run again as a whole."""
        stage = self._stage()
        if finished_too or (stage / MANIFEST).exists():
            return f"Delete {quoted(stage)} and run the gradients stage again:\n  {removal(stage)}"
        return "Run the gradients stage again: it continues there."

    def verify(self) -> None:
        """Check every byte of the store: headers, sizes, flags, the list of prompts and each row's checksum.

        Of a finished stage also all else that its manifest names, such as projection.json, and the manifest.

        Raises
        ------
        StoreError
            Naming the file, and the row and prompt_id where one is damaged.
        """
        again = self._again()
        if self.checksums is None:
            raise StoreError(f"{self.folder} has no {CHECKSUMS} (format 1): it cannot be verified. {again}")
        for name, array in (
            (ROWS, self.rows),
            (NORMS, self.norms),
            (CHECKSUMS, self.checksums),
            (WRITTEN, self.written),
        ):
            header, path = header_of(name, len(self), self.proj_dim), self.folder / name
            with path.open("rb") as file:
                if file.read(len(header)) != header:
                    raise StoreError(f"{path}: its header is not the one that was written. {again}")
            if path.stat().st_size != len(header) + array.nbytes:
                size = path.stat().st_size
                raise StoreError(f"{path} has {size} bytes; expected {len(header) + array.nbytes}. {again}")
        if (self.folder / IDS).read_bytes() != ids_text(self.prompt_ids).encode():
            raise StoreError(f"{self.folder / IDS} is not as it was written. {again}")
        wrong = np.flatnonzero(np.asarray(self.written) != 1)
        if len(wrong):
            row = int(wrong[0])
            raise StoreError(
                f"{self.folder / WRITTEN}: the flag of row {row} ({self.prompt_ids[row]}) is {self.written[row]}; "
                f"expected 1. {again}"
            )
        for row, found, stored in self.damaged_rows(range(len(self))):
            raise StoreError(
                f"{self.folder / ROWS} or {NORMS}: row {row} ({self.prompt_ids[row]}) has checksum {found:08x}, "
                f"{CHECKSUMS} says {stored:08x}. {again}"
            )
        self._verify_stage()

    def _verify_stage(self) -> None:
        """Check the manifest of the stage, where it has finished, and by it every file."""
        stage = self._stage()
        if (stage / MANIFEST).exists():
            try:
                manifest = read_manifest(stage) or {}
                check_outputs(stage, manifest)
            except StageError as error:
                raise StoreError(str(error)) from error
            if (stage / MANIFEST).read_bytes() != json_text(manifest).encode():
                raise StoreError(f"{stage / MANIFEST} is not as it was written. {self._again()}")


class FirstColumns:
    """The first columns of a store as unit rows (zero rows stay zero), made one block at a time.

    Memory: one block of the whole store's rows in float16, and of these in float32.
    """

    def __init__(self, store: GradientStore, proj_dim: int) -> None:
        if not 1 <= proj_dim <= store.proj_dim:
            raise StoreError(f"proj_dim is {proj_dim}; expected 1 to {store.proj_dim}, the length of the store's rows.")
        self.store, self.proj_dim, self.prompt_ids = store, proj_dim, store.prompt_ids

    def __len__(self) -> int:
        return len(self.store)

    def rows_between(self, start: int, stop: int) -> NDArray[np.float32]:
        """Rows start .. stop - 1, (stop - start, proj_dim) float32."""
        block = np.empty((stop - start, self.store.proj_dim), dtype=np.float16)
        self.store.read(start, block)
        values = block[:, : self.proj_dim].astype(np.float32)
        norms = np.linalg.norm(values, axis=1, keepdims=True)
        np.divide(values, norms, out=values, where=norms > 0)
        return values

    def blocks(self, block_rows: int = 1024) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, (<= block_rows, proj_dim) float32) in order."""
        for start in range(0, len(self), block_rows):
            yield start, self.rows_between(start, min(start + block_rows, len(self)))


def open_store(folder: Path | str, verify: bool = False) -> GradientStore:
    """Open a finished store for reading.

    Parameters
    ----------
    folder : Path
        `RUN/gradients`.
    verify : bool
        Read everything, and refuse a store of which any byte has changed; a store of format 1 has no
        checksums and is refused too.

    Returns
    -------
    GradientStore

    Raises
    ------
    StoreError
        When files are missing, of the wrong shape or type, or rows are not written; with `verify`, when
        a header, a flag, a prompt_id, a norm, a row, projection.json or the manifest is not what was written.
    """
    store = GradientStore(Path(folder))
    store.require_complete()
    if verify:
        store.verify()
    return store


def ids_text(prompt_ids: tuple[str, ...]) -> str:
    """`prompt_ids.json`, as `artifacts.write_json` writes it."""
    return json_text(list(prompt_ids))


def _has_checksums(folder: Path) -> bool:
    """Whether the store is of format 2; a finished one whose checksums are gone is refused."""
    if (folder / CHECKSUMS).exists():
        return True
    manifest: Any = read_json(folder / MANIFEST) if (folder / MANIFEST).exists() else {}
    if manifest.get("format_version", 1) >= 2:
        raise StoreError(f"{folder / CHECKSUMS} is missing. {made_anew(stage_of(folder / CHECKSUMS))}")
    return False
