"""RESULTS.md from the JSON files: a section for each bench and device, its columns those of its rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from lean_align.memory import human_bytes

HEAD = """# Measurements

Made by `make bench` or `make bench-full`; do not edit. A measured value is the median (smallest to largest); every
single value is in `bench/results/`. Ways that are compared were run in turn, A B A B. A way that failed or ran out of
memory keeps its row. A quick measurement is shown where there is no full one."""


def results_table(folder: Path, doc_of: Callable[[str], str]) -> str:
    """Markdown of all results in a folder."""
    parts = [HEAD]
    for path in chosen(folder):
        found = json.loads(path.read_text())
        device = " on a card" if found["machine"]["device"] == "cuda" else ""
        parts += [f"## {found['name']}{device}", doc_of(found["name"]), _machine(found), markdown(found["rows"])]
    return "\n\n".join(parts) + "\n"


def chosen(folder: Path) -> list[Path]:
    """Files that are shown: NAME.json and NAME.cuda.json, and their quick twins where those are missing."""
    full = {path for path in folder.glob("*.json") if not path.stem.endswith(".quick")}
    quick = {path for path in folder.glob("*.quick.json") if folder / path.name.replace(".quick", "") not in full}
    return sorted(full | quick)


def _machine(found: dict[str, Any]) -> str:
    machine = found["machine"]
    gpu = f"{machine['gpu']}; " if machine["gpu"] else ""
    size = "Full" if found["size"] == "full" else f"{found['size'].capitalize()} (not the full sizes)"
    return (
        f"{size}. {gpu}{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, "
        f"{human_bytes(machine['memory_bytes'])}; commit {machine['git_commit']}; "
        f"torch {machine['versions']['torch']}; seed {found['seed']}."
    )


def markdown(rows: list[dict[str, Any]]) -> str:
    """A table of the rows, a column for every key that one of them has."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    columns = [key for key in columns if key != "note"] + (["note"] if "note" in columns else [])
    lines = [columns, ["---"] * len(columns), *([cell(key, row.get(key)) for key in columns] for row in rows)]
    lines[0] = [column.removesuffix("_bytes").replace("_", " ") for column in columns]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def cell(column: str, value: Any) -> str:
    """One cell: bytes with their unit where the column's name ends in _bytes, a spread as median (min to max)."""
    if value is None:
        return ""
    if isinstance(value, dict) and "median" in value:
        middle, *ends = (cell(column, value[key]) for key in ("median", "min", "max"))
        return middle if len(value["values"]) == 1 else f"{middle} ({ends[0]} to {ends[1]})"
    if isinstance(value, float | int) and column.endswith("_bytes"):
        return human_bytes(int(value))
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value).replace("|", "\\|").replace("\n", " ")


def of_runs(rows_of: Callable[[Path], Iterable[dict[str, Any]]], run_dirs: Iterable[str]) -> str:
    """The table of each run folder, the runs beneath one another."""
    return "\n\n".join(f"{given}\n\n{markdown(list(rows_of(Path(given))))}" for given in run_dirs)
