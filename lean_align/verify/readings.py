r"""What an answer says around its value: the one number, or the formula, that is left without it.

1. An option's letter, `(C) 14`; a label or a sentence, `\text{Total: } 20`, `\text{Area} = 34\text{ cm}^2`,
   `\text{There are 20 books}`; approximately.
2. Numbers written in another way: 2.3E+3, `2.3 \times 10^{3}`; 2.345.678, 23,45,678 and 2'345'678 as one number; 0,125.

A word that changes the value, or names a bound, takes the number back: at least 20, half of 20, not 20.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lean_align.verify.numbers import (
    CURRENCY,
    DIGITS,
    ELLIPSIS,
    MAX_NUMBER_CHARS,
    NAMES,
    is_unit,
    plain_number,
    takes_back,
)

_MANTISSA = r"([-+]?[0-9]{1,20}(?:,[0-9]{3})*(?:\.[0-9]{1,40})?)"
_SCIENTIFIC = re.compile(
    rf"{_MANTISSA}(?:[eE]([-+]?[0-9]{{1,3}})"
    r"|\s*(?:\\times|\\cdot|[xX*\u00d7\u00b7])\s*(?:\\,\s*)?10\s*\^\s*(?:([0-9])|\{\s*([-+]?[0-9]{1,3})\s*\}|"
    r"([-+]?[0-9]{1,3})))"
)
_GROUPED = re.compile(
    r"-?[0-9]{1,3}(?:\.[0-9]{3}){2,}(?:,[0-9]+)?|-?[0-9]{1,3}(?:\.[0-9]{3})+,[0-9]+|-?[0-9]{1,3}(?:'[0-9]{3})+(?:\.[0-9]+)?"
    r"|-?[0-9]{1,3}(?:_[0-9]{3})+|-?[0-9]{1,2}(?:,[0-9]{2})+,[0-9]{3}(?:\.[0-9]+)?"
)
_DECIMAL_COMMA = re.compile(
    r"-?(?:0|[1-9][0-9]{0,8})(?:,|\{,\})(?:[0-9]{1,2}|[0-9]{4,20}|(?<=0,)[0-9]{3}|(?<=0\{,\})[0-9]{3})"
)
_TWO_DIGITS = re.compile(r"-?[0-9](?:,|\{,\})[0-9]")
_COMMA_SCIENTIFIC = re.compile(r"[-+]?[0-9],[0-9]{1,40}[eE][-+]?[0-9]{1,3}")
_NUMBER_WORDS = {
    word: value
    for value, word in enumerate(
        "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen"
        " seventeen "
        "eighteen nineteen twenty".split()
    )
}
_METRES = re.compile(r"(-?[0-9][0-9.,]*)m\^(?:[23]|\{[23]\})")
_NAMED = re.compile(
    r"(?:\\?[A-Za-z]{1,6}(?:_\{?[A-Za-z0-9]{1,9}\}?)?(?:\([A-Za-z0-9, ]{1,20}\))?|\|[A-Z]{1,4}\|"
    r"|\\angle\s*[A-Z]{1,3}|\\overline\{[A-Z]{1,4}\})\s*=\s*(?=[^=]*$)"
)
_ROUNDED = re.compile(r"^[^0-9=\u2248]{1,40}(?:\u2248|\\approx(?![A-Za-z]))(?=[^=]*$)")  # \u03c0 \u2248 3.14
_UNWRAPPED = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm|textit|operatorname)\s*\{([^{}]*)\}")
_LOOKS = re.compile(r"\\[,;:! ]|\\q?quad(?![A-Za-z])|[~$]")

_LETTER = r"(?:\(\s*[A-J]\s*\)|[A-J]\s*[.:)])"
_STYLED = r"\\(?:text|textbf|mathbf|mathrm|mbox)\s*\{"
_OPTION = re.compile(rf"(?:{_STYLED}\s*)?{_LETTER}(?:\s*\}})?(?:\\[,;:! ]|[\s~:.$]|\\q?quad)*(?=\S)")
_OPTION_IN_TEXT = re.compile(rf"({_STYLED})\s*{_LETTER}\s+")
_APPROXIMATELY = re.compile(
    r"^(?:\\approx|\\simeq|\u2248|(?:\\text\s*\{\s*)?(?:approximately|approx\.?|about|around|roughly|exactly|nearly)\s*\}?)"
    r"(?:\\[,;: ]|[\s~])*(?=\S)",
    re.IGNORECASE,
)
_LABEL = re.compile(
    r"^(?:\\(?:text|mbox|mathrm|textbf|textrm)\s*\{([^{}0-9]*)\}|([A-Za-z][A-Za-z' -]*))(?:\\[,;: ]|\s)*([:=]?)"
)

_NUMBER = rf"[-+]?(?:{CURRENCY} ?)?[-+]?(?:[0-9]+ )?(?:{DIGITS})(?: ?/ ?[0-9]+)? ?%?"
_TO_ONE_VALUE = re.compile(
    rf"(?P<before>[A-Za-z][A-Za-z ,.:'-]*[ :.])?(?P<number>{_NUMBER})"
    r"(?P<gap> ?)(?:(?P<after>[A-Za-z][A-Za-z ,.'/-]*|\([A-Za-z ]+\))(?: ?\^ ?\{?[23]\}?)?)?[ .]*"
)
_WORD = re.compile("[A-Za-z]+")
_BOUNDS = NAMES | frozenset(
    "not no never none least most than less more fewer greater larger smaller higher lower over under above below "
    "beyond half twice thrice double triple quadruple square squared cube cubed root inverse reciprocal factorial "
    "between from up to and or nor but plus minus times negative if unless until before after without except either "
    "neither mod modulo divided multiplied remainder cannot isn wasn wrong incorrect impossible sec".split()
)
_SHORT_WORDS = frozenset("a an is it in of on at by he we so as be my us are was per the has for".split())


def same_number(gold: str, found: str) -> bool | None:
    """Whether an answer gives the number that the gold is; None where either gives none."""
    ours, theirs = plain_number(gold), plain_number(found)
    if ours is None:
        ours = scientific(gold)
    if ours is None:
        return _same_by_comma(gold, found)
    if theirs is None:
        theirs = number_of(found)
    if theirs is None:
        theirs = decimal_comma(found) if ours.denominator != 1 else None
    if theirs is None or theirs == ours:
        return None if theirs is None else True
    return _is_percent(found) and not _is_percent(gold) and theirs == 100 * ours


def _same_by_comma(gold: str, found: str) -> bool | None:
    """True where a decimal comma makes the gold the answer's number; else None, as the comma may separate a list."""
    ours = _with_decimal_comma(gold)
    if ours is None:
        return None
    theirs = number_of(found)
    return True if ours in (theirs, _with_decimal_comma(found) if theirs is None else None) else None


def _with_decimal_comma(text: str) -> Fraction | None:
    """10.5 of 10,5 and 1.234,5 and 123000 of 1,23E+05; 2,3 is a list of single digits."""
    bare = text.strip(" $.")
    if _COMMA_SCIENTIFIC.fullmatch(bare):
        return scientific(bare.replace(",", ".", 1))
    if "." in bare:
        return _grouped(bare)
    return None if _TWO_DIGITS.fullmatch(bare) else decimal_comma(bare)


def _is_percent(text: str) -> bool:
    return "%" in text or "percent" in text


def has_option(text: str) -> bool:
    """Whether an option's letter leads a value: `\\textbf{(C)}\\ 14`."""
    return bool(_OPTION.match(text) or _OPTION_IN_TEXT.match(text))


def number_of(text: str) -> Fraction | None:
    """The one number that an answer gives, however it is written; None where it gives none, several or another
    value."""
    if len(text) > MAX_NUMBER_CHARS or ELLIPSIS.search(text):
        return None
    text = _ROUNDED.sub("", text)
    for _ in range(3):  # an option, a label, a unit
        found = _bare_number(text)
        if found is not None:
            return found
        shorter = without_label(text, named=True)
        if shorter == text:
            break
        text = shorter
    return _number_in_words(text)


def _bare_number(text: str) -> Fraction | None:
    for rule in (plain_number, scientific, _grouped, _square_metres, _in_words):
        found = rule(text)
        if found is not None:
            return found
    return None


def scientific(text: str) -> Fraction | None:
    """2.3E+3, 4e-4, `4.1 \\times 10^{-23}`, 2.3 x 10^3; a unit behind it goes."""
    match = _SCIENTIFIC.match(text.strip(" $").replace("\\ ", " ").replace("{,}", ","))
    if match is None:
        return None
    rest = match.string[match.end() :].strip()
    if rest and plain_number(f"1 {rest}") != 1:
        return None
    value = plain_number(match[1])
    exponent = next(group for group in match.groups()[1:] if group is not None)
    return None if value is None else value * Fraction(10) ** int(exponent)


def _grouped(text: str) -> Fraction | None:
    """An integer whose groups of digits are set apart in another country's way."""
    bare = text.strip(" $.")
    if not _GROUPED.fullmatch(bare):
        return None
    if bare.count(".") > 1 or bare.find(",") > bare.find(".") > 0:
        bare = bare.replace(".", "").replace(",", ".")
    return Fraction(re.sub("[,'_]", "", bare))


def _in_words(text: str) -> Fraction | None:
    value = _NUMBER_WORDS.get(_UNWRAPPED.sub(r"\1", text).strip(" .").lower())
    return None if value is None else Fraction(value)


def _square_metres(text: str) -> Fraction | None:
    """14 of 14m^2, where no unknown can be meant: the gold is a number."""
    match = _METRES.fullmatch(text.strip(" $."))
    return plain_number(match[1]) if match else None


def decimal_comma(text: str) -> Fraction | None:
    """1/8 of 0,125, where the comma cannot group thousands."""
    match = _DECIMAL_COMMA.fullmatch(text.strip(" $."))
    return Fraction(match[0].replace("{,}", ".").replace(",", ".")) if match else None


def without_label(text: str, named: bool = False) -> str:
    """The text behind an option's letter, a label, "approximately", a left-hand side of words, or `named` of a name."""
    bare = text.strip()
    for pattern in (_OPTION, _APPROXIMATELY, *([_NAMED] if named else [])):
        match = pattern.match(bare)
        if match:
            return bare[match.end() :]
    match = _OPTION_IN_TEXT.match(bare)
    if match:
        return match[1] + bare[match.end() :]
    match = _LABEL.match(bare)
    rest = bare[match.end() :].strip() if match else ""
    if match is None or not rest:
        return text
    words = (match[1] or match[2] or "").strip(" :=,")
    is_marked = match[3] or (match[1] or "").rstrip().endswith((":", "="))
    if not words:
        return rest if is_marked else text
    if not is_label(words) or (match[1] is None and not is_marked):
        return text
    return rest if is_marked or rest[0] in "0123456789-\\$({[" else text


def is_label(words: str) -> bool:
    """Whether words only say what the value behind them is; letters that may be variables are none."""
    found = [word.lower() for word in _WORD.findall(words)]
    return bool(found) and _BOUNDS.isdisjoint(found) and any(len(word) > 2 for word in found)


def _number_in_words(text: str) -> Fraction | None:
    words = " ".join(_LOOKS.sub(" ", _UNWRAPPED.sub(r" \1 ", text)).split())
    if "\\" in words:
        return None
    match = _TO_ONE_VALUE.fullmatch(words)
    if match is None:
        return None
    before, after = _WORD.findall(match["before"] or ""), match["after"] or ""
    if any(word.lower() in _BOUNDS or not _is_english(word) for word in before):
        return None
    if after and (takes_back(after) or not is_unit(after.strip("() "), not match["gap"])):
        return None
    if len(before) == 1 and not any(len(word) > 2 for word in before):
        return None
    behind = [word.lower() for word in _WORD.findall(after)]
    if not _BOUNDS.isdisjoint(behind[1:]) or (behind[:1] == ["times"] and behind[1:]):
        return None
    return plain_number(match["number"])


def _is_english(word: str) -> bool:
    return len(word) > 2 or word.lower() in _SHORT_WORDS or word == "I"
