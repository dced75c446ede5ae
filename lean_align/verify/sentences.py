r"""The answer in a line that a mark leads to: one value, several, an option's letter, a word, or the line itself.

1. A line that is a number or a formula, or a word with which the text ends: all of it.
2. A line that begins with a value: that value, whatever the sentence says further ("7 because 3*2=6 is one short"),
   with those that "and", "or" or commas join to it ("3, 8, and 11").
3. A sentence: its last value that is not said in passing, behind a preposition or an article ("each of the 3 children
   gets 12 sweets"; "for $n=45$ we get $90$").
4. Where a word changes the value ("6 divided by 5") or bounds it ("at least 6", "between 6 and 9"), the whole line,
   which no number equals.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from lean_align.verify.numbers import ARITHMETIC, CURRENCY, DIGITS, NAMES, WRAPPING, plain_number

# Each stops at its own opening mark, so that a run of opening marks is not scanned again from every one of them.
# Dollar signs hold a formula where no space touches them from inside and no digit follows ("$5 and $6" is money), or
# where a LaTeX command stands between them.
_FORMULA_TEXT = (
    r"\$\$([^$]+)\$\$|\$(?=\S)([^$\n]*[^\s$])\$(?![0-9])|\$([^$\n\\]*\\[A-Za-z][^$\n]*)\$"
    r"|\\\(((?:[^\\]|\\[^()])*)\\\)|\\\[((?:[^\\]|\\[^\[\]])*)\\\]"
)
_FRACTION_TEXT = r"(?:[0-9]{1,9} )?[0-9]{1,30} ?/ ?[0-9]{1,30}(?![0-9])"
_POWER_OF_TEN = r"(?:\\times|[x*\u00d7]) ?10\^(?:[0-9]|-[0-9]+|\{-?[0-9]+\})"
_NUMBER_TEXT = (
    r"(?<![0-9:])[0-9]{1,2}:[0-9]{2}(?![0-9:])(?: ?[AaPp]\.?[Mm]\b)?|(?:(?<![0-9A-Za-z)}\]])-)?(?:"
    r"[0-9]{0,9}\\[dt]?frac\{[^{}]*\}\{[^{}]*\}|[0-9]{0,9}\\sqrt(?:\[[0-9]\])?\{[^{}]*\}"
    r"|(?:(?<![0-9])[0-9]{1,9} ?\*? ?)?(?<![A-Za-z])(?:sqrt|sin|cos|tan|log|ln) ?(?:\([0-9. ]{1,30}\)|[0-9]{1,30})"
    rf"|(?:{CURRENCY}-?)?(?<![A-Za-z0-9_^])(?<!\^\{{)(?:{_FRACTION_TEXT}|0,[0-9]{{1,20}}(?![0-9,])|{DIGITS})"
    rf"(?:[eE][-+]?[0-9]{{1,3}}(?![0-9A-Za-z])| ?{_POWER_OF_TEN})?)"
)
FORMULA = re.compile(_FORMULA_TEXT)
FORMULA_OR_NUMBER = re.compile(f"{_FORMULA_TEXT}|{_NUMBER_TEXT}")
_UNKNOWN = re.compile(r"(?<![A-Za-z\\])[A-Za-z](?![A-Za-z])")


def content(token: re.Match[str], whole: bool = False) -> str:
    """A number as it stands; of a formula its `right_side`, or with `whole` all of it."""
    inside = next((group for group in token.groups() if group is not None), token[0]).strip()
    return inside if whole else right_side(inside)


def right_side(formula: str) -> str:
    """The number after the last equals sign of a calculation; any other formula, and x = 9, is left whole."""
    left, sign, right = formula.rpartition("=")
    if not sign or "," in formula or plain_number(right) is None:
        return formula
    return formula if _UNKNOWN.search(left) and "=" not in left else right.strip()


MAX_LINE_CHARS = 2_000
"""A longer line is read up to here."""

_DIGIT = re.compile("[0-9]")
_MATH_NAMES = "|".join(sorted(NAMES | {"sec", "infty", "inf"} - {"sum", "lim"}, key=len, reverse=True))
_SMALL = "is of to in or so as we he it at by if on an be do no my us up am pm cm mm km kg ft lb oz hr"
_PROSE = re.compile(
    rf"(?<![A-Za-z\\])(?!(?:{_MATH_NAMES})(?![A-Za-z]))(?:[A-Za-z][A-Za-z']{{2,}}"
    rf"|(?:{_SMALL.replace(' ', '|')})(?![A-Za-z])|(?:[aI]|A(?= [a-z]))(?= [A-Za-z]))"
    r"|[^\W\d_A-Za-z\u00b5\u0370-\u03ff]+",
    re.IGNORECASE,
)
_HIDDEN = re.compile(r"\\begin\{[a-z]*matrix\}[^$]*\\end\{[a-z]*matrix\}|\\[A-Za-z]+\s*\{[^{}]*\}")
_BRACKETED = re.compile(
    r"[(\[](?:[^()\[\]A-Za-z\\]|\\[A-Za-z]+|\\[^A-Za-z]|[A-Za-z](?![A-Za-z]))*[)\]]"
    r"|\\\{(?:[^{}A-Za-z\\]|[A-Za-z](?![A-Za-z]))*\\\}"
)
_SPLIT = re.compile(r",(?![0-9]{3}(?![0-9])|\\!)|;|:(?=\s)|[.](?=\s)|\s[-\u2013\u2014]{1,2}\s(?=[A-Za-z]{2})|\n")
_OPERATION = re.compile(r"[A-Za-z0-9)]\s*[-+*/^=]\s*[A-Za-z0-9(]")
_TRIMMED = " \t\r\n,;:*_`"
_OPEN_AT_END = re.compile(r"[\s(]+$")

_FILLER = re.compile(
    r"(?:\W|\b(?:about|approximately|approx|around|roughly|nearly|exactly|precisely|just|simply|only|indeed"
    r"|clearly|thus|"
    r"therefore|hence|so|then|now|still|also|again|equal to|equals|given by|as follows|in fact|definitely"
    r"|probably|likely|"
    r"positive|option|choice|either|maybe|perhaps|possibly|that|it is|there are|there is|all|a total of|"
    r"a)\b)*",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"[A-Z][a-z]{2,}(?: [A-Z]?[a-z]+)? #?[0-9]{1,4}(?:st|nd|rd|th)?\.?")  # Day 5, June 17
_WORD_WITH_REASON = re.compile(r"((?i:yes|no|true|false|even|odd)|[A-Z][a-z]{2,}),? (?:because|since|as|for)\b")
_NEGATIVE = re.compile(r"(?:negative|minus)\s+(?=[0-9$\\])", re.IGNORECASE)
_JOINED = re.compile(
    r"\s*\(?\s*(?:[,;]\s*(?:(?:and|or|and/or)\b)?|(?:and|or|and/or)\b)(?:\s*\b(?:maybe|perhaps|possibly|also"
    r"|else|even|then|either)\b,?)*\s*"
)
_ASIDE = re.compile(r"\s*\([^()0-9$\\]*\)")
_QUANTITY = r"(?:\\?\$|[\u20ac\u00a3\u00a5])?[0-9][0-9.,]*%?(?: (?!x )[A-Za-z]+){0,2}"
_CALCULATION = re.compile(rf"{_QUANTITY}(?:\s*[-+*/x\u00d7\u00f7\u00b7]\s*{_QUANTITY})+\s*=")
_COUNTED = re.compile(r"(?: [A-Za-z-]+){1,2},? (?:and|or) ")
_UNIT = (
    "hours?|hrs?|h|minutes?|mins?|seconds?|days?|weeks?|months?|years?|feet|foot|ft|inch(?:es)?|yards?"
    "|miles?|pounds?|lbs?|"
)
_COMPOUND = re.compile(rf"\s?(?:{_UNIT}ounces?|oz|kg|g|m|cm|km|dollars?|degrees?)\s[0-9][0-9.]* ?[A-Za-z]")
_TWO_WORDS_AT_MOST = re.compile(r"\W*(?:[A-Za-z'%]+\W*){0,2}")
_CHANGED = re.compile(
    rf"\s?(?:(?:{'|'.join(sorted(ARITHMETIC))})\b|(?:plus|minus|times)\s+[^\W_]{{1,2}}(?![A-Za-z])|times\s+[$\\]"
    r"|(?:more|less|fewer|greater|higher|lower)\s+than\b|(?:percent|%)\s+(?:of|more|less)\b)",
    re.IGNORECASE,
)
_BOUND = re.compile(
    r"\b(?:at least|at most|(?:more|less|fewer|greater|higher|lower|larger|smaller) than|no more than|up to"
    r"|between|under|"
    r"over|above|below|not|never|isn't|half of|twice|double|root of)\s*$",
    re.IGNORECASE,
)
_RANGE = re.compile(r"\b(?:between|from)\b", re.IGNORECASE)
_IN_PASSING = re.compile(
    r"(?:\b(?:of|for|after|in|from|with|by|at|on|per|within|during|among|every|before|than|through|into|when|if|where|"
    r"since|because|while|until|against|across|instead of|out of|without|except|the|these|those|all|his|her"
    r"|their|its|both|"
    r"each of|not|option|step|part|case|problem|number)|\bto (?!be\b)[a-z]+(?: the| all)?)\s*$",
    re.IGNORECASE,
)
_COMPARED = re.compile(r"[^.,;]{0,30}\bthan\b|\s*(?:st|nd|rd|th)\b", re.IGNORECASE)
_SUBORDINATE = re.compile(r",?\s(?:because|since|whereas|given that|so that|which|where)\b", re.IGNORECASE)
_VERB = re.compile(
    r"\s*(?:is|are|was|were|equals?|must|should|will|can|has|have|comes|turns|satisfies|takes)\b|\s*=", re.I
)

_LETTER = (
    r"[*_]{0,3}(?:\((?P<a>[A-J])\)|(?P<b>[A-J])(?=[.:)]|[*_]|\s*$|,?\s(?:because|since|as|is|which|for|due|given)\b))"
)
_CHOICE = re.compile(rf"(?:(?:the |correct |only )*(?:option|choice|alternative)s?\s+)?{_LETTER}", re.IGNORECASE)
_ANOTHER_CHOICE = re.compile(r"[.:)*_\s]*(?:,|/|\bor\b|\band\b)\s*\(?[A-J](?![A-Za-z])")
_REASON = re.compile(r",?\s(?:because|since)\b.*", re.DOTALL)


@dataclass(frozen=True)
class _Value:
    start: int
    end: int
    is_strong: bool  # holds a digit or a command; a formula of letters alone may be what the sentence speaks of


def value_of(line: str, at_end: bool) -> str | None:
    """The answer that a marked line gives; `at_end`: nothing follows the line, so that a word may be the answer."""
    line = line[:MAX_LINE_CHARS].strip(" \t\r*_`").rstrip("!")  # a factorial only between marks of a formula
    line = _NEGATIVE.sub("-", line)
    if plain_number(line) is not None:
        return line.strip(WRAPPING)
    if _NUMBERED.fullmatch(line):
        return line.rstrip(".")
    word = _WORD_WITH_REASON.match(line)
    if word:
        return word[1]
    choice = _choice(line)
    if choice is not None:
        return choice
    if not FORMULA.search(line) and "\\" not in line and not _DIGIT.search(line):
        return line.rstrip(".") if at_end else None
    masked = _masked(line)
    values = _values(line, masked)
    if not values or not _PROSE.search(masked):
        return _whole(line, values) if values and FORMULA.search(line) else line
    return _in_sentence(line, values)


def is_formula_alone(line: str) -> bool:
    """Whether no word of prose stands in the line."""
    return not _PROSE.search(_masked(line))


def _choice(line: str) -> str | None:
    """An option's letter with what follows it, up to the reason; the line where it names another option too."""
    found = _CHOICE.match(line)
    letter = found["a"] or found["b"] if found else None
    if found is None or letter is None or not letter.isupper():
        return None
    if _ANOTHER_CHOICE.match(line, found.end()):
        return line
    return (
        _REASON.sub("", line[found.start("a") - 1 if found["a"] else found.start("b") :]).rstrip(" .*_")
        if (found["a"] or line[found.end() : found.end() + 1] in (".", ":", ")"))
        else letter
    )


def _masked(line: str) -> str:
    """The line with formulas and arguments of commands as signs that are neither words nor separators."""
    for pattern in (FORMULA, _HIDDEN, _BRACKETED):
        line = pattern.sub(lambda found: "\x01" * len(found[0]), line)
    return line


def _values(line: str, masked: str) -> list[_Value]:
    """The stretches between words and separators that hold a value, in their order."""
    cuts = sorted(
        [
            *((m.start(), m.end()) for m in _PROSE.finditer(masked)),
            *((m.start(), m.end()) for m in _SPLIT.finditer(masked)),
        ]
    )
    values, at = [], 0
    for start, end in [*cuts, (len(line), len(line))]:
        piece, hidden = line[at:start], masked[at:start]
        if start >= at and (_DIGIT.search(piece) or "\\" in piece or "\x01" in hidden or _OPERATION.search(piece)):
            left = at + len(piece) - len(piece.lstrip(_TRIMMED))
            right = at + len(_OPEN_AT_END.sub("", piece.rstrip(_TRIMMED)))
            values.append(
                _Value(left, right, bool(_DIGIT.search(piece) or "\\" in piece.replace("\\(", "").replace("\\)", "")))
            )
        at = max(at, end)
    return values


def _in_sentence(line: str, values: list[_Value]) -> str | None:
    first = values[0]
    leads = bool(_FILLER.fullmatch(line, 0, first.start))
    if leads and not first.is_strong and len(values) > 1 and _VERB.match(line, first.end):
        leads = False  # "$n$ is 45"
    calculated = _calculated(line, first) if leads else None
    if calculated is not None:
        return calculated
    if leads:
        last = _joined_behind(line, values)
        chosen = values[: last + 1]
    else:
        chosen = _said(line, values)
    if _changed(line, chosen, leads):
        return line
    return _whole(line, chosen) if len(chosen) > 1 else _text(line, chosen[0])


def _calculated(line: str, first: _Value) -> str | None:
    """36 of "18 eggs x $2 = $36": what follows the last equals sign, where the line begins with a calculation."""
    if not _CALCULATION.match(line, first.start):
        return None
    reason = _SUBORDINATE.search(line, first.start)
    right = (line[: reason.start()] if reason else line).rpartition("=")[2].strip(_TRIMMED)
    return value_of(right, at_end=False) if right and "=" not in right else None


def _joined_behind(line: str, values: list[_Value]) -> int:
    """Index of the last value that "and", "or" or a comma joins to the first."""
    last, is_or = 0, False
    for index, value in enumerate(values[1:], 1):
        between = _ASIDE.sub("", line[values[index - 1].end : value.start])
        if not _JOINED.fullmatch(between):
            break
        last, is_or = index, is_or or bool(re.search(r"\bor\b", between))
    return last if is_or or _TWO_WORDS_AT_MOST.fullmatch(line, values[last].end) else 0


def _said(line: str, values: list[_Value]) -> list[_Value]:
    """The last value of a sentence that is not said in passing, with those joined in front of it."""
    cut = next((m.start() for m in _SUBORDINATE.finditer(line) if m.start() >= values[0].end), len(line))
    said = [value for value in values if value.start < cut] or values
    direct = [
        value for value in said if not _IN_PASSING.search(line, 0, value.start) and not _COMPARED.match(line, value.end)
    ]
    strong = [value for value in direct if value.is_strong]
    fallback = [value for value in said if value.is_strong] or said
    chosen = [(strong or (direct if not any(v.is_strong for v in said) else []) or fallback)[-1]]
    for value in reversed(values[: values.index(chosen[0])]):
        if not _JOINED.fullmatch(line, value.end, chosen[0].start) or _IN_PASSING.search(line, 0, value.start):
            break
        chosen.insert(0, value)
    return chosen


def _changed(line: str, chosen: list[_Value], leads: bool) -> bool:
    """Whether the words around the values make another answer of them."""
    first, last = chosen[0], chosen[-1]
    if any(_CHANGED.match(line, value.end) or _COMPOUND.match(line, value.end) for value in chosen) or _BOUND.search(
        line, 0, first.start
    ):
        return True
    if re.search(r"\b(?:and|to)\s*$", line[: last.start]) and _RANGE.search(line, 0, last.start):
        return True
    rest = _COUNTED.match(line, last.end)
    return bool(
        leads
        and rest
        and _DIGIT.match(line, rest.end())
        and _TWO_WORDS_AT_MOST.fullmatch(re.sub(r"^[0-9.,]+", "", line[rest.end() :]))
    )


def _whole(line: str, values: list[_Value]) -> str:
    """Several values as a list."""
    parts = [FORMULA.sub(lambda found: content(found, whole=True), line[value.start : value.end]) for value in values]
    return ", ".join(dict.fromkeys(_closed(part.strip()) for part in parts)) if values else line


def _closed(text: str) -> str:
    """Without a parenthesis at the end that opened in front of the value: "(or 9)"."""
    is_open = text.endswith(")") and text.count(")") > text.count("(") and "[" not in text
    return text[:-1] if is_open else text


def _text(line: str, value: _Value) -> str:
    piece = line[value.start : value.end].strip(_TRIMMED)
    found = FORMULA.fullmatch(piece)
    if found:
        return content(found)
    if FORMULA.search(piece):
        return FORMULA.sub(lambda formula: content(formula, whole=True), piece)
    piece = _closed(piece.removesuffix(" (").rstrip(" -").rstrip())
    return right_side(piece)
