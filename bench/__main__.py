"""Run every bench_*.py, or those named; write results/*.json; make RESULTS.md from all that lies there."""

from __future__ import annotations

import json
import sys
import traceback
from importlib import import_module
from pathlib import Path
from typing import Any

from bench.measure import RESULTS, save

HERE = Path(__file__).parent


def main(names: list[str]) -> None:
    for name in names or sorted(path.stem for path in HERE.glob("bench_*.py")):
        print(name, file=sys.stderr, flush=True)
        try:
            rows = import_module(f"bench.{name}").measure()
        except Exception as error:  # a failure is a row of the table, not the end of it
            traceback.print_exc()
            rows = [{"what": name, "note": f"failed: {type(error).__name__}: {error}"}]
        save(name, rows)
    (HERE / "RESULTS.md").write_text(table())


def table() -> str:
    parts = ["# Measurements", "", "Made by `make bench`; do not edit. Seconds are median (smallest to largest)."]
    for path in sorted(RESULTS.glob("*.json")):
        found = json.loads(path.read_text())
        host, environment = found["environment"]["host"], found["environment"]
        module = import_module(f"bench.{path.stem}")
        parts += ["", f"## {path.stem}", "", (module.__doc__ or "").strip(), ""]
        parts += [
            f"{host['processor']}, {host['cpus']} cores, {host['threads']} threads; "
            f"commit {environment['git_commit']}; torch {environment['versions']['torch']}.",
            "",
            "| what | seconds | against | its seconds | times faster | note |",
            "| --- | --- | --- | --- | --- | --- |",
            *(_row(row) for row in found["rows"]),
        ]
    return "\n".join([*parts, ""])


def _row(row: dict[str, Any]) -> str:
    cells = [row["what"], _cell(row.get("ours_seconds")), row.get("other", ""), _cell(row.get("other_seconds"))]
    return "| " + " | ".join([*cells, _cell(row.get("times_faster")), row.get("note", "")]) + " |"


def _cell(value: dict[str, float] | None) -> str:
    return "" if value is None else f"{value['median']:.3g} ({value['min']:.3g} to {value['max']:.3g})"


if __name__ == "__main__":
    main(sys.argv[1:])
