"""The gradient store: unit rows, norms and row flags in NumPy files that can be mapped.

::

    projected.npy    (n, proj_dim) float16  unit rows; a zero row where learnability is 0
    norms.npy        (n,) float32           norm of the projected gradient
    written.npy      (n,) uint8             1 once the row is on disk
    prompt_ids.json                         row order

A row is flagged after it and its norm are on disk, so that after a kill at any moment a flagged row
is whole.  Raw gradients would underflow in float16; entries of a unit row are near 1/sqrt(k) and do not.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import read_json, write_json
from lean_align.errors import StageError, StoreError

ROWS, NORMS, WRITTEN, IDS = "projected.npy", "norms.npy", "written.npy", "prompt_ids.json"


class GradientStore:
    """Rows of a store, mapped from disk; use `open_store` or `StoreWriter`.

    Attributes
    ----------
    rows : (n, proj_dim) float16
    norms : (n,) float32
    written : (n,) uint8
    prompt_ids : tuple of str
    """

    def __init__(self, folder: Path, mode: str) -> None:
        self.folder = folder
        try:
            ids = read_json(folder / IDS)
        except StageError as error:
            raise StoreError(str(error)) from error
        if not isinstance(ids, list):
            raise StoreError(f"{folder / IDS} holds {type(ids).__name__}; expected a list.")
        self.prompt_ids: tuple[str, ...] = tuple(ids)
        self.rows: NDArray[np.float16] = _map(folder / ROWS, mode, np.float16)
        self.norms: NDArray[np.float32] = _map(folder / NORMS, mode, np.float32)
        self.written: NDArray[np.uint8] = _map(folder / WRITTEN, mode, np.uint8)
        n = len(self.prompt_ids)
        for name, array, ndim in ((ROWS, self.rows, 2), (NORMS, self.norms, 1), (WRITTEN, self.written, 1)):
            if array.ndim != ndim:
                raise StoreError(f"{folder / name} has shape {array.shape}; expected {ndim} dimensions.")
        lengths = {ROWS: len(self.rows), NORMS: len(self.norms), WRITTEN: len(self.written)}
        for name, length in lengths.items():
            if length != n:
                raise StoreError(f"{folder / name} has {length} rows, {IDS} has {n}. Delete {folder} and run again.")

    def __len__(self) -> int:
        return len(self.prompt_ids)

    @property
    def proj_dim(self) -> int:
        """Length of a row."""
        return int(self.rows.shape[1])

    def blocks(self, block_rows: int = 1024) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Yield (first row, (<= block_rows, proj_dim) float32) in order; one block is in memory at a time."""
        for start in range(0, len(self), block_rows):
            yield start, np.asarray(self.rows[start : start + block_rows], dtype=np.float32)

    def require_complete(self) -> None:
        """Refuse a store with unwritten rows."""
        missing = np.flatnonzero(np.asarray(self.written) == 0)
        if len(missing):
            raise StoreError(
                f"{self.folder}: {len(missing)} of {len(self)} rows are not written (first: "
                f"{self.prompt_ids[missing[0]]}). Run the gradients stage again: it continues there."
            )


class StoreWriter(GradientStore):
    """A store being filled, new or continued."""

    @classmethod
    def open(cls, folder: Path, prompt_ids: Sequence[str], proj_dim: int) -> StoreWriter:
        """Create the files, or continue those that are there.

        Raises
        ------
        StoreError
            When the folder holds a store of another shape or prompt list.
        """
        if not (folder / IDS).exists():  # written last: whatever else lies there is incomplete
            n = len(prompt_ids)
            for name, dtype, shape in (
                (ROWS, np.float16, (n, proj_dim)),
                (NORMS, np.float32, (n,)),
                (WRITTEN, np.uint8, (n,)),
            ):
                np.lib.format.open_memmap(folder / name, mode="w+", dtype=dtype, shape=shape).flush()
                _reserve(folder / name)
            write_json(folder / IDS, list(prompt_ids))
        store = cls(folder, "r+")
        if store.prompt_ids != tuple(prompt_ids) or store.proj_dim != proj_dim:
            raise StoreError(
                f"{folder} holds {len(store)} rows of {store.proj_dim}, the run asks for {len(prompt_ids)} rows of "
                f"{proj_dim} or for other prompts. Choose another --run-dir or delete {folder}."
            )
        return store

    def write(self, row: int, projected: NDArray[np.floating[Any]]) -> None:
        """Write one projected gradient as a unit row with its norm, then flag it.

        Parameters
        ----------
        row : int
        projected : (proj_dim,) float
            Not normalised; a zero vector stays zero.
        """
        vector = np.asarray(projected, dtype=np.float64)
        if vector.shape != (self.proj_dim,) or not np.isfinite(vector).all():
            raise StoreError(
                f"row {row} ({self.prompt_ids[row]}): got a gradient of shape {vector.shape}, "
                f"expected {self.proj_dim} finite numbers. It was not written."
            )
        norm = float(np.linalg.norm(vector))
        self.rows[row] = vector / norm if norm > 0 else 0.0
        self.norms[row] = norm
        self.rows.flush()  # type: ignore[attr-defined]
        self.norms.flush()  # type: ignore[attr-defined]
        self.written[row] = 1
        self.written.flush()  # type: ignore[attr-defined]


def open_store(folder: Path | str) -> GradientStore:
    """Open a finished store for reading.

    Parameters
    ----------
    folder : Path
        `RUN/gradients`.

    Returns
    -------
    GradientStore

    Raises
    ------
    StoreError
        When files are missing, of the wrong shape or type, or rows are not written.
    """
    store = GradientStore(Path(folder), "r")
    store.require_complete()
    return store


def _reserve(path: Path) -> None:
    """Have the file's blocks now: on a full disk a mapped write would end the process with SIGBUS."""
    if not hasattr(os, "posix_fallocate"):  # macOS: mapped writes are all there is
        return
    with path.open("r+b") as file:
        os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _map(path: Path, mode: str, dtype: type) -> Any:
    try:
        array = np.lib.format.open_memmap(path, mode="r")  # "r+" would fill a file that was cut with zeros
        if mode != "r":
            array = np.lib.format.open_memmap(path, mode=mode)
    except (FileNotFoundError, ValueError, EOFError) as error:
        raise StoreError(
            f"{path} cannot be read as a NumPy array: {error}. Delete its folder and run again."
        ) from error
    if array.dtype != dtype:
        raise StoreError(f"{path} holds {array.dtype}; expected {np.dtype(dtype).name}.")
    return array
