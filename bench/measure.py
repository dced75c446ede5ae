"""Ways of doing the same thing, timed in turn in one process; spreads, rows and the machine they come from."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

Row = dict[str, Any]
T = TypeVar("T")
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Settings:
    """What the command line asked for: `size` is smoke (does it run?), quick or full."""

    size: str = "quick"
    repeats: int | None = None
    seed: int = 0

    def pick(self, smoke: T, quick: T, full: T) -> T:
        return {"smoke": smoke, "quick": quick, "full": full}[self.size]

    def times(self, quick: int, full: int) -> int:
        return self.repeats or self.pick(1, quick, full)


@dataclass
class Timing:
    """Wall seconds of one way, every repeat; why it stopped, if it did."""

    seconds: list[float] = field(default_factory=list)
    peak_vram_bytes: int | None = None
    failure: str | None = None

    def columns(self, **per_second: float) -> Row:
        """Seconds, and each named amount divided by them."""
        row: Row = {"seconds": spread(self.seconds)}
        for name, amount in per_second.items():
            row[f"{name}_per_second"] = spread([amount / seconds for seconds in self.seconds])
        if self.peak_vram_bytes is not None:
            row["peak_vram_bytes"] = self.peak_vram_bytes
        return row | ({"note": self.failure} if self.failure else {})


def in_turn(ways: Mapping[str, Callable[[], object]], repeats: int, warm_up: bool = True) -> dict[str, Timing]:
    """Time every way in turn, A B C A B C ..., after one call of each; a way that fails is left out from then on."""
    timings = {name: Timing() for name in ways}
    for turn in range(-1 if warm_up else 0, repeats):
        for name, work in ways.items():
            if timings[name].failure is None:
                _time(work, timings[name], counts=turn >= 0)
    return timings


def _time(work: Callable[[], object], timing: Timing, counts: bool) -> None:
    cuda = _cuda()
    if cuda:
        cuda.reset_peak_memory_stats()
    start = time.perf_counter()
    try:
        work()
        if cuda:
            cuda.synchronize()
    except Exception as error:  # a way that cannot run is a row of the table
        timing.failure = failure(error)
        return
    if counts:
        timing.seconds.append(time.perf_counter() - start)
    if cuda:
        timing.peak_vram_bytes = max(timing.peak_vram_bytes or 0, cuda.max_memory_allocated())


def failure(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"failed: {type(error).__name__}: {lines[0][:300] if lines else ''}"


def attempt(columns: Row, work: Callable[[], Row]) -> Row:
    """`columns` and what `work` returns, or the reason why it returned nothing."""
    try:
        return columns | work()
    except Exception as error:
        return columns | {"note": failure(error)}


def spread(values: Iterable[float]) -> Row | None:
    """Every value with median, smallest and largest; None of none."""
    kept = [float(value) for value in values]
    if not kept:
        return None
    return {"median": statistics.median(kept), "min": min(kept), "max": max(kept), "values": kept}


def ratio(above: Timing, below: Timing) -> Row | None:
    """Seconds of one way over another's, turn by turn."""
    return spread([a / b for a, b in zip(above.seconds, below.seconds)])


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(a @ b / (np.linalg.norm(a) * np.linalg.norm(b)))


def pairwise_cosines(rows: np.ndarray) -> np.ndarray:
    """(n (n - 1) / 2,) cosines of all pairs of rows."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return (unit @ unit.T)[np.triu_indices(len(rows), 1)]


def top_overlap(a: np.ndarray, b: np.ndarray, n: int) -> float:
    """Share of the n highest of `a` that are among the n highest of `b`."""
    return len(set(np.argsort(-a)[:n]) & set(np.argsort(-b)[:n])) / n


def save(name: str, rows: list[Row], settings: Settings, folder: Path = RESULTS, wall_seconds: float = 0.0) -> Path:
    """Write rows with the machine and commit that they were measured on; quick, full, CPU and card are kept apart."""
    device = "cuda" if _cuda() else "cpu"
    parts = [name, *(["cuda"] if device == "cuda" else []), *([] if settings.size == "full" else [settings.size])]
    path = folder / (".".join(parts) + ".json")
    folder.mkdir(parents=True, exist_ok=True)
    found = {"name": name, "size": settings.size, "repeats_asked": settings.repeats, "seed": settings.seed}
    found["wall_seconds"] = round(wall_seconds, 1)
    path.write_text(json.dumps(found | {"machine": machine(settings.seed, device), "rows": rows}, indent=2) + "\n")
    return path


def machine(seed: int, device: str) -> Row:
    import torch

    from lean_align.pipeline.environment import describe, processor

    found = describe(seed, device)
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "gpu": torch.cuda.get_device_name(0) if device == "cuda" else None,
        "git_commit": commit(),
        **{key: found[key] for key in ("versions", "device")},
        "date": time.strftime("%Y-%m-%d %H:%M"),
    }


@cache
def commit() -> str | None:
    """Commit of this checkout, `-dirty` when anything but results differs from it; None outside a checkout."""
    git = ["git", "-C", str(RESULTS.parent.parent)]
    results = [f":(exclude){path}" for path in ("bench/results", "bench/RESULTS.md", "docs/projection_truth.png")]
    try:
        name = subprocess.run([*git, "rev-parse", "--short=12", "HEAD"], capture_output=True, text=True, check=True)
        status = subprocess.run([*git, "status", "--porcelain", "--", ".", *results], capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    return name.stdout.strip() + ("-dirty" if status.stdout.strip() else "")


def failed_rows(rows: Iterable[Row], name: str) -> Iterator[Row]:
    """The rows of a bench as they come; an error becomes the last of them."""
    try:
        yield from rows
    except Exception as error:
        import traceback

        traceback.print_exc()
        yield {"what": name, "note": failure(error)}


def _cuda() -> Any:
    import torch

    return torch.cuda if torch.cuda.is_available() else None
