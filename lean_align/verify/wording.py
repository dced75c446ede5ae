r"""Answers that are compared as written: words, multiple-choice letters, numbers with a base.

Each differs from math-verify in:
1. A word is not a product of letters: `west` is not `stew`.  In `\text{...}`, or with four letters or more, or as
   one of the short words below, and with its articles, case and closing period left out.
2. A gold `\text{(C)}` or (C) is the letter that leads the answer: C, (c), `\textbf{(C)} 12`.  An answer that names
   another option too, `(C) or (D)`, is wrong.
3. Names in a list have no order; "no solution" is `\emptyset`, "all real numbers" the real line; Day 5 is day 5; 3
   mod 5 is 3.
4. `3120_4` is not `3120_5`.  The base may be left out on one side, as the problem names it; 63_8 is not 51, since such
   a problem asks for digits.

Golds written in parts: 3 hours 20 minutes, 12:30, CH4.  Equal part by part; None: not decided here.
"""

from __future__ import annotations

import re

from lean_align.verify.numbers import NAMES, plain_number

_TEXT = r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|textrm|rm)\s*"
_UNWRAPPED = re.compile(rf"{_TEXT}\{{([^{{}}]*)\}}")
_WORDS = re.compile(r"[A-Za-z][A-Za-z' -]*")
_ARTICLE = re.compile(r"^(?:an?|the) (?=[a-z]{2})")
_CHOICE_AS_GOLD = re.compile(r"\(?([A-J])(?:\)(?: .*)?)?", re.DOTALL)
_LEADING_CHOICE = re.compile(r"\(?([A-Ja-j])(?:[*_]{0,2}\).*|[.:](?:[ *].*)?)?", re.DOTALL)
_CHOICE_NAMED = re.compile(
    r"^(?:the )?(?:(?:correct|right|best) )?(?:option|choice|alternative|answer)s?(?: is)?:? (?=\(?[A-Ja-j]\b)",
    re.IGNORECASE,
)
# An option's letter in parentheses, or with a period or parenthesis, or alone, or behind a word or sign of a list.
_CHOICE_IN_TEXT = re.compile(
    r"\(([A-J])\)|(?<![A-Z(])([A-J])[.):](?=\s|$)|^\W*([A-HJ])$|(?:\b(?:AND|OR|NOT|ALSO)\b|[,/&])\s*\(?([A-J])\b"
)
_BASE = re.compile(
    r"\(?([0-9A-F]{1,40}(?:\.[0-9A-F]{1,40})?)\)?"
    r"(?:_(?:\{\(?(?:base)?([0-9]{1,2}|[a-z]{3,6})\)?\}|\(?([0-9]{1,2}|[a-z]{3,6})\)?)|\(?(?:in)?base-?"
    r"([0-9]{1,2}|[a-z]{3,6})\)?)"
)
_BASE_NAMES = "two three four five six seven eight nine ten eleven twelve".split()
_LIST_SIGN = re.compile(r",? and |,? or |\s?[,;&]\s?(?:and |or )?")
_NAMES = re.compile(r"[A-Za-z][A-Za-z' -]*(?:\s?[,;&]\s?[A-Za-z][A-Za-z' -]*)*")
_NUMBERED = re.compile(r"([A-Za-z]{3,}(?: [A-Za-z]{2,})?)\.? ?#?([0-9]{1,9})(?:st|nd|rd|th)?")
_MONTHS = frozenset(
    "january february march april may june july august september october november december "
    "jan feb mar apr jun jul aug sep sept oct nov dec".split()
)
_NOT_SAID = re.compile(r"\\left|\\right|[^A-Za-z0-9\\{}()<,-]|(?:\b(?:the|there (?:is|are|exists?)|thereis)\b)")
_NO_SOLUTION = frozenset(
    r"nosolution nosolutions norealsolution norealsolutions nosolutionexists emptyset setempty \emptyset"
    r" \varnothing \{\} "
    r"norealroots nosuchnumber nointegersolutions nointegersolution nosuchx x\in\emptyset".split()
)
_ALL_REALS = frozenset(
    r"(\infty,\infty) \mathbb{r} x\in\mathbb{r} x\in(\infty,\infty) \infty<x<\infty allrealnumbers allreals allrealx "
    r"allreal allrealnumbersx anyrealnumber everyrealnumber setofallrealnumbers setofrealnumbers realnumbers r xisreal "
    r"allrealvalues anyreal allrealvaluesofx xisanyrealnumber".split()
)
_RESIDUE = re.compile(
    r"(?:[a-z]\s*(?:\\equiv|\u2261)\s*)?(-?[0-9]{1,30})\s*(?:\\[,;: ]\s*)?\(?\s*(?:\\?(?:pmod|bmod|mod)"
    r"|\\text\s*\{ ?mod ?\})\s*"
    r"(?:\{\s*)?([0-9]{1,30})\s*\}?\s*\)?"
)
_LIST = re.compile(r"\b(?:and|or)\b")
_AND_OR = re.compile(r"\b(?:and|or|not|also)\b")
_SHORT_WORDS = frozenset("no on yes in is it so as at by up if of odd all one two six ten".split())
_FOUR_LETTERS = re.compile("[A-Za-z]{4}")
_SPACING = re.compile(r"\\[,!;: ]|[\s$~]+")


def same_wording(gold: str, found: str) -> bool | None:
    """Whether two answers of one of these kinds are equal; None where they are of another."""
    for rule in (
        _same_choice,
        _same_base,
        _same_names,
        _same_known_set,
        _same_numbered,
        same_parts,
        _same_residue,
        _same_words,
    ):
        verdict = rule(gold, found)
        if verdict is not None:
            return verdict
    return None


def _plain(text: str) -> str:
    return _SPACING.sub(" ", _UNWRAPPED.sub(r"\1", text)).strip(" .*_")


def _same_choice(gold: str, found: str) -> bool | None:
    wanted = _CHOICE_AS_GOLD.fullmatch(_plain(gold))
    answer = _CHOICE_NAMED.sub("", _plain(found))
    given = _LEADING_CHOICE.fullmatch(answer)
    if wanted is None or given is None:
        return None
    return wanted[1] == given[1].upper() and not _names_another(answer, given)


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
    base = match[2] or match[3] or match[4]
    if base.isalpha():
        return (match[1], _BASE_NAMES.index(base) + 2) if base in _BASE_NAMES else None
    return match[1], int(base)


def _same_names(gold: str, found: str) -> bool | None:
    """Names that "and", commas or "or" join, in any order; "Ben or Eva" is not "Ben and Eva"."""
    ours, theirs = _plain(gold), _plain(found)
    if not _LIST_SIGN.search(ours) or not (_NAMES.fullmatch(ours) and _NAMES.fullmatch(theirs)):
        return None
    if not any(len(name) > 2 or (len(name) == 2 and name.istitle()) for name in _LIST_SIGN.split(ours)):
        return None
    if (" or " in ours) != (" or " in theirs):
        return False
    return _names(ours) == _names(theirs)


def _names(text: str) -> list[str]:
    return sorted(_ARTICLE.sub("", name.strip().lower()) for name in _LIST_SIGN.split(text) if name.strip())


def _same_known_set(gold: str, found: str) -> bool | None:
    """The empty set and the real line, in words or signs."""
    ours, theirs = (_NOT_SAID.sub("", _plain(side)).lower().replace("-", "") for side in (gold, found))
    for spellings in (_NO_SOLUTION, _ALL_REALS):
        if ours in spellings and theirs in spellings:
            return True
    return None


def _same_numbered(gold: str, found: str) -> bool | None:
    """Day 5, June 17, Route 9: the word in any case, and its number; the number alone but of a month."""
    ours, theirs = _NUMBERED.fullmatch(_plain(gold)), _NUMBERED.fullmatch(_plain(found))
    if ours is None or ours[1].split()[0].lower() in NAMES:
        return None
    if theirs is not None:
        return (ours[1].lower(), ours[2]) == (theirs[1].lower(), theirs[2])
    number = plain_number(found)
    return None if number is None or ours[1].lower() in _MONTHS else number == plain_number(ours[2])


def _same_residue(gold: str, found: str) -> bool | None:
    """3 mod 5: the same class, or the residue itself; with a modulus it answers no plain number."""
    ours, theirs = (_RESIDUE.fullmatch(side.strip(" $")) for side in (gold, found))
    if ours and theirs:
        return int(ours[2]) == int(theirs[2]) > 0 and (int(ours[1]) - int(theirs[1])) % int(ours[2]) == 0
    if ours:
        number = plain_number(found)
        return None if number is None else number == int(ours[1])
    return False if theirs and plain_number(gold) is not None else None


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


_IN_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm|ce)\s*\{([^{}]*)\}")
_SPACES = re.compile(r"\\[,!;: ]|[\s$~]+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)\.?(?:,? (?:and )?)?")
_PARTS = re.compile(rf"(?:{_PART.pattern}){{2,4}}")
_UNIT_NAMES = {
    "h": "hour", "hr": "hour", "min": "minute", "sec": "second", "ft": "foot", "feet": "foot", "in": "inch",
    "inche": "inch", "lb": "pound", "oz": "ounce", "yd": "yard",
}  # fmt: skip
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?: ?([ap])\.?m\.?)?", re.IGNORECASE)
_CHEMICAL = re.compile(r"(?:[A-Z][a-z]?[0-9]{0,3}|[()]){2,20}")


def same_parts(gold: str, found: str) -> bool | None:
    """Whether two answers of one of these kinds are equal; None where they are of another, or differ."""
    ours, theirs = _plain_part(gold), _plain_part(found)
    for kind in (_quantity, _time, _chemical):
        wanted, given = kind(ours), kind(theirs)
        if wanted is not None and wanted == given:
            return True
        if kind is _time and wanted and given and wanted[:2] == given[:2] and "" in (wanted[2], given[2]):
            return True
    return None


def _plain_part(text: str) -> str:
    return " ".join(_SPACES.sub(" ", _IN_TEXT.sub(r" \1 ", text)).split()).strip(" .*")


def _quantity(text: str) -> tuple[tuple[str, str], ...] | None:
    if len(text) > 100 or not _PARTS.fullmatch(text):
        return None
    return tuple((part[1], _unit(part[2].lower())) for part in _PART.finditer(text))


def _unit(word: str) -> str:
    singular = word.removesuffix("s")
    return _UNIT_NAMES.get(singular, singular)


def _time(text: str) -> tuple[str, str, str] | None:
    found = _TIME.fullmatch(text)
    return (found[1].lstrip("0"), found[2], (found[3] or "").lower()) if found else None


def _chemical(text: str) -> tuple[str, ...] | None:
    bare = re.sub(r"[_{} ]", "", text)
    return (bare,) if len(text) <= 60 and _CHEMICAL.fullmatch(bare) and re.search("[0-9]", bare) else None
