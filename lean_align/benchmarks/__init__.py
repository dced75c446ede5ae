"""Benchmarks: a small module each, with loader, prompt, extraction, metric, source and licence.

One of your own is a `Benchmark` that your package names under the entry point group `lean_align.benchmarks`.
"""

from lean_align.benchmarks.benchmark import Benchmark, HubSource, Problem, protocol_of
from lean_align.benchmarks.problem_files import benchmark_encoder, choose_problems, load_problems, source_of
from lean_align.benchmarks.registry import DEFAULT_NAMES, benchmark_names, find_benchmarks

__all__ = [
    "DEFAULT_NAMES",
    "Benchmark",
    "HubSource",
    "Problem",
    "benchmark_encoder",
    "benchmark_names",
    "choose_problems",
    "find_benchmarks",
    "load_problems",
    "protocol_of",
    "source_of",
]
