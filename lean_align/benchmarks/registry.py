"""Benchmarks by name: those that ship, and those of the entry point group `lean_align.benchmarks`."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from functools import cache
from importlib.metadata import entry_points

from lean_align.benchmarks import aime2024, amc2023, crux, crux_input, gsm8k, math500
from lean_align.benchmarks.base import Benchmark
from lean_align.errors import RecipeError

GROUP = "lean_align.benchmarks"
SHIPPED = tuple(module.BENCHMARK for module in (gsm8k, math500, amc2023, aime2024, crux, crux_input))
DEFAULT_NAMES = ("gsm8k", "math500", "amc2023", "aime2024", "crux")
"""The columns of the paper's second table."""


@cache
def all_benchmarks() -> dict[str, Benchmark]:
    """Every benchmark that is installed, by name.

    Raises
    ------
    RecipeError
        When an entry point is no Benchmark, or takes a name that is taken.
    """
    found = {benchmark.name: benchmark for benchmark in SHIPPED}
    for entry in entry_points(group=GROUP):
        benchmark = entry.load()
        if not isinstance(benchmark, Benchmark) or benchmark.name != entry.name or entry.name in found:
            raise RecipeError(
                f"the entry point {entry.name!r} of {GROUP} ({entry.value}) gives {benchmark!r:.80}; expected a "
                f"lean_align.benchmarks.Benchmark of that name, which is none of {', '.join(found)}. Mend the package "
                "that has it, or uninstall it."
            )
        found[entry.name] = benchmark
    return found


def find_benchmarks(names: Sequence[str]) -> list[Benchmark]:
    """The benchmarks of some names, in their order.

    Raises
    ------
    RecipeError
        When there is no such benchmark, or one is named twice.
    """
    known = all_benchmarks()
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
            offer = f"; did you mean {near[0]!r}?" if near else "."
            raise RecipeError(f"there is no benchmark {name!r}{offer} There are: {', '.join(known)}.")
    if len(set(names)) < len(names):
        raise RecipeError(f"the benchmarks are {', '.join(names)}; expected each once.")
    return [known[name] for name in names]
