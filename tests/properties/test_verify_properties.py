"""For any text the verifier never raises, is exact on numbers, and its fast path agrees with math-verify."""

from __future__ import annotations

from fractions import Fraction

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lean_align.verify import extract_answer, verify
from lean_align.verify.math_worker import math_equal
from lean_align.verify.numbers import plain_number

RELAXED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(RELAXED, max_examples=40)  # each may cost a question to math-verify

# Pieces that the rules look for, in any order: far nearer to trouble than random characters.
PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "####", "answer is", "answer:", "\n", " ", ".", ",", "$", "\\(", "\\)", "\\[", "\\]", "=",
     "-", "/", "1", "23", "000", "%", "\\frac{1}{2}", "\\frac", "\\sqrt", "^", "_", "x", "and", "dollars", "\\text{",
     "\ud800", "\x00", "\u0661", "²", "\u2212", "₹", "9**9**9"]
)  # fmt: skip
TEXTS = st.text(max_size=60) | st.lists(PIECES, max_size=25).map("".join)
INTEGERS = st.integers(-(10**12), 10**12)
FORMATS = st.sampled_from(
    [
        "{:d}",
        "{:,d}",
        "{:d}.00",
        "{:d}.",
        "${:,d}",
        "{:,d} dollars",
        "{:d}%",
        " {:,d} km",
        "**{:d}**",
        "${:d}$",
        "\\({:d}\\)",
    ]
)
FRAMES = st.sampled_from(
    [
        "\\boxed{{{}}}",
        "so\n#### {}",
        "The answer is {}",
        "**Final answer:** {}\n",
        "1 + 2 = 3. In all, {}",
        "\\fbox{{{}}} of 3",
    ]
)


@RELAXED
@given(TEXTS)
def test_extraction_is_total(completion: str) -> None:
    found = extract_answer(completion)
    assert found is None or (found and found.replace("\u2212", "-") in completion.replace("\u2212", "-"))


@FEW
@given(TEXTS, TEXTS)
def test_verify_is_total(answer: str, completion: str) -> None:
    reward = verify(answer, completion)
    assert type(reward) is float
    assert reward in (0.0, 1.0)


@RELAXED
@given(INTEGERS, INTEGERS, FORMATS, FORMATS, FRAMES)
def test_an_integer_equals_itself_in_any_dress_and_no_other(
    gold: int, other: int, gold_format: str, format: str, frame: str
) -> None:
    answer = gold_format.format(gold)
    assert verify(answer, frame.format(format.format(gold))) == 1.0
    assert verify(answer, frame.format(format.format(other))) == float(other == gold)
    assert verify(answer, frame.format(format.format(gold + 1))) == 0.0


@RELAXED
@given(st.integers(-(10**6), 10**6), st.integers(1, 10**6), st.integers(1, 99))
def test_fractions_are_exact(top: int, bottom: int, factor: int) -> None:
    gold = f"{top}/{bottom}"
    assert plain_number(gold) == Fraction(top, bottom)
    assert verify(gold, f"\\boxed{{\\frac{{{factor * top}}}{{{factor * bottom}}}}}") == 1.0
    assert verify(gold, f"#### {factor * top + 1}/{factor * bottom}") == 0.0


@RELAXED
@given(st.decimals(-(10**9), 10**9, allow_nan=False, places=4))
def test_decimals_are_exact(value: object) -> None:
    assert plain_number(f"{value:f}") == Fraction(str(value))


@RELAXED
@given(TEXTS, INTEGERS)
def test_what_comes_before_the_last_box_does_not_matter(before: str, gold: int) -> None:
    assert verify(str(gold), f"{before} \\boxed{{{gold}}}") == 1.0


@FEW
@given(st.integers(-999, 999), st.integers(1, 99), st.integers(-999, 999), st.integers(1, 99), st.booleans())
def test_the_fast_path_says_what_math_verify_says(top: int, bottom: int, a: int, b: int, same: bool) -> None:
    gold, found = f"\\frac{{{top}}}{{{bottom}}}", f"{3 * top}/{3 * bottom}" if same else f"{a}/{b}"
    assert verify(gold, f"\\boxed{{{found}}}") == float(math_equal(gold, found))
