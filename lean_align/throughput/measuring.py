"""The ways side by side, each in a process of its own, and their table."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from lean_align.artifacts import read_json
from lean_align.memory import allocator_environment, human_bytes
from lean_align.pipeline import run
from lean_align.progress import say
from lean_align.recipe import load_recipe

WAYS = (
    ("training", "trl"),
    ("training", "unsloth"),
    ("rollouts", "transformers"),
    ("rollouts", "vllm"),
    ("gradients", ""),
)
RATES = {
    "training": ("steps_per_hour", "steps an hour"),
    "rollouts": ("completion_tokens_per_second", "tokens a second"),
    "gradients": ("tokens_per_second", "tokens a second"),
}
_PACKAGES = ("unsloth", "vllm")


@dataclass(frozen=True)
class Throughput:
    """What a machine made a second.

    Attributes
    ----------
    machine : dict
        Versions, host and device, as `run.json` holds them.
    recipe : str
    settings : dict
        Of the recipe, by dotted key, what was set for this measurement.
    n_prompts, steps : int
    rows : tuple of dict
        work, way, its rate, load_seconds, peak_rss_bytes, peak_vram_bytes; or work, way and note.
    """

    machine: Mapping[str, Any]
    recipe: str
    settings: Mapping[str, Any]
    n_prompts: int
    steps: int
    rows: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, and each faster way's rate over the plain one's."""
        return {**vars(self), "rows": [dict(row) for row in self.rows], "ratios": self.ratios()}

    def ratios(self) -> dict[str, float]:
        """vllm over transformers, and unsloth over trl, where both ran."""
        rates = {(r["work"], r["way"]): r.get(RATES[r["work"]][0]) for r in self.rows}
        pairs = {
            "vllm / transformers": ("rollouts", "vllm", "transformers"),
            "unsloth / trl": ("training", "unsloth", "trl"),
        }
        found = {name: (rates.get((work, a)), rates.get((work, b))) for name, (work, a, b) in pairs.items()}
        return {name: a / b for name, (a, b) in found.items() if a and b}

    def lines(self) -> list[str]:
        """A table for the screen."""
        lines = [f"{self.recipe} on {self.machine['device']}, {self.n_prompts} prompts, {self.steps} training steps"]
        for row in self.rows:
            name = f"{row['work']:10} {row['way']:13}"
            if "note" in row:
                lines.append(f"{name} {row['note']}")
                continue
            key, unit = RATES[row["work"]]
            peaks = [f"RAM {human_bytes(row['peak_rss_bytes'])}"]
            peaks += [f"VRAM {human_bytes(row['peak_vram_bytes'])}"] if row["peak_vram_bytes"] else []
            lines.append(
                f"{name} {row[key]:9,.1f} {unit:15} peak {', '.join(peaks)}; loaded in {row['load_seconds']:.0f} s"
            )
        lines += [f"{name}: {ratio:.2f} x as many" for name, ratio in self.ratios().items()]
        return [*lines, "one pass each: a lead; larger --prompts and --steps, on an idle machine, make it firmer"]


def measure_throughput(
    recipe: str | Path, overrides: Mapping[str, Any] | None = None, n_prompts: int = 16, steps: int = 3
) -> Throughput:
    """Time a recipe's rollouts, gradients and training steps on this machine.

    Parameters
    ----------
    recipe : str or Path
    overrides : mapping, optional
    n_prompts : int
        Prompts that are sampled and whose gradients are taken.
    steps : int
        Training steps, at least 2: the first also warms up.

    Returns
    -------
    Throughput

    Raises
    ------
    LeanAlignError
        When recipe, model or data cannot be used.  A way that fails is a row with a note.
    """
    settings = {
        **(overrides or {}),
        "data.limit": n_prompts,
        "data.test_limit": 1,
        "selection.method": "full",
    }
    loaded = load_recipe(recipe, settings)
    with tempfile.TemporaryDirectory(prefix="lean_align_bench_") as folder:
        run(loaded, folder, stop_after="prepare")
        rows = tuple(_row(work, way, Path(folder), steps) for work, way in WAYS)
        machine = read_json(Path(folder) / "run.json")
    return Throughput(machine, loaded.name, settings, n_prompts, steps, rows)


def _row(work: str, way: str, folder: Path, steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"work": work, "way": way}
    if way in _PACKAGES and find_spec(way) is None:
        return row | {"note": "not installed"}
    say(f"bench: {work} {way}".rstrip())
    arguments = {"run_dir": str(folder), "way": way} | ({"steps": steps} if work == "training" else {})
    command = [sys.executable, "-m", "lean_align.throughput.pieces", work, json.dumps(arguments)]
    environment = allocator_environment(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return row | {"note": f"failed: {_last_line(done.stderr.splitlines())}", "stderr": done.stderr[-4000:]}
    return row | dict(json.loads(done.stdout.splitlines()[-1]))


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
