"""Scores of a store on disk against reading its file once, and against the n x n matrix.

Plain reading is `readinto` of one 8 MiB buffer, the file in the page cache; the score needs two passes. Added memory
is the growth of the resident set in a fresh process, pages of mapped files included, and next to it without them: it
must not grow with n.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.child import added_memory, in_child
from bench.measure import Row, Settings, attempt, in_turn, ratio
from lean_align.scoring import learnability, score_prompts
from lean_align.store import StoreWriter, open_store

PROJ_DIM, BUFFER = 8192, 8 * 2**20
WAYS = {"score_prompts": "score", "plain reading": "read", "n x n matrix in NumPy": "matrix"}


def measure(settings: Settings) -> Iterator[Row]:
    small, large = settings.pick(200, 2000, 4000), settings.pick(400, 8000, 40_000)
    with tempfile.TemporaryDirectory() as folder:
        for n, names in ((large, list(WAYS)[:2]), (small, list(WAYS))):
            store = make_store(Path(folder) / str(n), n, settings.seed)
            works = {name: (lambda name=name, store=store: way(WAYS[name], store)) for name in names}
            timings = in_turn(works, settings.times(3, 5))
            for name in names:
                row: Row = {"n": n, "proj_dim": PROJ_DIM, "way": name} | timings[name].columns()
                row["times_plain_reading"] = ratio(timings[name], timings["plain reading"])
                target = {"target": "bench_scoring:memory", "way_name": WAYS[name], "folder": str(store)}
                yield row | attempt({}, lambda target=target: in_child(**target))
            if n == small:
                yield {"n": n, "way": "largest difference to the matrix"} | _difference(store)


def make_store(folder: Path, n: int, seed: int) -> Path:
    """A store of random rows."""
    folder.mkdir()
    generator = np.random.default_rng(seed)
    with StoreWriter.open(folder, [f"p-{i}" for i in range(n)], PROJ_DIM) as store:
        for row in range(n):
            store.write(row, generator.standard_normal(PROJ_DIM, dtype=np.float32))
    return folder


def success_rates(n: int) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 9, n) / 8


def way(name: str, store: Path) -> np.ndarray | None:
    if name == "read":
        buffer = bytearray(BUFFER)
        with (store / "projected.npy").open("rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
        return None
    if name == "score":
        opened = open_store(store)
        return score_prompts(opened, success_rates(len(opened))).score
    rows = np.load(store / "projected.npy").astype(np.float64)
    v = learnability(success_rates(len(rows)))
    return (np.outer(v, v) * (rows @ rows.T)).mean(axis=1)


def memory(way_name: str, folder: str) -> Row:
    """What one call adds, in a process of its own."""
    np.ones((8, 8)) @ np.ones((8, 8))  # BLAS takes its buffers before
    with added_memory() as found:
        way(way_name, Path(folder))
    return {key: found[key] for key in ("added_bytes", "added_anonymous_bytes")}


def _difference(store: Path) -> Row:
    a, b = way("score", store), way("matrix", store)
    return {"note": f"{np.abs(a - b).max() / np.abs(b).max():.1e} of the largest score"}
