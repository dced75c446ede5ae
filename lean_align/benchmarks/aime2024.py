"""AIME2024: the 30 problems of AIME I and II, answers from 0 to 999."""

from __future__ import annotations

from lean_align.benchmarks.benchmark import MAA, Benchmark, HubSource, boxed_maths

BENCHMARK = Benchmark(
    name="aime2024",
    title="AIME2024",
    hub=HubSource("HuggingFaceH4/aime_2024", None, "train"),
    file="aime24/test.jsonl",
    **boxed_maths(sampled=True),
    max_new_tokens=3072,
    size=30,
    longest_tokens=420,
    source="AIME I and II of 2024, 30 problems",
    licence=MAA,
    quotable=False,
)
