r"""Answers that are compared as written: words, multiple-choice letters, numbers with a base.

Each differs from math-verify in:
1. A word is not a product of letters: `west` is not `stew`.  In `\text{...}`, or with four letters or more, or as
   one of the short words below, and with its articles, case and closing period left out.
2. A gold `\text{(C)}` or (C) is the letter that leads the answer: C, (c), `\textbf{(C)} 12`.  An answer that names
   another option too, `(C) or (D)`, is wrong.
3. `3120_4` is not `3120_5`.  The base may be left out on one side, as the problem names it; 63_8 is not 51, since such
   a problem asks for digits.
"""

from __future__ import annotations

import re

_TEXT = r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|textrm|rm)\s*"
_UNWRAPPED = re.compile(rf"{_TEXT}\{{([^{{}}]*)\}}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{2})")
_CHOICE = re.compile(r"\(([A-J])\)")
_LEADING_CHOICE = re.compile(r"\(?([A-Ja-j])(?:\).*|[.:](?: .*)?)?", re.DOTALL)
# An option's letter in parentheses, or with a period or parenthesis, or alone, or behind a word or sign of a list.
_CHOICE_IN_TEXT = re.compile(
    r"\(([A-J])\)|(?<![A-Z(])([A-J])[.):](?=\s|$)|^\W*([A-HJ])$|(?:\b(?:AND|OR|NOT|ALSO)\b|[,/&])\s*\(?([A-J])\b"
)
_BASE = re.compile(r"([0-9]+(?:\.[0-9]+)?)_(?:\{([0-9]{1,2}|[a-z]+)\}|([0-9]{1,2}))")
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve".split()
_LIST = re.compile(r"\b(?:and|or)\b")
_AND_OR = re.compile(r"\b(?:and|or|not|also)\b")
_SHORT_WORDS = frozenset("no on yes in is it so as at by up if of odd all one two six ten".split())
_FOUR_LETTERS = re.compile("[A-Za-z]{4}")
_SPACING = re.compile(r"\\[,!;: ]|[\s$~]+")


def same_wording(gold: str, found: str) -> bool | None:
    """Whether two answers of one of these kinds are equal; None where they are of another."""
    for rule in (_same_choice, _same_base, _same_words):
        verdict = rule(gold, found)
        if verdict is not None:
            return verdict
    return None


def _plain(text: str) -> str:
    return _SPACING.sub(" ", _UNWRAPPED.sub(r"\1", text)).strip(" .*_")


def _same_choice(gold: str, found: str) -> bool | None:
    wanted = _CHOICE.fullmatch(_plain(gold)) or (
        re.fullmatch("([A-J])", _plain(gold)) if _UNWRAPPED.search(gold) else None
    )
    given = _LEADING_CHOICE.fullmatch(_plain(found))
    if wanted is None or given is None:
        return None
    return wanted[1] == given[1].upper() and not _names_another(_plain(found), given)


def _names_another(found: str, given: re.Match[str]) -> bool:
    """Whether another option's letter follows; small letters count where the leading one is small too."""
    rest = found[given.end(1) :]
    letters = _CHOICE_IN_TEXT.findall(rest.upper() if given[1].islower() else _AND_OR.sub(_upper, rest))
    return any("".join(letter) != given[1].upper() for letter in letters)


def _upper(word: re.Match[str]) -> str:
    return word[0].upper()


def _same_base(gold: str, found: str) -> bool | None:
    ours, theirs = _digits_and_base(gold), _digits_and_base(found)
    if ours is None or theirs is None or ours[1] == theirs[1] == 0:
        return None
    return ours[0] == theirs[0] and (ours[1] == theirs[1] or 0 in (ours[1], theirs[1]))


def _digits_and_base(text: str) -> tuple[str, int] | None:
    """3120 and 4 of 3120_4; base 0 where none is written."""
    bare = _plain(text).replace(" ", "").replace(",", "")
    if bare.isascii() and bare.isdecimal():
        return bare, 0
    match = _BASE.fullmatch(bare)
    if match is None:
        return None
    base = match[2] or match[3]
    if base.isalpha():
        return (match[1], _BASE_NAMES.index(base) + 2) if base in _BASE_NAMES else None
    return match[1], int(base)


def _same_words(gold: str, found: str) -> bool | None:
    ours, theirs = _plain(gold), _plain(found)
    if not _WORDS.fullmatch(ours) or not _WORDS.fullmatch(theirs) or _LIST.search(f"{ours} {theirs}"):
        return None
    if not any(_is_word(text, bare) for text, bare in ((gold, ours), (found, theirs))):
        return None
    return _ARTICLE.sub("", ours.lower()) == _ARTICLE.sub("", theirs.lower())


def _is_word(text: str, bare: str) -> bool:
    is_text = len(bare) >= 2 and _UNWRAPPED.search(text)
    return bool(is_text or bare.lower() in _SHORT_WORDS or _FOUR_LETTERS.search(bare))
