"""AMC2023: the 83 problems of AMC 12 2022 and 2023 whose answers AI-MO made whole numbers (`142.0` in the file)."""

from __future__ import annotations

from lean_align.benchmarks.benchmark import MAA, Benchmark, HubSource, boxed_maths

BENCHMARK = Benchmark(
    name="amc2023",
    title="AMC2023",
    hub=HubSource("AI-MO/aimo-validation-amc", None, "train"),
    file="amc23/aimo-validation-amc.jsonl",
    **boxed_maths(sampled=True),
    max_new_tokens=3072,
    size=83,
    longest_tokens=400,
    source="AI-MO's validation set of AMC 12 2022 and 2023, 83 problems: the paper's 18.1 is 15 of 83",
    licence=MAA,
    quotable=False,
)
