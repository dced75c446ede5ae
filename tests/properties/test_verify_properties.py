"""For any text the verifier never raises, is exact on numbers, and its fast path agrees with math-verify."""

from __future__ import annotations

import math
from fractions import Fraction

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lean_align.verify import extract_answer, verify
from lean_align.verify.exact import exact
from lean_align.verify.latex import tokens
from lean_align.verify.math_worker import math_equal
from lean_align.verify.numbers import plain_number
from lean_align.verify.spelling import plain_signs
from lean_align.verify.structure import same_value
from lean_align.verify.sums import Sum

RELAXED = settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
FEW = settings(RELAXED, max_examples=40)  # each may cost a question to math-verify

# Pieces that the rules look for, in any order: far nearer to trouble than random characters.
PIECES = st.sampled_from(
    ["\\boxed{", "}", "{", "####", "answer is", "answer:", "\n", " ", ".", ",", "$", "\\(", "\\)", "\\[", "\\]", "=",
     "-", "/", "1", "23", "000", "%", "\\frac{1}{2}", "\\frac", "\\sqrt", "^", "_", "x", "and", "dollars", "\\text{",
     "\ud800", "\x00", "\u0661", "²", "\u2212", "₹", "9**9**9", "A:", "B:", "\\boxed 3", "\\pm", "_", "\\{", "\\}",
     "[", ")", "(", "\\cup", "\\in", "<", "\\le", "\\overline{3}", "\\pi", "i", "\\\\", "&", "\\begin{pmatrix}",
     "\\end{pmatrix}", "\\infty", "*", "+", "1/", "^{", "!", "\\text{(C)}", "ab"]
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
    assert found is None or (found and set(found) <= set(plain_signs(completion)) | set(", ="))


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


NUMBERS = (
    INTEGERS.map(str)
    | INTEGERS.map("{:,d}".format)
    | st.decimals(-(10**9), 10**9, allow_nan=False, places=3).map("{:f}".format)
    | st.tuples(st.integers(-999, 999), st.integers(1, 999)).map("{0[0]}/{0[1]}".format)
    | st.tuples(st.integers(-999, 999), st.integers(1, 999)).map("\\frac{{{0[0]}}}{{{0[1]}}}".format)
)


@RELAXED
@given(NUMBERS)
def test_a_plain_number_in_a_box_equals_itself(number: str) -> None:
    assert plain_number(number) is not None
    assert verify(number, f"\\boxed{{{number}}}") == 1.0


@FEW
@given(
    NUMBERS, st.sampled_from(["...", "\\ldots", " squared", "\\text{ or more}", " over", "+", "-", "h", "s^2", "xy"])
)
def test_a_number_with_something_behind_it_is_not_that_number(number: str, behind: str) -> None:
    assume(plain_number(number) != 0)  # 0h is 0
    assert verify(number, f"\\boxed{{{number}{behind}}}") == 0.0


@RELAXED
@given(st.sampled_from("ABCDE"), st.sampled_from("ABCDE"), st.sampled_from([" or ", ",", " and ", "", " 3, ", "/"]))
def test_two_options_are_neither(gold: str, other: str, between: str) -> None:
    for found in (f"({gold}){between}({other})", f"\\textbf{{({gold})}}\\text{{{between}}}({other})"):
        assert verify(f"\\text{{({gold})}}", f"\\boxed{{{found}}}") == float(gold == other)


@RELAXED
@given(NUMBERS, NUMBERS)
def test_plain_numbers_are_symmetric(a: str, b: str) -> None:
    assert verify(a, f"\\boxed{{{b}}}") == verify(b, f"\\boxed{{{a}}}") == float(plain_number(a) == plain_number(b))


@RELAXED
@given(TEXTS, TEXTS)
def test_what_is_decided_without_math_verify_is_total_and_knows_itself(a: str, b: str) -> None:
    assert same_value(a, b) in (True, False, None)
    assert same_value(a, a) in (True, None)


# A formula and its value in floats, worked out beside it: the exact form is checked without any of its own code.
Valued = tuple[str, complex]
LEAVES = st.one_of(
    st.integers(0, 30).map(lambda n: (str(n), complex(n))),
    st.integers(0, 60).map(lambda n: (f"\\sqrt{{{n}}}", complex(math.sqrt(n)))),
    st.tuples(st.integers(0, 9), st.integers(1, 9)).map(lambda f: (f"\\frac{f[0]}{f[1]}", complex(f[0] / f[1]))),
    st.sampled_from([("\\pi", complex(math.pi)), ("i", 1j), ("x", 0.7391 + 0j), ("0.25", 0.25 + 0j)]),
)


def combined(parts: st.SearchStrategy[Valued]) -> st.SearchStrategy[Valued]:
    pairs = st.tuples(parts, parts)
    return st.one_of(
        pairs.map(lambda p: (f"({p[0][0]}+{p[1][0]})", p[0][1] + p[1][1])),
        pairs.map(lambda p: (f"({p[0][0]} - {p[1][0]})", p[0][1] - p[1][1])),
        pairs.map(lambda p: (f"{p[0][0]} \\cdot {p[1][0]}", p[0][1] * p[1][1])),
        parts.map(lambda p: (f"\\left({p[0]}\\right)^{{2}}", p[1] ** 2)),
        parts.map(lambda p: (f"\\frac{{{p[0]}}}{{2\\pi}}", p[1] / (2 * math.pi))),
        parts.map(lambda p: (f"\\dfrac{{{p[0]}}}{{3 \\sqrt{{2}}}}", p[1] / (3 * math.sqrt(2)))),
    )


FORMULAS = st.recursive(LEAVES, combined, max_leaves=6)


def in_floats(value: Sum) -> complex:
    known = {"\\pi": math.pi, "x": 0.7391, "i": 1j}
    return sum(
        (complex(q) * math.sqrt(r) * math.prod(known[name] ** n for name, n in letters)
         for (r, letters), q in value.items()), 0j,
    )  # fmt: skip


@RELAXED
@given(FORMULAS)
def test_an_exact_form_has_the_value_of_its_formula(formula: Valued) -> None:
    text, value = formula
    assert abs(in_floats(exact(tokens(text) or ())) - value) <= 1e-9 * (1 + abs(value))


@RELAXED
@given(FORMULAS, FORMULAS)
def test_exact_verdicts_are_those_of_floats(a: Valued, b: Valued) -> None:
    assert same_value(a[0], b[0]) in (None, abs(a[1] - b[1]) <= 1e-9 * (1 + abs(a[1])))
    assert same_value(f"({a[0]}, {b[0]})", f"({b[0]}, {a[0]})") == same_value(a[0], b[0])


@FEW
@given(FORMULAS, FORMULAS)
def test_math_verify_agrees_with_exact_verdicts(a: Valued, b: Valued) -> None:
    verdict = same_value(a[0], b[0])
    if verdict is not None and "x" not in a[0] + b[0]:
        assert math_equal(a[0], b[0]) == verdict
