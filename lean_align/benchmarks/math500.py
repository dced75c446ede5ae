"""MATH500: 500 competition problems with answers in LaTeX."""

from __future__ import annotations

from lean_align.benchmarks.benchmark import Benchmark, HubSource, boxed_maths

BENCHMARK = Benchmark(
    name="math500",
    title="MATH500",
    hub=HubSource("HuggingFaceH4/MATH-500", None, "test"),
    file="math500/test.jsonl",
    **boxed_maths(),
    max_new_tokens=2048,
    size=500,
    longest_tokens=920,
    source="Hendrycks et al. 2021 (arXiv 2103.03874), the 500 of Lightman et al. 2023 (arXiv 2305.20050)",
    licence="MIT (MATH, prm800k)",
)
