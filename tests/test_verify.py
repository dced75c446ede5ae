"""The verifier: hand-made cases that always run, labelled data where it is at hand, and its child process.

Data is read from the folder in LEAN_ALIGN_DATA, else from ../shared/data beside the repository.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from growth import grows_faster_than

from lean_align.errors import DataError, StageError
from lean_align.verify import MAX_ANSWER_CHARS, TAIL_CHARS, extract_answer, math_worker, parse_gold, verify
from lean_align.verify.numbers import NOT_UNITS, plain_number

DATA = Path(os.environ.get("LEAN_ALIGN_DATA", Path(__file__).parents[2] / "shared" / "data"))

# gold, completion, reward.  None of these needs math-verify.
PLAIN_CASES = [
    ("18", "... The answer is 18.", 1.0),
    ("18", "The answer is 17.", 0.0),
    ("10", "The answer is 10.", 1.0),
    ("1,000", "#### 1000", 1.0),
    ("1000", "so she pays $1,000", 1.0),
    ("$1,000", "A: 1000", 1.0),
    ("1,234,567.5", "#### 1234567.50", 1.0),
    ("18", "#### 18.00", 1.0),
    ("18", "#### 18.01", 0.0),
    ("0.1", "#### 0.10000000000000000001", 0.0),
    ("18", "#### $18", 1.0),
    ("18", "#### 18 dollars", 1.0),
    ("18", "#### 18 dollars per day", 1.0),
    ("18", "#### 18€", 1.0),
    ("20", "#### 20%", 1.0),
    ("20%", "The answer is 20 percent.", 1.0),
    ("0.2", "#### 20%", 1.0),
    ("0.2", "#### 20", 0.0),
    ("20", "#### 0.2", 0.0),
    ("5", "That makes 5 dozen.", 1.0),
    ("-3", "The answer is -3.", 1.0),
    ("-3", "The answer is \u22123.", 1.0),
    ("-5", "#### -$5", 1.0),
    ("-5", "#### $-5", 1.0),
    ("3", "The answer is -3.", 0.0),
    ("3", "so he is left with $16-$13=16-13=3", 1.0),
    ("13", "pages 12-13", 1.0),
    ("13", "from $12-$13", 1.0),
    ("1/2", "#### 0.5", 1.0),
    ("0.5", "\\boxed{\\frac{1}{2}}", 1.0),
    ("0.5", "\\boxed{\\frac12}", 1.0),
    ("-1/2", "\\boxed{-\\dfrac{1}{2}}", 1.0),
    ("1/3", "#### 0.33333", 0.0),
    ("2.5", "#### 2 1/2", 1.0),
    ("2.5", "#### 2 and a half hours", 1.0),
    ("1.8", "\\boxed{1\\frac{4}{5}}", 1.0),
    ("15", "\\boxed{15\\mbox{ cm}^2}", 1.0),
    ("90", "\\boxed{90^\\circ}", 1.0),
    ("10080", "\\boxed{10,\\!080}", 1.0),
    ("32348", "\\boxed{\\$32{,}348}", 1.0),
    ("7", "\\boxed{\\boxed{7}}", 1.0),
    ("7", "\\boxed{3} and so \\boxed{7}. There are 12 left.", 1.0),
    ("7", "\\boxed{7} or \\boxed{} or \\boxed{9", 1.0),
    ("7", "#### 7\nThe answer is 9", 1.0),
    ("9", "#### 7\n#### 9", 1.0),
    ("9", "#### Step 4: total\nThe answer is 9", 1.0),
    ("9", "The answer is 7. Wait. The answer is 9. I used 3 steps.", 1.0),
    ("9", "**Final Answer:** $9$", 1.0),
    ("9", "The final answer is: \\[ 9 \\]", 1.0),
    ("9", "The answer is that he sells 4 + 5 = 9 ducks", 1.0),
    ("9", "The answer is clear. So there are 9 ducks.", 1.0),
    ("9", "In all, 4 + 5 = <<4+5=9>>9", 1.0),
    ("9", "so $x = 9$ for every $n$.", 1.0),
    ("9", "", 0.0),
    ("", "", 0.0),
    ("####", "#### ", 0.0),
    ("She pays 2 * 9 = $18.\n#### 18", "The answer is 18", 1.0),
    ("blue", "The answer is blue.", 1.0),
]

# These do; the reason is what a wrong route would say.
FORMULA_CASES = [
    ("18", "\\boxed{3 \\cdot 6}", 1.0),
    ("18", "\\boxed{x = 18}", 1.0),
    ("3", "The answer is $2\\sqrt{3}$.", 0.0),
    ("3", "so it is $2\\sqrt{3}$.", 0.0),
    ("5", "\\boxed{5x}", 0.0),
    ("5", "\\boxed{5, 6}", 0.0),
    ("\\frac{\\sqrt{2}}{2}", "\\boxed{\\frac{1}{\\sqrt{2}}}", 1.0),
    ("2x + 3", "The answer is 3 + 2x.", 1.0),
    ("2x + 3", "The answer is 2x - 3.", 0.0),
    ("p - q", "Therefore it equals $p-q$.", 1.0),
    ("p - q", "Therefore it equals $q-p$.", 0.0),
    ("(3,4]", "\\boxed{(3,4]}", 1.0),
    ("(3,4]", "\\boxed{[3,4]}", 0.0),
    ("\\left( 3, \\frac{\\pi}{2} \\right)", "\\boxed{(3, \\pi/2)}", 1.0),
    ("\\text{Evelyn}", "\\boxed{Evelyn}", 1.0),
    ("\\text{(C)}", "\\boxed{C}", 1.0),
    ("\\text{(C)}", "\\boxed{B}", 0.0),
    ("x \\in [0, 1)", "#### [0,1)", 1.0),
    ("\\begin{pmatrix} 1 \\\\ 2 \\end{pmatrix}", "\\boxed{\\begin{pmatrix} 1 \\\\\n 2 \\end{pmatrix}}", 1.0),
    ("x + 1", "I cannot tell.", 0.0),
    ("3", "The answer is 3 or 4", 0.0),
]

EXTRACTED = [
    ("x \\boxed{a_{1} + \\{2\\}} y", "a_{1} + \\{2\\}"),
    ("\\boxed{3} then \\boxed{cut", "3"),
    ("\\fbox{4}", "4"),
    ("He has 4.\n#### 1,000 \n", "1,000"),
    ("The final answer is: $\\frac{1}{2}$, as asked in part 3", "\\frac{1}{2}"),
    ("Answer: 12 apples", "12 apples"),
    ("the answer is about $1,234.50 in 2 days", "$1,234.50"),
    ("the answer is 3 or 4", "3 or 4"),
    ("3/4 of them are red", "3/4"),
    ("costs $5 and $6", "$6"),
    ("H2O and x2", None),
    ("no number at all", None),
    ("\\[ \\]", None),
    ("", None),
]

# line of math_verify_cases_half.jsonl -> why this verifier says otherwise
DISAGREEMENTS = {
    17: "inline marks around three lines: no formula there, the number 9 here",
    31: "the gold is a worked solution of 1,809 characters, not an answer",
    32: "the gold is a worked solution, and the box in the answer holds prose",
    64: "1/12 against 0.0833333333333333: exact here, 6 digits there",
    87: "a box comes before 'answer is' here, and the box holds 255",
    94: "an interval against an inequality whose \\\\le is a line break: needs allow_set_relation_comp there",
}


def rows(name: str) -> list[dict[str, Any]]:
    path = DATA / name
    if not path.exists():
        pytest.skip(f"no data: {path} (set LEAN_ALIGN_DATA)")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def wrong(verifier: Callable[[str, str], float], cases: list[tuple[str, str, float]]) -> list[tuple[str, str, float]]:
    return [case for case in cases if verifier(case[0], case[1]) != case[2]]


def test_plain_cases_never_reach_math_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> bool:
        raise AssertionError("math-verify was asked")

    monkeypatch.setattr(math_worker, "_ask", refuse)
    assert wrong(verify, PLAIN_CASES) == []


def test_formula_cases() -> None:
    assert wrong(verify, FORMULA_CASES) == []


@pytest.mark.parametrize(("completion", "answer"), EXTRACTED)
def test_extract_answer(completion: str, answer: str | None) -> None:
    assert extract_answer(completion) == answer


@pytest.mark.parametrize(
    "text",
    ["5x", "2\\pi", "2pi", "1,2", "1,23", "1,0000", "7 and 8", "12:30", "1e9", "1/0", "", "-", "$", ".", "5 or more"]
    + [
        "3.14...",
        "10..",
        "10\\ldots",
        "\\frac{1}{2}3",
        "\\frac{1 1}{2}",
        "\\frac12 h",
        "5m",
        "4s^2",
        "4 s^2",
        "3am",
        "6abc",
    ]
    + ["5 " + word for word in sorted(NOT_UNITS)],
)
def test_not_a_plain_number(text: str) -> None:
    assert plain_number(text) is None


def test_plain_numbers_are_exact() -> None:
    assert plain_number("0.1") == Fraction(1, 10)
    assert plain_number("9" * 900) == 10**900 - 1
    assert plain_number("9" * 5000) is None  # beyond int()'s own limit, refused rather than raised


def test_units_of_a_plain_number() -> None:
    units = "m cm kg s hours dozen hundred thousand million percent cm^2 m/s square-feet dollars".split()
    assert [unit for unit in units if plain_number(f"5 {unit}") != 5] == []
    assert plain_number("5 cm squared") == plain_number("5cm") == plain_number("5\\text{m}") == 5


def cents(text: str) -> int:
    return round(100 * (plain_number(text) or Fraction(0)))


PLANTED_FAULTS: dict[str, Callable[[str, str], float]] = {
    "says yes": lambda gold, completion: 1.0,
    "says no": lambda gold, completion: 0.0,
    "compares text": lambda gold, completion: float(extract_answer(completion) == gold),
    "gold occurs": lambda gold, completion: float(gold in completion),
    "ignores commas": lambda gold, completion: verify(gold.replace(",", " "), completion.replace(",", " ")),
    "drops minus": lambda gold, completion: verify(gold.replace("-", ""), completion.replace("-", "")),
    "reads the last number": lambda gold, completion: verify(gold, re.sub(r"boxed|fbox|####|answer|=", "", completion)),
    "reads the first line": lambda gold, completion: verify(gold, completion.split("\n")[0]),
    "rounds to cents": lambda gold, completion: float(cents(gold) == cents(extract_answer(completion) or "")),
}


@pytest.mark.parametrize("fault", PLANTED_FAULTS)
def test_cases_catch_a_planted_fault(fault: str) -> None:
    assert wrong(PLANTED_FAULTS[fault], PLAIN_CASES)


def test_formula_cases_catch_swapped_arguments(monkeypatch: pytest.MonkeyPatch) -> None:
    right = math_worker._ask
    monkeypatch.setattr(math_worker, "_ask", lambda gold, prediction: right(prediction, gold))
    assert verify("x \\in [0, 1)", "#### [0,1)") == 1.0
    assert verify("1 < x < 2", "\\boxed{(1, 2)}") == 0.0  # 1.0 the right way round
    monkeypatch.undo()
    assert verify("1 < x < 2", "\\boxed{(1, 2)}") == 1.0


def test_only_the_tail_is_read() -> None:
    assert verify("7", "#### 7\n" + "x" * (TAIL_CHARS - 7)) == 1.0
    assert verify("7", "#### 7\n" + "x" * TAIL_CHARS) == 0.0


def test_an_over_long_answer_equals_only_itself() -> None:
    long = "x+" * MAX_ANSWER_CHARS + "x"
    assert verify(long, f"\\boxed{{{long}}}") == 1.0
    assert verify(long, f"\\boxed{{{long}+0}}") == 0.0


@pytest.mark.parametrize(
    "completion",
    [
        "\\(" * 10_000,
        "$\\a" * 7_000,
        "\\boxed{" * 3_000,
        "{" * 20_000,
        "1," * 10_000,
        "1 1/" * 5_000,
        "answer is " * 2_000,
    ],
    ids=["open mark", "dollar", "box", "brace", "comma", "fraction", "answer is"],
)
def test_a_looping_completion_is_read_in_linear_time(completion: str) -> None:
    assert not grows_faster_than(extract_answer, completion)


def test_the_check_of_linear_time_sees_a_quadratic_pattern() -> None:
    assert grows_faster_than(lambda text: re.search("a*b", text), "a" * 30_000)


@pytest.mark.parametrize(
    ("answer", "gold"), [("a = 1\n#### 1,080 ", "1,080"), (" \\frac{1}{2}", "\\frac{1}{2}"), ("\\text{east}",) * 2]
)
def test_parse_gold(answer: str, gold: str) -> None:
    assert parse_gold(answer) == gold


@pytest.mark.parametrize("answer", ["", "  ", "5 + 6 = 11\n####", "???", "x" * (MAX_ANSWER_CHARS + 1)])
def test_parse_gold_refuses(answer: str) -> None:
    with pytest.raises(DataError, match=r"got .*; expected .*: correct the row or drop it"):
        parse_gold(answer)


# --- labelled data


def test_agrees_with_every_label_of_gsm8k_model_solutions() -> None:
    models = ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification")
    checked = 0
    for row in rows("verify_cases/gsm8k_example_model_solutions_300.jsonl"):
        gold = row["ground_truth"].rpartition("A:")[2]
        for model in models:
            assert verify(gold, row[model]["solution"]) == float(row[model]["is_correct"]), row[model]["solution"]
            checked += 1
    assert checked == 1200


def test_math_verify_cases_agree_but_for_the_table() -> None:
    cases = rows("verify_cases/math_verify_cases_half.jsonl")
    assert len(cases) == 134
    verdicts = [verify(case["gold"], case["pred"]) for case in cases]
    differing = {line for line, (case, got) in enumerate(zip(cases, verdicts), 1) if got != float(case["expected"])}
    assert differing == set(DISAGREEMENTS)


def test_every_gsm8k_gold_is_plain_and_verifies_its_own_solution() -> None:
    answers = [row["answer"] for part in ("train", "test") for row in rows(f"gsm8k/{part}.jsonl")]
    assert len(answers) == 8792
    for index, answer in enumerate(answers):
        value = plain_number(parse_gold(answer))
        assert value is not None
        if index % 20 == 0:
            assert verify(answer, answer) == verify(str(value), answer) == 1.0
            assert verify(str(value + 1), answer) == 0.0


# --- the child process


@pytest.fixture
def own_worker(monkeypatch: pytest.MonkeyPatch) -> Iterator[math_worker.MathWorker]:
    worker = math_worker.MathWorker()
    monkeypatch.setattr(math_worker, "_worker", worker)
    math_worker._ask.cache_clear()
    yield worker
    worker.stop()
    math_worker._ask.cache_clear()


def test_import_stays_light() -> None:
    code = "import sys, lean_align.verify; print([m for m in ('torch', 'sympy', 'math_verify') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_works_in_a_script_without_a_main_guard(tmp_path: Path) -> None:
    script = tmp_path / "reward.py"
    script.write_text("from lean_align.verify import verify\nprint(verify(r'\\sin x+1', r'\\boxed{1+\\sin x}'))\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True, timeout=120)
    assert (done.stdout.strip(), done.stderr) == ("1.0", "")


def test_same_verdicts_off_the_main_thread() -> None:
    results: list[list[tuple[str, str, float]]] = []
    threads = [threading.Thread(target=lambda: results.append(wrong(verify, FORMULA_CASES))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [[], [], []]


@pytest.mark.parametrize(
    "completion", ["\\boxed{9**9**9**9}", "\\boxed{9^{9^{9^{9}}}+1}", "\\boxed{" + "{" * 200 + "1" + "}" * 200 + "}"]
)
def test_a_monstrous_answer_is_wrong_in_bounded_time(completion: str) -> None:
    """Without the bound it would not end."""
    assert verify("5", completion) == 0.0


def test_a_hanging_child_is_killed_and_replaced(
    own_worker: math_worker.MathWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert verify("\\sin x+1", "\\boxed{1+\\sin x}") == 1.0
    hanging = own_worker._process
    assert hanging is not None
    os.kill(hanging.pid, signal.SIGSTOP)
    monkeypatch.setattr(math_worker, "CALL_SECONDS", 0.3)
    assert verify("\\sin x+2", "\\boxed{2+\\sin x}") == 0.0
    assert hanging.returncode == -signal.SIGKILL
    monkeypatch.undo()
    assert own_worker.ask("$\\sin x+3$", "$3+\\sin x$")


def test_a_child_that_died_meanwhile_is_replaced(own_worker: math_worker.MathWorker) -> None:
    assert verify("\\sin x+1", "\\boxed{1+\\sin x}") == 1.0
    assert own_worker._process is not None
    own_worker._process.kill()
    assert verify("\\sin x+2", "\\boxed{2+\\sin x}") == 1.0


def test_a_question_that_kills_its_child_twice_is_wrong(
    own_worker: math_worker.MathWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = "import os; os.write(1, b'r'); os.read(0, 1)"
    monkeypatch.setattr(math_worker, "_CHILD_CODE", dies)
    assert verify("\\sin x+1", "\\boxed{1+\\sin x}") == 0.0
    assert own_worker._process is None


def test_a_broken_installation_is_not_a_wrong_answer(
    own_worker: math_worker.MathWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(math_worker, "_CHILD_CODE", "import a_module_that_is_missing")
    with pytest.raises(StageError, match="pip install"):
        verify("\\sin x+1", "\\boxed{1+\\sin x}")
    assert verify("18", "#### 18") == 1.0


def test_the_callers_alarm_survives() -> None:
    signal.setitimer(signal.ITIMER_REAL, 100.0)
    try:
        assert verify("\\sin x+4", "\\boxed{4+\\sin x}") == 1.0
        assert 0.0 < signal.getitimer(signal.ITIMER_REAL)[0] <= 100.0
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)


def test_a_fork_gets_a_child_of_its_own() -> None:
    assert verify("\\sin x+5", "\\boxed{5+\\sin x}") == 1.0
    context = multiprocessing.get_context("fork")
    forked = context.Process(target=lambda: sys.exit(int(verify("\\sin x+6", "\\boxed{6+\\sin x}"))))
    forked.start()
    forked.join(60)
    assert forked.exitcode == 1
    assert verify("\\sin x+7", "\\boxed{7+\\sin x}") == 1.0
