r"""Answers that are not the gold although math-verify, which drops signs and words, may say so.

0. Two quantities, `5\text{ hours }30\text{ minutes}`, or a family of values, `6m, m \in \mathbb{Z}`, for a number.
1. Words that change the value or take it back: `3\text{ or more}`, 5 over (numbers.py).
2. Letters behind a number that are not a unit: 1/2h, 4 s^2.
3. A relation without a left-hand side, `\le 10`, and a sign without a second term, 10+.
4. A set against a tuple: `\{1, 2\}` is not (1, 2).  A bare list may be either.
5. An equation that is still to be solved, x + 1 = 6, for the gold 6; the side before the last of a conversion, 60 of
   `60\text{ minutes} = 1\text{ hour}`.
"""

from __future__ import annotations

import re

from lean_align.verify.exact import exact
from lean_align.verify.latex import UNCLEAR_COMMA, Tokens, closes_at_end, split
from lean_align.verify.numbers import CHANGES, NAMES, plain_number, takes_back
from lean_align.verify.sums import NotExactError

_RELATIONS = frozenset(["<", ">", r"\le", r"\ge", r"\ne", r"\neq", r"\sim", "\u2260"])
_SETS, _TUPLES = (r"\{",), (("(",), ("[",))
_VALUES = frozenset(
    "pi alpha beta gamma delta theta lambda mu omega phi rho sigma tau epsilon eta kappa psi chi xi".split()
)
_COMPOUND = re.compile(
    r"[0-9}](?:\\[,;: ]|[\s~])*(?:\\(?:text|mathrm|mbox)\s*\{\s*[A-Za-z. ]+\}|[A-Za-z]{2,})(?:\\[,;: ]|[\s~,])*[0-9]"
)
_FAMILY = re.compile(
    r"\\in\s*\\math(?:bb|bf|rm)|\\(?:forall|text\s*\{[^{}]*(?:integer|any|every|each|all)\b)|\bintegers?\b"
)
_CONSTANTS = frozenset(["e", "i", r"\pi"])
_LETTERS_BEHIND = re.compile(r"(.*[0-9}])(?:\s*[A-Za-z]|[A-Za-z]{2})(?:\^\{?[0-9]\}?)?", re.DOTALL)
_OR_MORE = re.compile(r"\b(?:and|or)\W+(?:more|less|fewer|greater|higher|lower|larger|smaller|above|below|so)\b")
_WORD = re.compile("[A-Za-z]{3,}")


def is_refused(gold: str, ours: Tokens, found: str, theirs: Tokens) -> bool:
    """Whether one of these rules makes the answer `found`, of tokens `theirs`, another than the gold."""
    return (
        (plain_number(gold) is not None and bool(_COMPOUND.search(found) or _FAMILY.search(found)))
        or (_is_bound(found) != _is_bound(gold))
        or (not _may_be_list(gold) and _taken_back(gold.lower(), theirs))
        or (theirs[0] in _RELATIONS and _RELATIONS.isdisjoint(ours))
        or _dangling(theirs) != _dangling(ours)
        or _set_against_tuple(ours, theirs)
        or _with_letters(gold, found)
        or ("=" in theirs and "=" not in ours and plain_number(gold) is not None and _another_side(gold, found, theirs))
    )


def _taken_back(gold: str, theirs: Tokens) -> bool:
    for at, token in enumerate(theirs):
        if token[0] == '"' and len(token) > 2 and (at or token[1].isdigit()) and takes_back(token, CHANGES):
            if not any(word.lower() in gold for word in re.findall("[A-Za-z]+", token)):
                return True
        elif at and token in CHANGES and token not in gold:
            return True
        if at and token in ("times", '"times') and at < len(theirs) - 1 and "times" not in gold:
            return True
    return len(theirs) == 2 and theirs[1].lstrip("\\") in NAMES - _VALUES and plain_number(gold) is not None


def _may_be_list(gold: str) -> bool:
    return "," in gold and plain_number(gold) is None  # 1,000 is none


def _is_bound(text: str) -> bool:
    return bool(_OR_MORE.search(text))


def _dangling(answer: Tokens) -> str:
    """The sign at the end of 10+ and `10^{-}`."""
    last = next((token for token in reversed(answer) if token != "}"), "")
    return last if last in ("+", "-") else ""


def _with_letters(gold: str, found: str) -> bool:
    """1/2h for 1/2: letters that are not a unit, but that math-verify takes for one."""
    number = _LETTERS_BEHIND.fullmatch(found.strip(" $"))
    return number is not None and plain_number(gold) is not None and bool(plain_number(number[1]))


def _set_against_tuple(ours: Tokens, theirs: Tokens) -> bool:
    kinds = [_bracket(side) for side in (ours, theirs)]
    return _SETS in kinds and any(kind in _TUPLES for kind in kinds)


def _bracket(answer: Tokens) -> Tokens:
    """The bracket that holds several values; () where none holds all of them."""
    start = max((at + 1 for at, token in enumerate(answer) if token in ("=", r"\in")), default=0)
    value = answer[start:]
    try:
        several = len(split(value[1:-1], ",", UNCLEAR_COMMA)) > 1
    except NotExactError:
        return ()
    return value[:1] if several and value[:1] in (_SETS, *_TUPLES) and closes_at_end(value) else ()


def _another_side(gold: str, found: str, theirs: Tokens) -> bool:
    *_, before, last = found.split("=")
    value = plain_number(last)
    if value is None:
        return False
    if plain_number(before) is not None and _WORD.search(last):
        return value != plain_number(gold)
    return _is_linear(theirs[: theirs.index("=")])


def _is_linear(side: Tokens) -> bool:
    """2x and x + 1, but not x itself, x + y or x^2 + 1: those may be what the problem asks for."""
    try:
        terms = exact(side)
    except NotExactError:
        return False
    if list(terms.values()) == [1]:
        return False
    letters = {power for _, powers in terms for power in powers}
    return len(letters) == 1 and all(n == 1 and x not in _CONSTANTS for x, n in letters)
