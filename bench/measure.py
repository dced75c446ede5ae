"""Two ways of doing the same thing, timed in turn in one process, and the result as a file."""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from lean_align.pipeline.environment import describe

RESULTS = Path(__file__).parent / "results"


def compare(ours: Callable[[], object], other: Callable[[], object], repeats: int = 5) -> dict[str, Any]:
    """Time both in turn, A B A B ..., after a warm-up of each; the ratio is taken pair by pair."""
    ours(), other()
    pairs = [(_seconds(ours), _seconds(other)) for _ in range(repeats)]
    return {
        "repeats": repeats,
        "ours_seconds": spread([a for a, _ in pairs]),
        "other_seconds": spread([b for _, b in pairs]),
        "times_faster": spread([b / a for a, b in pairs]),
    }


def spread(values: list[float]) -> dict[str, float]:
    """Smallest, median and largest."""
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def save(name: str, rows: list[dict[str, Any]], seed: int = 0) -> None:
    """Write rows with the machine and commit that they were measured on."""
    environment = describe(seed, "cpu")
    environment["host"]["processor"] = _processor()
    environment["host"]["threads"] = os.environ.get("OMP_NUM_THREADS", str(os.cpu_count()))
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps({"environment": environment, "rows": rows}, indent=2) + "\n")


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(": ")[1] for line in lines if line.startswith("model name")), platform.processor())
