"""CRUX, input prediction: arguments for which this function returns the given value.  Any that do are right.

The arguments are the model's code and the function has to run, so both run in the sandbox, in two children: the first
turns the arguments into literals, the second calls the function on them.  What the model wrote is not there when the
result is made, and the result is compared with the gold here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lean_align.benchmarks.assertions import arguments_of, find_answer
from lean_align.benchmarks.benchmark import Problem, field
from lean_align.benchmarks.crux import BENCHMARK as OUTPUT_TASK
from lean_align.benchmarks.crux import SOURCE
from lean_align.sandbox import call_function, evaluate_arguments, parse_literal

TEMPLATE = """\
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


def read_problem(row: Mapping[str, Any]) -> Problem:
    """A row with code and output; the gold holds both."""
    code, output = field(row, "code"), field(row, "output")
    gold = json.dumps({"code": code, "output": output}, ensure_ascii=False)
    return Problem(f"{code}\nassert f(??) == {output}", gold)


def extract(completion: str) -> str | None:
    """The arguments, as written."""
    answer = find_answer(completion)
    return None if answer is None else arguments_of(answer)


def reward(gold: str, completion: str) -> float:
    """1.0 where the function returns the gold's output on the completion's arguments."""
    arguments = extract(completion)
    if arguments is None:
        return 0.0
    problem = json.loads(gold)
    given = evaluate_arguments(arguments, context=problem["code"])  # they may use what the code defines
    if given.outcome != "value":
        return 0.0
    args, kwargs = given.value
    returned = call_function(problem["code"], "f", args, kwargs)
    return float(returned.outcome == "value" and bool(returned.value == parse_literal(problem["output"])))


BENCHMARK = replace(
    OUTPUT_TASK,
    name="crux-input",
    title="CRUX input",
    read=read_problem,
    extract=extract,
    reward=reward,
    prompt_template=TEMPLATE,
    plain_template=TEMPLATE,
    source=f"{SOURCE}, input prediction",
    runs_code=True,
)
