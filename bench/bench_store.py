"""The gradient store: writing row by row, flagged and flushed, and reading in blocks, against NumPy on the whole block.

`np.save` writes the finished float16 rows at once and keeps nothing safe in between: it is the floor.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.measure import Row, Settings, in_turn, ratio
from lean_align.store import StoreWriter, open_store

PROJ_DIM = 8192


def measure(settings: Settings) -> Iterator[Row]:
    n = settings.pick(50, 1000, 7473)
    generator = np.random.default_rng(settings.seed)
    gradients = generator.standard_normal((n, PROJ_DIM), dtype=np.float32)
    ids = [f"p-{i}" for i in range(n)]
    with tempfile.TemporaryDirectory() as folder:
        saved, store, number = Path(folder) / "saved.npy", Path(folder) / "store", iter(range(10**6))

        def write() -> None:
            (target := Path(folder) / f"store-{next(number)}").mkdir()
            with StoreWriter.open(target, ids, PROJ_DIM) as writer:
                for row, gradient in enumerate(gradients):
                    writer.write(row, gradient)
            shutil.rmtree(store, ignore_errors=True)
            target.rename(store)

        def save() -> None:
            norms = np.linalg.norm(gradients, axis=1, keepdims=True)
            with saved.open("wb") as file:
                np.save(file, (gradients / norms).astype(np.float16))
                file.flush()
                os.fsync(file.fileno())

        def read() -> None:
            for _, block in open_store(store).blocks():
                block.sum()

        def load() -> None:
            np.load(saved).astype(np.float32).sum()

        repeats, size = settings.times(3, 5), n * PROJ_DIM * 2
        for names, ways in (
            (("write", "StoreWriter.write", "np.save and fsync"), (write, save)),
            (("read", "open_store(...).blocks()", "np.load"), (read, load)),
        ):
            timings = in_turn(dict(zip(names[1:], ways)), repeats)
            first = timings[names[1]]
            for way, timing in timings.items():
                row: Row = {"what": f"{names[0]} {n:,} rows of {PROJ_DIM:,}", "way": way}
                rates = timing.columns(rows=n, megabytes=size / 1e6)
                yield row | rates | {"seconds_over_ours": ratio(timing, first)}
