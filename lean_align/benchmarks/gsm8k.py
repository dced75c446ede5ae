"""GSM8K: grade-school word problems, the gold after "####"."""

from __future__ import annotations

from lean_align.benchmarks.benchmark import Benchmark, HubSource, boxed_maths

BENCHMARK = Benchmark(
    name="gsm8k",
    title="GSM8K",
    hub=HubSource("openai/gsm8k", "main", "test"),
    file="gsm8k/test.jsonl",
    **boxed_maths(),
    max_new_tokens=512,
    size=1319,
    longest_tokens=192,
    source="Cobbe et al. 2021 (arXiv 2110.14168), the test split of 1,319",
    licence="MIT (OpenAI)",
)
