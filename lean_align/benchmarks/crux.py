"""CRUX, output prediction: what does this function return?  The answer is a literal; nothing is run.

Format (tags, `assert f(...) == ??`, step by step) is CRUXEval's, the wording and the example are our own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lean_align.benchmarks.assertions import find_answer, output_of
from lean_align.benchmarks.benchmark import Benchmark, HubSource, Problem, field
from lean_align.sandbox import parse_literal

TEMPLATE = """\
Below are a Python function and an assertion about a call of it. Work out what the call returns, even where the \
function looks wrong, and put the literal in the place of ??. Go through the code step by step first. Then write the \
whole assertion between [ANSWER] and [/ANSWER], with nothing in it that would still have to be computed.

[PYTHON]
def f(words):
    words.reverse()
    return words[:2]
assert f(["ox", "elk", "bee"]) == ??
[/PYTHON]
1. words is ["ox", "elk", "bee"]; reversed in place it is ["bee", "elk", "ox"].
2. Its first two entries are "bee" and "elk".
[ANSWER]
assert f(["ox", "elk", "bee"]) == ["bee", "elk"]
[/ANSWER]

[PYTHON]
{prompt}
[/PYTHON]
"""
SOURCE = "Gu et al. 2024 (arXiv 2401.03065), 800 functions"


def read_problem(row: Mapping[str, Any]) -> Problem:
    """A row with code, input and output."""
    code, given = field(row, "code"), field(row, "input")
    return Problem(f"{code}\nassert f({given}) == ??", field(row, "output"))


def reward(gold: str, completion: str) -> float:
    """1.0 where the literal of the answer equals the gold's, as Python compares them."""
    answer = extract(completion)
    if answer is None:
        return 0.0
    try:
        return float(bool(parse_literal(answer) == parse_literal(gold)))
    except ValueError:
        return 0.0


def extract(completion: str) -> str | None:
    """The literal, as written."""
    answer = find_answer(completion)
    return None if answer is None else output_of(answer)


BENCHMARK = Benchmark(
    name="crux",
    title="CRUX",
    hub=HubSource("cruxeval-org/cruxeval", None, "test"),
    file="crux/cruxeval.jsonl",
    read=read_problem,
    extract=extract,
    reward=reward,
    system_prompt=None,
    prompt_template=TEMPLATE,
    plain_template=TEMPLATE,
    sampled=False,
    max_new_tokens=1024,
    size=800,
    longest_tokens=160,
    source=f"{SOURCE}, output prediction",
    prompt_source="CRUXEval's format with steps before the answer, in our words and with one example; greedy",
    licence="MIT (Meta)",
)
