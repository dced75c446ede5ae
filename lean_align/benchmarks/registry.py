"""Benchmarks by name: those that ship, and those of the entry point group `lean_align.benchmarks`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from importlib.metadata import EntryPoint, entry_points

from lean_align.benchmarks import aime2024, amc2023, crux, gsm8k, math500
from lean_align.benchmarks.benchmark import Benchmark
from lean_align.errors import RecipeError

GROUP = "lean_align.benchmarks"
SHIPPED = (*(module.BENCHMARK for module in (gsm8k, math500, amc2023, aime2024)), crux.OUTPUT, crux.INPUT)
DEFAULT_NAMES = ("gsm8k", "math500", "amc2023", "aime2024", "crux")
"""The columns of the paper's second table."""


def benchmark_names() -> list[str]:
    """Names of all benchmarks, those of other packages among them; nothing of theirs is loaded."""
    return list(dict.fromkeys([benchmark.name for benchmark in SHIPPED] + [e.name for e in entry_points(group=GROUP)]))


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of some names, in their order.

    Raises
    ------
    RecipeError
        When there is no such benchmark, one is named twice, or a package's own cannot be loaded.
    """
    known = benchmark_names()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            offer = f"; did you mean {near[0]!r}?" if near else "."
            raise RecipeError(f"there is no benchmark {name!r}{offer} There are: {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise RecipeError(f"the benchmarks are {', '.join(names)}; expected each once.")
    shipped = {benchmark.name: benchmark for benchmark in SHIPPED}
    return [shipped[name] if name in shipped else _load(name) for name in names]


def _load(name: str) -> Benchmark:
    """A benchmark of another package; a name that ships is never looked for there."""
    entry = next(entry for entry in entry_points(group=GROUP) if entry.name == name)
    try:
        found = entry.load()
    except Exception as error:  # whatever a module of another's does as it is imported
        raise _unfit(entry, f"cannot be loaded ({type(error).__name__}: {error})") from error
    if not isinstance(found, Benchmark):
        raise _unfit(entry, f"gives {type(found).__name__}")
    if found.name != name:
        raise _unfit(entry, f"gives the benchmark {found.name!r}")
    return found


def _unfit(entry: EntryPoint, what: str) -> RecipeError:
    return RecipeError(
        f"the entry point {entry.name!r} of {GROUP} ({entry.value}) {what}; expected a lean_align.benchmarks.Benchmark "
        "of that name. Fix the package that provides it, or uninstall it."
    )
