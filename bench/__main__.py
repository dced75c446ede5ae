"""Run every bench_*.py, or those named; each row is written as soon as it is measured, then RESULTS.md."""

from __future__ import annotations

import argparse
import sys
import time
from importlib import import_module
from pathlib import Path

from bench.cases import CACHE
from bench.measure import RESULTS, Row, Settings, failed_rows, save
from bench.table import results_table

HERE = Path(__file__).parent
NAMES = sorted(path.stem for path in HERE.glob("bench_*.py"))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(NAMES)}; all by default")
    parser.add_argument("--full", action="store_true", help="the full sizes: hours on 2 cores")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes, to see that it runs; results are not kept")
    parser.add_argument("--repeats", type=int, help="times that each way is measured, instead of its own number")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="measure nothing, only write RESULTS.md again")
    given = parser.parse_args()
    names = [name if name.startswith("bench_") else f"bench_{name}" for name in given.names] or NAMES
    if unknown := sorted(set(names) - set(NAMES)):
        parser.error(f"there is no bench {', '.join(unknown)}; expected one of {', '.join(NAMES)}")
    settings = Settings("smoke" if given.smoke else "full" if given.full else "quick", given.repeats, given.seed)
    folder = CACHE / "smoke" if given.smoke else RESULTS
    for name in [] if given.table else names:
        print(name, file=sys.stderr, flush=True)
        run(name, settings, folder)
    (folder / "RESULTS.md" if given.smoke else HERE / "RESULTS.md").write_text(results_table(folder, doc_of))


def run(name: str, settings: Settings, folder: Path) -> None:
    rows: list[Row] = []
    start = time.perf_counter()
    for row in failed_rows(import_module(f"bench.{name}").measure(settings), name):
        rows.append(row)
        print("  " + ", ".join(f"{key} {_short(value)}" for key, value in row.items()), file=sys.stderr, flush=True)
        save(name, rows, settings, folder, time.perf_counter() - start)
    print(f"  {time.perf_counter() - start:.0f} s", file=sys.stderr, flush=True)


def doc_of(name: str) -> str:
    return (import_module(f"bench.{name}").__doc__ or "").strip()


def _short(value: object) -> object:
    return f"{value['median']:.4g}" if isinstance(value, dict) and "median" in value else value


if __name__ == "__main__":
    main()
