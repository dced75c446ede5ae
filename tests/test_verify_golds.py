"""Golds as data sets spell them: what is mended, what nothing could meet, and what is left as it is."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lean_align.errors import DataError
from lean_align.verify import GoldAnswer, mend_gold, parse_gold, unanswerable, verify

MENDED = [
    ("\frac{3}{8}", "\\frac{3}{8}"),
    ("2\frac{1}{4}", "2\\frac{1}{4}"),
    ("rac{1}{2}", "\\frac{1}{2}"),
    ("2rac{1}{2}", "2\\frac{1}{2}"),
    ("frac{1}{2}", "\\frac{1}{2}"),
    ("3sqrt{5}", "3\\sqrt{5}"),
    ("\boxed{9}", "9"),
    ("oxed{9}", "9"),
    ("$\\boxed{\\frac{1}{2}}$", "\\frac{1}{2}"),
    ("5\text{ cm}", "5\\text{ cm}"),
    ("5ext{ cm}", "5\\text{ cm}"),
    ("3 \times 4", "3 \\times 4"),
    ("3 imes 4", "3 \\times 4"),
    ("\\left(1,2\right)", "\\left(1,2\\right)"),
    ("\\left(1,2ight)", "\\left(1,2\\right)"),
    ("x \neq 3", "x \\neq 3"),
    ("x\ne 3", "x\\ne 3"),
    ("\theta", "\\theta"),
    ("\begin{pmatrix}1\\\\2\\end{pmatrix}", "\\begin{pmatrix}1\\\\2\\end{pmatrix}"),
    ("\alpha + 1", "\\alpha + 1"),
    ("\vec{v}", "\\vec{v}"),
    ("\\\\frac{1}{2}", "\\frac{1}{2}"),
    ('["3, 5"]', "3, 5"),
    ('["1,234"]', "1,234"),
    ("['x + 1']", "x + 1"),
    ("[34]", "34"),
    ("[[-0.50]]", "-0.50"),
    ('["\frac{1}{2}"]', "\\frac{1}{2}"),
    ('["\\frac{1}{2}"]', "\\frac{1}{2}"),
    ('"12"', "12"),
    (" 7\n", "7"),
    ("≈ 3.14", "3.14"),
    ("$\\boxed{\\approx 3.14}$", "3.14"),
]
LEFT_ALONE = [
    "1,234", "\\frac{1}{2}", "[0, 1)", "[1, 2]", '["a", "b"]', "\\{1\\}", "x\ty", "x\tan apple", "5\nmore", "contexts",
    "west", "the right angle", "9 (plums)", "\\begin{pmatrix}1\\\\\\frac{1}{2}\\end{pmatrix}", "tan x", "1e-05",
    "[True]", "[]", "\\text{next}", "\\text{Rosalind}", "it's", "(C)", "f'",
]  # fmt: skip
NOTHING_MEETS = {
    "proof": "missing", "unknown": "missing", "\\text{Unknown}": "missing",
    "\\text{Proof}": "missing", "notfound": "missing", "Not found.": "missing", "N/A": "missing",
    "nan": "missing", "None": "missing", "": "empty", "  ": "empty", "$$": "empty", "\\boxed{}": "empty", "?": "empty",
    "...": "empty", "\\text{ }": "empty", "![](https://a.b/c.png)": "picture", "\\frac{1}{2": "braces",
    "1}": "braces", "5\ufffd": "lost", "\ud800": "lost", "3\x00": "lost",
}  # fmt: skip
SOMETHING_MEETS = [
    "none", "0", "no", "-1", "*", "\\emptyset", "\\{\\}", "undefined", "[0, 1)", "(C)", "no solution", "e", "i", "NaCl",
    "proofs", "[]", "\\text{None of these}",
]  # fmt: skip


@pytest.mark.parametrize(("written", "meant"), MENDED, ids=repr)
def test_mended(written: str, meant: str) -> None:
    assert mend_gold(written) == meant
    assert unanswerable(meant) is None
    assert parse_gold(f"two steps\n#### {written}") == meant
    assert verify(written, f"\\boxed{{{meant}}}") == verify(written, f"\\boxed{{{written}}}") == 1.0


@pytest.mark.parametrize("written", LEFT_ALONE, ids=repr)
def test_left_alone(written: str) -> None:
    assert mend_gold(written) == written


@pytest.mark.parametrize("gold", NOTHING_MEETS, ids=repr)
def test_nothing_meets(gold: str) -> None:
    assert NOTHING_MEETS[gold] in str(unanswerable(mend_gold(gold)))
    with pytest.raises(DataError, match=r"which no completion could meet|the empty gold"):
        parse_gold(gold)


@pytest.mark.parametrize("gold", SOMETHING_MEETS)
def test_something_meets(gold: str) -> None:
    assert unanswerable(gold) is None


@pytest.mark.parametrize(
    ("gold", "text"),
    [(5, "5"), (-3, "-3"), (142.0, "142"), (0.1, "0.1"), (1e-7, "0.0000001"), (1e21, "1" + "0" * 21),
     (Decimal("0.50"), "0.50"), (Decimal("1E+3"), "1000"), (Fraction(1, 2), "1/2"), (True, "True")],
    ids=repr,
)  # fmt: skip
def test_a_number_is_written_out(gold: GoldAnswer, text: str) -> None:
    assert parse_gold(gold) == text
    assert verify(gold, f"\\boxed{{{text}}}") == 1.0
    assert (verify(gold, text), verify(gold, "7")) == (1.0, 0.0)


@pytest.mark.parametrize("gold", [None, [5], {"answer": 5}, b"5", 10**5000], ids=lambda gold: type(gold).__name__)
def test_another_type_is_refused(gold: Any) -> None:
    with pytest.raises(DataError, match="expected text or a number"):
        parse_gold(gold)
    with pytest.raises(DataError, match="expected text or a number"):
        verify(gold, "5")


@pytest.mark.parametrize("completion", [None, 5, ["5"], b"5"], ids=repr)
def test_a_completion_is_text(completion: Any) -> None:
    with pytest.raises(DataError, match=r"got a completion of type .* expected text"):
        verify("5", completion)


@pytest.mark.parametrize("gold", ["½", "2½", "√2", "π", "≈3.14", "44,0", "10,5", "1.234,5", "1,23E+05"])
def test_read_as_verify_reads_it(gold: str) -> None:
    assert verify(gold, f"\\boxed{{{parse_gold(gold)}}}") == verify(gold, gold) == 1.0


PIECES = st.sampled_from(
    ["[", "]", '"', "'", "5", "x", "\f", "\b", "\t", "\n", "\r", "\\", "\\\\", "rac{", "ext{", "imes", "oxed{", "}",
     "$", "\\boxed{", ",", " ", "\ud800", "\x00", "proof"]
)  # fmt: skip


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=30) | st.lists(PIECES, max_size=12).map("".join))
def test_mending_is_total_and_done_once(text: str) -> None:
    mended = mend_gold(text)
    assert unanswerable(mended) is None or unanswerable(mended)
    assert mend_gold(mended) == mended or len(mended) < len(text)


@pytest.mark.parametrize("text", ["[" * 900 + "]" * 900, "[" * 400 + "5" + "]" * 400, "\\" * 50_000, "rac" * 20_000])
def test_a_hostile_gold_is_mended_in_no_time(text: str) -> None:
    assert isinstance(mend_gold(text), str)
