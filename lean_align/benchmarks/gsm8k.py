"""GSM8K: word problems of primary school, the gold after "####"."""

from __future__ import annotations

from lean_align.benchmarks.base import BOXED_SOURCE, Benchmark, HubSource, boxed_maths, question_and_answer
from lean_align.verify import extract_answer, verify

BENCHMARK = Benchmark(
    name="gsm8k",
    title="GSM8K",
    hub=HubSource("openai/gsm8k", "main", "test"),
    file="gsm8k/test.jsonl",
    read=question_and_answer,
    extract=extract_answer,
    reward=verify,
    **boxed_maths(),
    sampled=False,
    max_new_tokens=512,
    size=1319,
    longest_tokens=192,
    source="Cobbe et al. 2021 (arXiv 2110.14168), the test split of 1,319",
    prompt_source=f"{BOXED_SOURCE}; greedy",
    licence="MIT (OpenAI)",
)
