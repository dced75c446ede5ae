"""Rows of any source, a cache-sized chunk at a time and several chunks at once.

A float16 row is widened by its bits: sign, exponent and mantissa are moved to the places where float32
has them, which gives the number times 2**-112, exactly (subnormals included).  It is several times
faster than NumPy's conversion; whoever multiplies by a chunk folds 2**112 into the other factor.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeAlias, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from lean_align.processors import processors
from lean_align.store.gradient_store import FirstColumns, GradientStore
from lean_align.types import FloatArray

CHUNK_ELEMENTS = (
    1 << 19
)  # of a chunk: 1 MiB in float16, 2 MiB in float32; smaller ones have threads wait for each other
TASK_CHUNKS = 4  # chunks a thread takes at a time
HALF_SCALE = 2.0**-112
_SIGN_AND_NUMBER = np.int32(-0x70000001)  # 0x8FFFFFFF: the sign-extended bits between sign and exponent go
_HALF_INFINITY = 0x7C00

Source: TypeAlias = "GradientStore | FirstColumns | ArrayRows"
T = TypeVar("T")


class ArrayRows:
    """An array behind the interface of a store."""

    def __init__(self, array: NDArray[np.floating], prompt_ids: Sequence[str] | None) -> None:
        if array.ndim != 2:
            raise ValueError(f"rows have shape {array.shape}; expected (n, k).")
        width = len(str(max(0, len(array) - 1)))
        numbered = tuple(f"{i:0{width}d}" for i in range(len(array)))
        self.array, self.prompt_ids = array, numbered if prompt_ids is None else tuple(prompt_ids)
        self.proj_dim = array.shape[1]

    def __len__(self) -> int:
        return len(self.array)


class Chunks:
    """Chunks of a source as float arrays that hold the rows times `scale`.

    Parameters
    ----------
    source : GradientStore, FirstColumns or ArrayRows
    block_rows : int, optional
        Rows of a chunk; `CHUNK_ELEMENTS` / k when not given.
    threads : int, optional
        How many work at a time; as many as there are processors when not given.

    Notes
    -----
    Memory: 6 bytes (a store) or 8 (an array) for each number of a chunk, times `threads`.
    """

    def __init__(self, source: Source, block_rows: int | None = None, threads: int | None = None) -> None:
        self.source, self.scale = source, HALF_SCALE if isinstance(source, GradientStore) else 1.0
        self.height = block_rows or max(1, CHUNK_ELEMENTS // max(1, source.proj_dim))
        self.threads = threads or processors()
        self._buffers = threading.local()

    def load(self, start: int, check: bool) -> FloatArray:
        """Rows from `start` on, times `scale`; the array is this thread's own and is used again by its next call.

        Raises
        ------
        ValueError
            With `check`, when a row holds NaN or Inf; it is named.
        """
        stop = min(start + self.height, len(self.source))
        if isinstance(self.source, GradientStore):
            return self._load_halves(self.source, start, stop, check)
        if isinstance(self.source, FirstColumns):
            rows: FloatArray = self.source.rows_between(start, stop)
        else:
            rows = self.source.array[start:stop].astype(np.float64)
        if check and not np.isfinite(rows).all():
            self._refuse(start, np.isfinite(rows))
        return rows

    def _load_halves(self, store: GradientStore, start: int, stop: int, check: bool) -> FloatArray:
        if not hasattr(self._buffers, "half"):
            shape = (self.height, store.proj_dim)
            self._buffers.half, self._buffers.wide = np.empty(shape, np.float16), np.empty(shape, np.float32)
        half, wide = self._buffers.half[: stop - start], self._buffers.wide[: stop - start]
        store.read(start, half)
        if check and half.size and _not_finite(half):
            self._refuse(start, np.isfinite(half))
        bits = wide.view(np.int32)
        np.copyto(bits, half.view(np.int16))
        np.left_shift(bits, 13, out=bits)
        np.bitwise_and(bits, _SIGN_AND_NUMBER, out=bits)
        return wide  # type: ignore[no-any-return]

    def _refuse(self, start: int, finite: NDArray[np.bool_]) -> None:
        row = start + int(np.argwhere(~finite)[0, 0])
        raise ValueError(f"row {row} ({self.source.prompt_ids[row]}) holds NaN or Inf; expected unit rows.")

    def map(self, task: Callable[[range], T]) -> Iterator[T]:
        """Yield task(starts of some chunks) in the order of the rows, whatever the number of threads.

        At most two results a thread wait at a time.
        """
        step = self.height * TASK_CHUNKS
        tasks = (range(s, min(s + step, len(self.source)), self.height) for s in range(0, len(self.source), step))
        if self.threads == 1 or len(self.source) <= step:
            yield from map(task, tasks)
            return
        waiting: deque[Future[T]] = deque()
        with ThreadPoolExecutor(self.threads) as pool:
            for starts in tasks:
                waiting.append(pool.submit(task, starts))
                if len(waiting) > 2 * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()


def as_source(rows: Source | ArrayLike, prompt_ids: Sequence[str] | None) -> Source:
    """A store as it is, an array behind the interface of one; what has been through here comes out the same."""
    return (
        rows if isinstance(rows, (GradientStore, FirstColumns, ArrayRows)) else ArrayRows(np.asarray(rows), prompt_ids)
    )


def _not_finite(half: NDArray[np.float16]) -> bool:
    """Whether any number has the exponent of NaN and Inf: read as integers, those are the largest of their sign."""
    largest, largest_negative = int(half.view(np.int16).max()), int(half.view(np.uint16).max())
    return largest >= _HALF_INFINITY or largest_negative >= 0x8000 + _HALF_INFINITY
