"""AMC2023: the 83 problems of AMC 12 2022 and 2023 whose answers AI-MO made whole numbers (`142.0` in the file)."""

from __future__ import annotations

from lean_align.benchmarks.base import BOXED_SOURCE, Benchmark, HubSource, boxed_maths, question_and_answer
from lean_align.verify import extract_answer, verify

SAMPLED_SOURCE = (
    "avg@k at temperature 0.6 and top_p 0.95 as DeepSeek-R1 is evaluated (arXiv 2501.12948): so few problems make a "
    "greedy share too rough"
)

BENCHMARK = Benchmark(
    name="amc2023",
    title="AMC2023",
    hub=HubSource("AI-MO/aimo-validation-amc", None, "train"),
    file="amc23/aimo-validation-amc.jsonl",
    read=question_and_answer,
    extract=extract_answer,
    reward=verify,
    **boxed_maths(),
    sampled=True,
    max_new_tokens=3072,
    size=83,
    longest_tokens=400,
    source="AI-MO's validation set of AMC 12 2022 and 2023, 83 problems: the paper's 18.1 is 15 of 83",
    prompt_source=f"{BOXED_SOURCE}; {SAMPLED_SOURCE}",
    licence="problems (c) MAA: for evaluation alone, not to be passed on",
    quotable=False,
)
