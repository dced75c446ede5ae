"""The files of a store: names, types, headers to the byte, and the checksum of a row."""

from __future__ import annotations

import io
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.errors import StoreError
from lean_align.files import stage_of

ROWS, NORMS, CHECKSUMS, WRITTEN = "projected.npy", "norms.npy", "checksums.npy", "written.npy"
IDS = "prompt_ids.json"
PROJECTION = "projection.json"
"""Fingerprints of the projections that made the rows; the gradient stage writes it, a store made by hand has none."""
DTYPES: Mapping[str, type[np.generic]] = {
    ROWS: np.float16,
    NORMS: np.float32,
    CHECKSUMS: np.uint32,
    WRITTEN: np.uint8,
}


def shape_of(name: str, n: int, proj_dim: int) -> tuple[int, ...]:
    """Shape of one of the arrays in a store of n rows."""
    return (n, proj_dim) if name == ROWS else (n,)


def header_of(name: str, n: int, proj_dim: int) -> bytes:
    """The bytes before the numbers of an array's file, as NumPy writes them."""
    file = io.BytesIO()
    descr = np.lib.format.dtype_to_descr(np.dtype(DTYPES[name]))
    np.lib.format.write_array_header_1_0(
        file, {"descr": descr, "fortran_order": False, "shape": shape_of(name, n, proj_dim)}
    )
    return file.getvalue()


def create(path: Path, n: int, proj_dim: int) -> None:
    """Write an array of zeros, in place where the file exists, and make sure that its blocks are on the disk.

    On a full disk a mapped write would end the process with SIGBUS; here it is an error.
    """
    header = header_of(path.name, n, proj_dim)
    item = np.dtype(DTYPES[path.name]).itemsize
    size = len(header) + item * int(np.prod(shape_of(path.name, n, proj_dim)))
    with path.open("wb") as file:
        file.write(header)
        file.truncate(size)
        file.flush()
        if hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file.fileno(), 0, size)
        os.fsync(file.fileno())


def map_array(path: Path) -> Any:
    """Map one of the arrays for reading.

    Raises
    ------
    StoreError
        When the file is missing, cut, or holds another type.
    """
    try:
        array = np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError, EOFError, TypeError, OverflowError, SyntaxError, TokenError) as error:  # of the header
        raise StoreError(f"{path} cannot be read as a NumPy array: {error}. {made_anew(stage_of(path))}") from error
    expected = np.dtype(DTYPES[path.name])
    if array.dtype != expected:
        raise StoreError(f"{path} holds {array.dtype}; expected {expected.name}.")
    return array


def checksum(prompt_id: str, norm: np.float32, row: NDArray[np.float16]) -> int:
    """CRC-32 over the prompt_id in UTF-8, the norm (4 bytes) and the row (2 proj_dim bytes)."""
    value = zlib.crc32(prompt_id.encode("utf-8", "surrogatepass"))
    value = zlib.crc32(np.float32(norm).tobytes(), value)
    return zlib.crc32(np.ascontiguousarray(row).view(np.uint8).data, value)
