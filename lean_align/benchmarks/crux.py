"""CRUX: what a function returns (output prediction), and arguments with which it returns a value (input prediction).

The output is a literal; nothing is run.  Any arguments that give the value are right.  They are the model's code and
the function has to run, so both run in the sandbox, in two children: the first turns the arguments into literals, the
second calls the function on them.  What the model wrote is not there when the result is made, and the result is
compared with the gold here.

Format (tags, `assert f(...) == ??`, step by step) is CRUXEval's, the wording and the example are our own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lean_align.benchmarks.assertions import arguments_of, find_answer, output_of
from lean_align.benchmarks.benchmark import Benchmark, HubSource, Problem, field
from lean_align.sandbox import call_function, evaluate_arguments, parse_literal

OUTPUT_TEMPLATE = """\
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
INPUT_TEMPLATE = """\
Below are a Python function and an assertion about a call of it whose arguments are missing. Find arguments for which \
the assertion holds and put them in the place of ??. There may be many; give one. Think step by step first. Then write \
the whole assertion between [ANSWER] and [/ANSWER].

[PYTHON]
def f(a, b):
    return b + 2 * a
assert f(??) == 11
[/PYTHON]
1. b + 2 * a has to be 11.
2. With a = 4, 2 * a is 8, and b = 3 is left.
[ANSWER]
assert f(4, 3) == 11
[/ANSWER]

[PYTHON]
{prompt}
[/PYTHON]
"""
SOURCE = "Gu et al. 2024 (arXiv 2401.03065), 800 functions"


def read_output_problem(row: Mapping[str, Any]) -> Problem:
    """A row with code, input and output."""
    code, given = field(row, "code"), field(row, "input")
    return Problem(f"{code}\nassert f({given}) == ??", field(row, "output"))


def reward_output(gold: str, completion: str) -> float:
    """1.0 where the literal of the answer equals the gold's, as Python compares them."""
    answer = extract_output(completion)
    if answer is None:
        return 0.0
    try:
        return float(bool(parse_literal(answer) == parse_literal(gold)))
    except ValueError:
        return 0.0


def extract_output(completion: str) -> str | None:
    """The literal, as written."""
    answer = find_answer(completion)
    return None if answer is None else output_of(answer)


def read_input_problem(row: Mapping[str, Any]) -> Problem:
    """A row with code and output; the gold holds both."""
    code, output = field(row, "code"), field(row, "output")
    gold = json.dumps({"code": code, "output": output}, ensure_ascii=False)
    return Problem(f"{code}\nassert f(??) == {output}", gold)


def extract_input(completion: str) -> str | None:
    """The arguments, as written."""
    answer = find_answer(completion)
    return None if answer is None else arguments_of(answer)


def reward_input(gold: str, completion: str) -> float:
    """1.0 where the function returns the gold's output on the completion's arguments."""
    arguments = extract_input(completion)
    if arguments is None:
        return 0.0
    problem = json.loads(gold)
    given = evaluate_arguments(arguments, context=problem["code"])  # they may use what the code defines
    if given.outcome != "value":
        return 0.0
    args, kwargs = given.value
    returned = call_function(problem["code"], "f", args, kwargs)
    return float(returned.outcome == "value" and bool(returned.value == parse_literal(problem["output"])))


OUTPUT = Benchmark(
    name="crux",
    title="CRUX",
    hub=HubSource("cruxeval-org/cruxeval", None, "test"),
    file="crux/cruxeval.jsonl",
    read=read_output_problem,
    extract=extract_output,
    reward=reward_output,
    system_prompt=None,
    prompt_template=OUTPUT_TEMPLATE,
    plain_template=OUTPUT_TEMPLATE,
    sampled=False,
    max_new_tokens=1024,
    size=800,
    longest_tokens=160,
    source=f"{SOURCE}, output prediction",
    prompt_source="CRUXEval's format with steps before the answer, in our words and with one example; greedy",
    licence="MIT (Meta)",
)
INPUT = replace(
    OUTPUT,
    name="crux-input",
    title="CRUX input",
    read=read_input_problem,
    extract=extract_input,
    reward=reward_input,
    prompt_template=INPUT_TEMPLATE,
    plain_template=INPUT_TEMPLATE,
    source=f"{SOURCE}, input prediction",
    runs_code=True,
)
