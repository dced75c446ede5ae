r"""Whether two answers are equal, where both have an exact form: True, False, or None for "ask math-verify".

1. Words, multiple-choice letters and numbers with a base are compared as written (see wording.py).
2. The same normalised tokens: equal.
3. Both of one of these shapes, with exact formulas (exact.py) inside: compared part by part.
   - a value, after the assignment in front of it: x = 3, a = b = 7, `x \in`
   - a list: 1, 2; `\{1, 2\}`; x = 1 or x = 2; `1 \pm \sqrt{2}`: without order, as a set
   - a tuple, point or open interval (a, b); an interval [a, b); a union of intervals; a matrix
   - against an interval, an inequality in one variable: `-2 \le x < 7`

Before that, refusals.py decides what math-verify would believe.  None where a shape or a formula is not read.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lean_align.verify.exact import LETTERS, exact
from lean_align.verify.latex import UNCLEAR_COMMA, Tokens, closes_at_end, split, tokens
from lean_align.verify.numbers import ELLIPSIS, plain_number
from lean_align.verify.readings import scientific
from lean_align.verify.refusals import is_refused
from lean_align.verify.sums import NotExactError, constant
from lean_align.verify.wording import same_wording

_INFINITY, _MINUS_INFINITY = frozenset(["infinity"]), frozenset(["-infinity"])
_FLIPPED = {">": "<", r"\ge": r"\le"}
_ORDER = ("<", r"\le", *_FLIPPED)
_ORDERED = frozenset([*_ORDER, r"\ne"])


_AND = re.compile(r"\band\b|\\land|\\wedge")
_MAY_BE_A_SUM = re.compile("[0-9]e[-+][0-9]")  # 2e-3 may be a difference with the constant e


@dataclass(frozen=True)
class Form:
    """Shape and exact parts of an answer; two forms of one shape are equal where their parts are."""

    shape: str
    parts: tuple[object, ...] | frozenset[object]
    name: Tokens = ()  # the variable that it was assigned to


def same_value(gold: str, found: str) -> bool | None:
    """Whether the two are equal; None where that is not decided here."""
    worded = same_wording(gold, found)
    if worded is not None:
        return worded
    ours, theirs = tokens(gold), tokens(found)
    if not ours or not theirs:
        return None
    if bool(ELLIPSIS.search(gold)) != bool(ELLIPSIS.search(found)):  # 0.333... is not 0.333
        return False
    if ours == theirs or ("\\" in gold + found and tokens(gold, True) == tokens(found, True)):
        return True
    if is_refused(gold, ours, found, theirs):
        return False
    ordered = not _ORDERED.isdisjoint(theirs)  # math-verify takes an interval for a gold inequality
    union = not _AND.search(gold), not _AND.search(found)
    verdict = _verdict(_number(gold), ours, _number(found), theirs, ordered, union)
    if verdict is False and (_MAY_BE_A_SUM.search(gold) or _MAY_BE_A_SUM.search(found)):
        verdict = _verdict(None, ours, None, theirs, ordered, union)
    return verdict


def _verdict(
    gold: Form | None, ours: Tokens, found: Form | None, theirs: Tokens, ordered: bool, union: tuple[bool, bool]
) -> bool | None:
    try:
        return _same_form(
            gold or read(ours, as_interval=ordered, as_union=union[0]),
            found or read(theirs, as_interval=True, as_union=union[1]),
        )
    except NotExactError:
        return None


def _number(text: str) -> Form | None:
    """A plain number by its own rules: its commas group thousands."""
    number = plain_number(text)
    if number is None:
        number = scientific(text)
    return None if number is None else Form("value", frozenset(constant(number).items()))


def _same_form(gold: Form, found: Form) -> bool | None:
    if gold.name and found.name and gold.name != found.name:
        return False if _is_solved(gold) and _is_solved(found) else None
    gold, found = _as_tuples(gold, found)
    if gold.shape != found.shape:
        several = any(form.shape == "list" and len(form.parts) > 1 for form in (gold, found))
        return False if several and "value" in (gold.shape, found.shape) else None  # one value is not several
    if gold.parts == found.parts:
        return True
    return None if gold.shape == "union" else False  # [0,1] and (1,2] make [0,2]


def _is_solved(form: Form) -> bool:
    """t = 8: a letter with a number for it, so that another letter is another unknown."""
    is_number = all(isinstance(part, tuple) and part[0][1] == () for part in form.parts)
    return form.shape == "value" and len(form.name) == 1 and is_number


def _as_tuples(gold: Form, found: Form) -> tuple[Form, Form]:
    """A matrix of one row or column and a tuple or point in brackets, both as tuples."""
    if {gold.shape, found.shape} not in ({"matrix", "()"}, {"matrix", "[]"}):
        return gold, found
    return _vector(gold), _vector(found)


def _vector(form: Form) -> Form:
    if form.shape != "matrix" or not isinstance(form.parts, tuple):
        return Form("()", form.parts, form.name)
    rows: list[tuple[object, ...]] = list(form.parts)  # type: ignore[arg-type]
    if len(rows) == 1:
        return Form("()", rows[0], form.name)
    return Form("()", tuple(row[0] for row in rows), form.name) if all(len(row) == 1 for row in rows) else form


def read(answer: Tokens, as_interval: bool = False, as_union: bool = True) -> Form:
    """The form of an answer; `as_interval` reads an inequality as the interval that it is, `as_union` several of them
    as their union.

    Raises
    ------
    NotExactError : it has none here.
    """
    items = split(answer, ",")
    if len(items) > 1 and as_interval and as_union and all(not _ORDERED.isdisjoint(item) for item in items):
        return _united([_inequality(item) for item in items])
    if len(items) > 1:
        return _list(items)
    name, value = _after_assignment(answer) if answer[:1] != (r"\{",) else ((), answer)
    condition = _condition(value)
    if condition is not None:
        return read(condition, as_interval=True)
    if as_interval and r"\ne" in value:
        return _all_but(value)
    if as_interval and any(token in _ORDER for token in value):
        return _inequality(value)
    form = _unassigned(value)
    return Form(form.shape, form.parts, name) if name else form


def _condition(value: Tokens) -> Tokens | None:
    r"""x \ge 4 of \{x \mid x \ge 4\}."""
    if value[:1] != (r"\{",) or value[-1:] != (r"\}",) or _ORDERED.isdisjoint(value):
        return None
    at = next((at for at, token in enumerate(value) if token in (r"\mid", ":", "|")), 0)
    name = value[1:at]
    if r"\in" in name:
        name = name[: name.index(r"\in")]
    return value[at + 1 : -1] if _is_name(name) else None


def _united(forms: list[Form]) -> Form:
    if len({form.name for form in forms}) != 1 or any(form.shape == "union" for form in forms):
        raise NotExactError
    return Form("union", frozenset(Form(form.shape, form.parts) for form in forms))


def _all_but(value: Tokens) -> Form:
    r"""x \ne 4 as two intervals."""
    name, *others = split(value, r"\ne")
    if not _is_name(name) or len(others) != 1:
        raise NotExactError
    left_out = _value(others[0])
    return Form("union", frozenset([Form("()", (_MINUS_INFINITY, left_out)), Form("()", (left_out, _INFINITY))]), name)


def _unassigned(value: Tokens) -> Form:
    united = split(value, r"\cup")
    if len(united) > 1:
        return Form("union", frozenset(_interval(part) for part in united))
    if value[:1] == (r"\{",) and value[-1:] == (r"\}",):
        return _list(split(value[1:-1], ","))
    return _list((value,)) if r"\pm" in value else _single(value)


def _single(value: Tokens) -> Form:
    """A matrix, a tuple or a value: what a list or a union may hold."""
    if value[:4] == (r"\begin", "{", "matrix", "}") and value[-4:] == (r"\end", "{", "matrix", "}"):
        rows = split(value[4:-4], r"\\")
        return Form("matrix", tuple(tuple(_value(cell) for cell in split(row, "&")) for row in rows if row))
    if value[:1] in (("(",), ("[",)) and closes_at_end(value):
        parts = split(value[1:-1], ",", UNCLEAR_COMMA)  # inside brackets every comma separates
        if len(parts) > 1:
            return Form(f"{value[0]}{value[-1]}", tuple(_value(part) for part in parts))
    return Form("value", _value(value))


def _list(items: tuple[Tokens, ...]) -> Form:
    """Without order; with a variable in front of some items, it has to be the same one."""
    parts: set[object] = set()
    names = set()
    for item in items:
        name, value = _after_assignment(item)
        names.add(name)
        parts.update(_with_both_signs(value))
    names.discard(())
    if len(names) > 1:
        return _point(items)
    return Form("list", frozenset(parts), *names)


def _point(items: tuple[Tokens, ...]) -> Form:
    """x = 6, y = -2 as (6, -2): every value has its letter, and letters have an order."""
    named = dict(_after_assignment(item) for item in items)
    if len(named) != len(items) or any(len(name) != 1 or not name[0].isalpha() for name in named):
        raise NotExactError
    return Form("()", tuple(_value(named[name]) for name in sorted(named)))


def _with_both_signs(value: Tokens) -> Iterator[object]:
    if r"\pm" not in value:
        form = _single(value)
        yield form.parts if form.shape == "value" else form
        return
    if value.count(r"\pm") > 1:
        raise NotExactError
    for sign in "+-":
        yield _value(tuple(sign if token == r"\pm" else token for token in value))


def _value(formula: Tokens) -> frozenset[object]:
    bare = formula[1:] if formula[:1] in (("+",), ("-",)) else formula
    if bare == (r"\infty",):
        return _MINUS_INFINITY if formula[0] == "-" else _INFINITY
    return frozenset(exact(formula).items())


def _interval(value: Tokens) -> object:
    form = _single(value)
    if len(form.shape) != 2 or not isinstance(form.parts, tuple) or len(form.parts) != 2:
        raise NotExactError
    return form


def _inequality(value: Tokens) -> Form:
    """A variable between two bounds, or on one side of one, as an interval."""
    signs, sides = [token for token in value if token in _ORDER], list(split(value, *_ORDER))
    if all(sign in _FLIPPED for sign in signs):
        signs, sides = [_FLIPPED[sign] for sign in reversed(signs)], sides[::-1]
    if len(sides) == 2 and sides[0][:1] == sides[0][-1:] == ("|",):
        return _absolute(sides[0][1:-1], signs[0], sides[1])
    if len(sides) == 2 and sides[1][:1] == sides[1][-1:] == ("|",):
        return _outside(sides[1][1:-1], signs[0], sides[0])
    named = [index for index, side in enumerate(sides) if _is_name(side)]
    if any(sign in _FLIPPED for sign in signs) or len(named) != 1 or len(sides) != len(signs) + 1:
        raise NotExactError
    at = named[0]
    if (at != 1 and len(sides) == 3) or len(sides) > 3:
        raise NotExactError
    low = _value(sides[at - 1]) if at else _MINUS_INFINITY
    high = _value(sides[at + 1]) if at < len(signs) else _INFINITY
    opening = "[" if at and signs[at - 1] == r"\le" else "("
    closing = "]" if at < len(signs) and signs[at] == r"\le" else ")"
    return Form(opening + closing, (low, high), sides[at])


def _absolute(name: Tokens, sign: str, bound: Tokens) -> Form:
    r"""|x| < 3 as (-3, 3)."""
    if not _is_name(name) or sign in _FLIPPED:
        raise NotExactError
    ends = "[]" if sign == r"\le" else "()"
    return Form(ends, (_value(("-", "(", *bound, ")")), _value(bound)), name)


def _outside(name: Tokens, sign: str, bound: Tokens) -> Form:
    r"""3 < |x| as two intervals."""
    if not _is_name(name) or sign in _FLIPPED:
        raise NotExactError
    left, right = ("(]", "[)") if sign == r"\le" else ("()", "()")
    low, high = _value(("-", "(", *bound, ")")), _value(bound)
    return Form("union", frozenset([Form(left, (_MINUS_INFINITY, low)), Form(right, (high, _INFINITY))]), name)


def _after_assignment(answer: Tokens) -> tuple[Tokens, Tokens]:
    """(x, 3) of x = 3; the last value of a = b = 7; no name where the left-hand side is more than a name."""
    relation = r"\in" if r"\in" in answer else "="
    first, *rest = split(answer, relation)
    if not rest:
        return (), answer
    if not _is_name(first) or not rest[-1]:
        raise NotExactError
    if set(first) & set(rest[-1]) - {"_", "(", ")"}:  # x = x + 1
        raise NotExactError
    return first, rest[-1]


def _is_name(side: Tokens) -> bool:
    """x, `\\theta`, x_1, x_{12}, f(x), (x, y)."""
    if side[:1] == ("(",) and side[-1:] == (")",) and len(side) > 3:
        return all(_is_name(part) for part in split(side[1:-1], ","))
    start = side[:1] and (side[0] in LETTERS or (len(side[0]) == 1 and side[0].isalpha()))
    rest = side[1:]
    subscript = rest[:1] == ("_",) and (len(rest) == 2 or (len(rest) == 4 and rest[1] == "{" and rest[3] == "}"))
    argument = len(rest) == 3 and rest[0] == "(" and rest[2] == ")" and rest[1].isalpha()
    return bool(start) and (not rest or subscript or argument)
