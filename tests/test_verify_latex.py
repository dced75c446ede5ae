"""LaTeX answers: a table of cases with their reasons, exact forms, many at once, hostile text, MATH500.

`golden/verify_cases.jsonl` has a row a case: topic, gold, completion, expected and the reason; `departs` says why
math-verify alone would say otherwise.  MATH500 is read where it is at hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lean_align.verify import _decide, extract_answer, math_worker, parse_gold, verify
from lean_align.verify.exact import exact
from lean_align.verify.latex import tokens
from lean_align.verify.math_worker import Question, math_equal
from lean_align.verify.structure import same_value
from lean_align.verify.sums import NotExactError

GOLDEN = Path(__file__).parent / "golden" / "verify_cases.jsonl"
CASES: list[dict[str, Any]] = [json.loads(line) for line in GOLDEN.read_text(encoding="utf-8").splitlines()]
SLOW = [(f"\\sin x + {i}", f"\\boxed{{{i} + \\sin {'x' if i % 3 else 'y'}}}") for i in range(40)]


# --- the table


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['topic']}: {case['reason']}"[:70])
def test_case(case: dict[str, Any]) -> None:
    assert verify(case["gold"], case["completion"]) == case["expected"], case["reason"]


def test_every_topic_has_equal_and_unequal_cases() -> None:
    topics = {case["topic"] for case in CASES}
    assert len(CASES) >= 120
    assert {(case["topic"], case["expected"]) for case in CASES} == {(t, e) for t in topics for e in (0, 1)}
    assert len({(case["gold"], case["completion"]) for case in CASES}) == len(CASES)


def test_what_is_decided_here_departs_from_math_verify_only_as_stated() -> None:
    departing = []
    for case in CASES:
        found = extract_answer(case["completion"])
        decided = _decide(case["gold"], case["completion"])
        alone = found is not None and math_equal(case["gold"], found)
        if not isinstance(decided, Question) and decided != alone:
            departing.append(case)
    assert departing == [case for case in CASES if "departs" in case]


FAULTS: dict[str, Callable[[str, str], float]] = {
    "math-verify alone": lambda gold, found: float(math_equal(gold, found)),
    "normalised text alone": lambda gold, found: float(tokens(gold) == tokens(found)),
    "no case": lambda gold, found: verify(gold.lower(), f"\\boxed{{{found.lower()}}}"),
    "all brackets round": lambda gold, found: verify(*(re.sub(r"\[", "(", t) for t in (gold, f"\\boxed{{{found}}}"))),
    "lists in order": lambda gold, found: float("," not in gold) * verify(gold, f"\\boxed{{{found}}}"),
    "no signs": lambda gold, found: verify(gold.replace("-", "+"), f"\\boxed{{{found}}}".replace("-", "+")),
    "no ellipsis": lambda gold, found: verify(gold, f"\\boxed{{{re.sub(r'[.]{2,}', '', found)}}}"),
    "sets are tuples": lambda gold, found: verify(*(re.sub(r"\\[{}]", "", t) for t in (gold, f"\\boxed{{({found})}}"))),
    "no words": lambda gold, found: verify(gold, f"\\boxed{{{re.sub(r'(?<=[0-9]) *([a-z]+|.text{.*})', '', found)}}}"),
    "the first option": lambda gold, found: verify(gold, f"\\boxed{{{found[:3]}}}"),
    "no subscripts": lambda gold, found: verify(*(re.sub(r"_\w", "", t) for t in (gold, f"\\boxed{{{found}}}"))),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_table_catches_a_planted_fault(fault: str) -> None:
    given = [(case, extract_answer(case["completion"])) for case in CASES]
    assert any(FAULTS[fault](case["gold"], found) != case["expected"] for case, found in given if found)


# --- exact forms


@pytest.mark.parametrize(
    "formula",
    ["1/2x", "1/ab", "2 3", "2\\frac{1}{2}", "x^{23}", "f(x)", "\\sin x", "sin", "\\frac{1}{0}", "\\frac{1}{1+x}",
     "0^0", "\\sqrt{x}", "\\sqrt{99999989}+\\sqrt{1000000007}", "9^9^9", "5!", "x'", "|x|", "(1", "1)", "", "+",
     "(x+y)^{20}(x+z)^{20}", "9" * 41, "(" * 21 + "x" + ")" * 21, "\u0661", "\\overline{3}", "0.\\overline{x}"],
)  # fmt: skip
def test_no_exact_form(formula: str) -> None:
    with pytest.raises(NotExactError):
        exact(tokens(formula) or ())


def test_exact_forms_by_hand() -> None:
    r"""(1 + \sqrt 2)^2 = 3 + 2 \sqrt 2;  1 / (2 \sqrt 3) = \sqrt 3 / 6;  (1 + i)^2 = 2 i;  \sqrt{-12} = 2 \sqrt 3 i."""
    for formula, same in [
        ("(1+\\sqrt{2})^2", {(1, ()): 3, (2, ()): 2}),
        ("\\frac{1}{2\\sqrt{3}}", {(3, ()): 1 / exact(("6",))[1, ()]}),
        ("(1+i)^2", {(1, (("i", 1),)): 2}),
        ("\\sqrt{-12}", {(3, (("i", 1),)): 2}),
        ("x^2/x - x", {}),
    ]:
        assert exact(tokens(formula) or ()) == same


def test_a_text_too_long_has_no_tokens() -> None:
    assert tokens("x" * 1000) is not None
    assert tokens("x" * 1001) is None


# --- math-verify's child


def test_equal_questions_are_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    math_worker._ask.cache_clear()
    monkeypatch.setattr(math_worker._worker, "ask", lambda gold, prediction: bool(asked.append(gold)))
    assert [verify(*SLOW[1]) for _ in range(30)] == [0.0] * 30
    assert verify("5", "#### 5") == 1.0
    assert len(asked) == 1
    math_worker._ask.cache_clear()


def test_verdicts_do_not_depend_on_the_order_of_the_questions() -> None:
    for order in (SLOW, SLOW[::-1]):
        math_worker._ask.cache_clear()
        assert sum(verify(*pair) for pair in order) == sum(1 for i in range(40) if i % 3)


# --- hostile text

HOSTILE = {
    "100,000 braces": "{" * 100_000 + "1" + "}" * 100_000,
    "10,000 fractions inside each other": "\\frac{1}{" * 10_000 + "2" + "}" * 10_000,
    "90 fractions inside each other": "\\frac{1}{" * 90 + "2" + "}" * 90,
    "a tower": "9^9^9^9",
    "a tower in braces": "9^{9^{9^{9}}}",
    "a factorial of a billion": "1000000000!",
    "powers of powers": "(" * 90 + "x+1" + ")^{20}" * 90,
    "a sum of powers": "(x+y)^{20}+" * 80 + "1",
    "large radicands": "+".join(f"\\sqrt{{{99_999_989 - i}}}" for i in range(60)),
    "roots inside each other": "\\sqrt{" * 150 + "2" + "}" * 150,
    "a long list": "1," * 450 + "1",
    "digits": "9" * 20_000,
    "a union in parentheses": "(1 \\cup 2)",
    "sets inside each other": "\\{" * 240 + "1" + "\\}" * 240,
}


@pytest.mark.parametrize("name", [name for name in HOSTILE if "powers" not in name and name != "a tower in braces"])
def test_hostile_text_is_wrong_within_the_stated_time(name: str) -> None:
    assert verify("\\sqrt{2}", f"\\boxed{{{HOSTILE[name]}}}") == 0.0


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_hostile_text_has_no_exact_form_or_one_at_once(text: str) -> None:
    """Without a child's time-out: what is decided here has to end by itself."""
    assert same_value("\\sqrt{2}", text) in (False, None)


# --- MATH500

UNIT = re.compile(r"\\(?:text|mbox)\{[^{}]*\}(?:\^\{?[0-9]\}?)?")
LONE_LETTER = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")


def perturbed(answer: str) -> str:
    r"""A wrong answer: the last number outside a unit plus one, in as many digits; else the last letter that stands
    alone replaced by the next; else "not " before the word; else twice the constant.

    `4\sqrt{7}` -> `4\sqrt{8}`, `35\mbox{ cm}^2` -> `36\mbox{ cm}^2`, `025` -> `026`, (C) -> (D), `\pi` -> `2\pi`.
    """
    numbers = list(re.finditer("[0-9]+", UNIT.sub(lambda unit: " " * len(unit[0]), answer)))
    if numbers:
        last = numbers[-1]
        return answer[: last.start()] + str(int(last[0]) + 1).zfill(len(last[0])) + answer[last.end() :]
    letters = list(LONE_LETTER.finditer(answer))
    if letters:
        at = letters[-1].start()
        return answer[:at] + chr(ord(answer[at]) + 1) + answer[at + 1 :]
    return answer.replace("\\text{", "\\text{not ") if "\\text{" in answer else f"2{answer}"


def with_another_box(solution: str, answer: str, other: str) -> str:
    before, box, after = solution.rpartition("\\boxed")
    assert answer in after
    return before + box + after.replace(answer, other, 1)


MADE_UP = [
    ("4\\sqrt{7}", "4\\sqrt{8}"),
    ("35\\mbox{ cm}^2", "36\\mbox{ cm}^2"),
    ("025", "026"),
    ("\\text{(C)}", "\\text{(D)}"),
    ("\\pi", "2\\pi"),
    ("\\text{north}", "\\text{not north}"),
    ("u - v", "u - w"),
    ("31_9", "31_10"),
    ("10,999", "10,1000"),
    ("\\frac{9}{99}", "\\frac{9}{100}"),
    ("2 \\pm \\sqrt{23}", "2 \\pm \\sqrt{24}"),
]


@pytest.mark.parametrize(("answer", "other"), MADE_UP)
def test_a_perturbed_answer_is_wrong(answer: str, other: str) -> None:
    assert perturbed(answer) == other
    solution = f"So we get $\\boxed{{{answer}}}$, as asked."
    assert verify(answer, solution) == 1.0
    assert verify(answer, with_another_box(solution, answer, other)) == 0.0


@pytest.fixture(scope="module")
def math500(shared_data: Path) -> list[dict[str, str]]:
    path = shared_data / "math500" / "test.jsonl"
    if not path.exists():
        pytest.skip("no MATH500 among the public data sets")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_solution_of_math500_is_right(math500: list[dict[str, str]]) -> None:
    verdicts = [verify(parse_gold(row["answer"]), row["solution"]) for row in math500]
    assert (sum(verdicts), len(verdicts)) == (500.0, 500)


def test_every_perturbed_solution_of_math500_is_wrong(math500: list[dict[str, str]]) -> None:
    pairs = []
    for row in math500:
        other = perturbed(row["answer"])
        pairs.append((row["answer"], with_another_box(row["solution"], row["answer"], other)))
        assert str(extract_answer(pairs[-1][1])).endswith(other)  # "... or \\boxed{...}" is both
    verdicts = [verify(*pair) for pair in pairs]
    assert [pair[0] for pair, verdict in zip(pairs, verdicts) if verdict] == []
    assert len(verdicts) == 500


@pytest.mark.parametrize("name", ["aime24/test.jsonl", "amc23/aimo-validation-amc.jsonl"])
def test_golds_of_competitions_are_plain_and_equal_their_integer(shared_data: Path, name: str) -> None:
    path = shared_data / name
    if not path.exists():
        pytest.skip(f"no {name} among the public data sets")
    for line in path.read_text(encoding="utf-8").splitlines():
        gold = str(json.loads(line)["answer"])
        value = int(float(gold))
        assert verify(gold, f"\\boxed{{{value}}}") == verify(gold, f"\\boxed{{{value:03d}}}") == 1.0
        assert verify(gold, f"\\boxed{{{value + 1}}}") == 0.0
