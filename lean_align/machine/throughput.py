"""Engines and backends side by side, each in a process of its own, and their table."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

from lean_align.artifacts import read_json
from lean_align.errors import StageError
from lean_align.memory import human_bytes, process_environment
from lean_align.progress import say
from lean_align.recipe import Recipe, load_recipe
from lean_align.stages import run

WAYS = (
    ("training", "lean"),
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
    """What a machine does in a second.

    Attributes
    ----------
    machine : dict
        Versions, host and device, as `run.json` holds them.
    recipe, model : str
    settings : dict
        Of the recipe, by dotted key, what was changed.
    n_prompts, steps, turns, max_new_tokens, num_generations : int
    date, command : str
    rows : tuple of dict
        work, way, its rate (the median of the turns) and each turn's in `rates`, load_seconds, peak_rss_bytes,
        peak_vram_bytes; or work, way and note.
    """

    machine: Mapping[str, Any]
    recipe: str
    model: str
    settings: Mapping[str, Any]
    n_prompts: int
    steps: int
    turns: int
    max_new_tokens: int
    num_generations: int
    date: str
    command: str
    rows: tuple[Mapping[str, Any], ...]

    def as_json(self) -> dict[str, Any]:
        """All of it, and each faster way's rate over the plain one's."""
        return {**vars(self), "rows": [dict(row) for row in self.rows], "ratios": self.ratios()}

    def ratios(self) -> dict[str, float]:
        """vllm over transformers, and the backends over one another, where both ran: of the medians."""
        rates = {(r["work"], r["way"]): r.get(RATES[r["work"]][0]) for r in self.rows}
        pairs = {
            "vllm / transformers": ("rollouts", "vllm", "transformers"),
            "lean / trl": ("training", "lean", "trl"),
            "unsloth / trl": ("training", "unsloth", "trl"),
            "unsloth / lean": ("training", "unsloth", "lean"),
        }
        found = {name: (rates.get((work, a)), rates.get((work, b))) for name, (work, a, b) in pairs.items()}
        return {name: a / b for name, (a, b) in found.items() if a and b}

    def lines(self) -> list[str]:
        """A table for the screen."""
        lines = [
            f"{self.recipe} ({self.model}) on {self.machine['device']}: {self.n_prompts} prompts x "
            f"{self.num_generations} completions of up to {self.max_new_tokens} tokens, {self.steps} training steps, "
            f"{self.turns} {'turn' if self.turns == 1 else 'turns'}"
        ]
        for row in self.rows:
            name = f"{row['work']:10} {row['way']:13}"
            if "note" in row:
                lines.append(f"{name} {row['note']}")
                continue
            key, unit = RATES[row["work"]]
            peaks = [f"RAM {human_bytes(row['peak_rss_bytes'])}"]
            peaks += [f"VRAM {human_bytes(row['peak_vram_bytes'])}"] if row["peak_vram_bytes"] else []
            spread = f" ({min(row['rates']):,.1f} to {max(row['rates']):,.1f})" if self.turns > 1 else ""
            seconds = f"loaded in {row['load_seconds']:.0f} s"
            lines.append(f"{name} {row[key]:9,.1f} {unit:15}{spread} peak {', '.join(peaks)}; {seconds}")
        lines += [f"{name}: {ratio:.2f} x as fast" for name, ratio in self.ratios().items()]
        if self.turns == 1:
            lines.append("one turn each: an indication; --turns 3, on an idle machine, makes it a measurement")
        return lines


def measure_throughput(
    recipe: str | Path,
    overrides: Mapping[str, Any] | None = None,
    n_prompts: int = 16,
    steps: int = 3,
    turns: int = 1,
    training_only: bool = False,
) -> Throughput:
    """Time a recipe's rollouts, gradients and training steps on this machine.

    Parameters
    ----------
    recipe : str or Path
    overrides : mapping, optional
    n_prompts : int
        Prompts that are sampled and whose gradients are taken.
    steps : int
        Training steps, at least 2: the first is not timed.
    turns : int
        How often all of them are timed, one after the other.
    training_only : bool
        Time the trainings alone.

    Returns
    -------
    Throughput

    Raises
    ------
    LeanAlignError
        When recipe, model or data cannot be used.  A way that fails is a row with a note.
    """
    settings = dict(overrides or {})
    own = {"data.limit": n_prompts, "data.test_limit": 1, "selection.method": "full"}
    loaded = load_recipe(recipe, {**settings, **own})
    with tempfile.TemporaryDirectory(prefix="lean_align_bench_") as folder:
        _prepare(loaded, Path(folder))
        ways = [(work, way) for work, way in WAYS if work == "training" or not training_only]
        found = [[_row(work, way, Path(folder), steps) for work, way in ways] for _ in range(turns)]
        machine = read_json(Path(folder) / "run.json")
    return Throughput(
        machine,
        loaded.name,
        loaded.model.name,
        settings,
        n_prompts,
        steps,
        turns,
        loaded.rollouts.max_new_tokens,
        loaded.rollouts.num_generations,
        time.strftime("%Y-%m-%d %H:%M"),
        shlex.join(sys.argv),
        tuple(_median(rows) for rows in zip(*found)),
    )


def _prepare(recipe: Recipe, folder: Path) -> None:
    try:
        run(recipe, folder, stop_after="prepare")
    except StageError as error:  # its own words speak of a run folder that is kept
        raise StageError(
            "the model or the data could not be prepared (see above), so nothing was measured. Without the hub give "
            "files: --set model.name=FOLDER --set data.train_path=FILE --set data.test_path=FILE --set data.config=null"
        ) from error


def _median(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """One row of a way's turns: medians of rates and seconds, the largest peaks.  One that failed speaks for all."""
    failed = next((row for row in turns if "note" in row), None)
    if failed is not None:
        return dict(failed)
    key, _ = RATES[turns[0]["work"]]
    rates = [row[key] for row in turns]
    vram = [row["peak_vram_bytes"] for row in turns if row["peak_vram_bytes"] is not None]
    return {
        **turns[-1],
        key: median(rates),
        "rates": rates,
        "load_seconds": median(row["load_seconds"] for row in turns),
        "peak_rss_bytes": max(row["peak_rss_bytes"] for row in turns),
        "peak_vram_bytes": max(vram, default=None),
    }


def _row(work: str, way: str, folder: Path, steps: int) -> dict[str, Any]:
    row: dict[str, Any] = {"work": work, "way": way}
    if way in _PACKAGES and find_spec(way) is None:
        return row | {"note": "not installed"}
    say(f"bench: {work} {way}".rstrip())
    arguments = {"run_dir": str(folder), "way": way} | ({"steps": steps} if work == "training" else {})
    command = [sys.executable, "-m", "lean_align.machine.pieces", work, json.dumps(arguments)]
    environment = process_environment(os.environ)
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        return row | {"note": f"failed: {_last_line(done.stderr.splitlines())}", "stderr": done.stderr[-4000:]}
    return row | dict(json.loads(done.stdout.splitlines()[-1]))


def _last_line(lines: Sequence[str]) -> str:
    return next((line.strip() for line in reversed(lines) if line.strip()), "no message")
