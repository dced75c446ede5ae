"""The verifier: answers a second of verify, and of math-verify alone.

math-verify alone parses gold and completion in this process, with its own time-outs.  `right` counts verdicts that are
as expected.  Half of the generated answers are wrong; "mixed" are numbers and LaTeX as models box them, 14 kinds of 15
with an exact form; "functions" are all beyond it, so that math-verify judges each.  Caches are emptied every time.
Rows of `verify_many` are of a commit that still had it: the same answers asked over two child processes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from functools import partial

from bench.cases import DATA
from bench.measure import Row, Settings, in_turn, ratio
from lean_align.verify import math_worker, verify

Cases = list[tuple[str, str, float]]
WAYS = ("verify, one by one", "math-verify alone")


def measure(settings: Settings) -> Iterator[Row]:
    count, generator = settings.pick(12, 400, 2000), random.Random(settings.seed)
    for what, cases in (
        ("mixed", made(MIXED, count, generator)),
        ("functions", made(FUNCTIONS, count, generator)),
        ("MATH500 solutions", math500()),
    ):
        if not cases:
            yield {"what": what, "note": "skipped: no MATH500; set LEAN_ALIGN_DATA"}
            continue
        yield from rows(what, cases[: settings.pick(12, 500, 2000)], settings.times(3, 5))


def rows(what: str, cases: Cases, repeats: int) -> Iterator[Row]:
    right: dict[str, int] = {}

    def count_right(way: str, verdicts: list[float]) -> None:
        right[way] = sum(got == expected for got, (_, _, expected) in zip(verdicts, cases))

    def one_by_one() -> None:
        math_worker._ask.cache_clear()
        count_right(WAYS[0], [verify(gold, completion) for gold, completion, _ in cases])

    def alone() -> None:
        count_right(WAYS[1], [math_verify_alone(gold, completion) for gold, completion, _ in cases])

    timings = in_turn(dict(zip(WAYS, (one_by_one, alone))), repeats)
    for way, timing in timings.items():
        row: Row = {"what": f"{len(cases):,} {what}", "way": way} | timing.columns(answers=len(cases))
        yield row | {"seconds_over_ours": ratio(timing, timings[WAYS[0]]), "right": right.get(way)}


def math_verify_alone(gold: str, completion: str) -> float:
    import math_verify

    return float(math_verify.verify(math_verify.parse(f"${gold}$"), math_verify.parse(completion)))


def made(makers: list[Callable[[int, int], tuple[str, str]]], count: int, generator: random.Random) -> Cases:
    """Gold and completion; the wrong ones are the same answer made of another number."""
    cases: Cases = []
    for index in range(count):
        maker, a, b = makers[index % len(makers)], generator.randint(2, 999), generator.randint(2, 99)
        is_right = generator.random() < 0.5
        found = maker(a if is_right else a + 1, b)[1]
        cases.append((maker(a, b)[0], f"Adding up, we get $\\boxed{{{found}}}$.", float(is_right)))
    return cases


def _pair(gold: str, found: str, a: int, b: int) -> tuple[str, str]:
    numbers = {"A": str(a), "B": str(b), "M": str(-a), "T": f"{1000 * a:,}", "W": str(1000 * a), "K": str(a * b)}
    for name, number in numbers.items():
        gold, found = gold.replace(name, number), found.replace(name, number)
    return gold, found


MIXED = [
    partial(_pair, gold, found)
    for gold, found in (
        ("A", "A"),
        ("A.0", "A"),
        ("T", "W"),
        ("A", "x = A"),
        ("A\\%", "A"),
        ("\\frac{A}{1000}", "\\dfrac{A}{1000}"),
        ("A\\sqrt{2}", "A \\cdot \\sqrt2"),
        ("[B, W)", "\\left[B, W\\right)"),
        ("(A, B)", "(A,\\, B)"),
        ("B, A", "A, B"),
        ("A\\pi", "\\pi A"),
        ("Bx + A", "A + Bx"),
        ("(x+A)(x+B)", "x^2 + Ax + Bx + K"),
        ("A^\\circ", "A"),
        ("\\sin A", "\\sin(A)"),
    )
]
FUNCTIONS = [
    partial(_pair, gold, found)
    for gold, found in (
        ("\\sin x + A", "A + \\sin x"),
        ("\\frac{x+A}{x+B}", "\\frac{A+x}{B+x}"),
        ("\\log A + \\log x", "\\log x + \\log A"),
        ("y - x = A", "y = x + A"),
        ("A^{x}", "A^x"),
    )
]


def math500() -> Cases:
    path = DATA / "math500" / "test.jsonl"
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [(row["answer"], row["solution"], 1.0) for row in found]
