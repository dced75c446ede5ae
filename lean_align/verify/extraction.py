"""Where the final answer of a completion stands: the rules 1 to 5 of the package, each a function text -> answer.

Every pattern is linear in the text: a model that repeats one token up to its limit must not cost seconds.
"""

from __future__ import annotations

import re

from lean_align.verify.numbers import CURRENCY, DIGITS, WRAPPING, plain_number
from lean_align.verify.units import ARITHMETIC

TAIL_CHARS = 20_000
"""Characters at the end of a completion in which the final answer is looked for."""

_BOX_OR_BRACE = re.compile(
    r"(?P<box>\\(?:boxed|fbox|framebox)\s*(?:\[[^\[\]{}]{0,20}\]\s*){0,2}\{)"
    r"|\\boxed\s{0,3}(?P<bare>-?[0-9][^\s{}\\$]*)|\\[{}]|[{}]"  # "\\boxed 34" without braces, digits only
)
_A_LINE = re.compile(r"[*_ ]{0,4}A[*_ ]{0,4}:[*_ ]{0,4}(.*)")
_OPTION_B = re.compile(r"^[*_ (]{0,5}B[*_ ]{0,4}[:.)]", re.MULTILINE)
_ANSWER_IS = re.compile(r"\banswers?[\s*_]{0,9}(?:\bis\b|\bare\b|:|=)[\s*_:]*", re.IGNORECASE)
_HEADING = re.compile(r"[A-Za-z]{3,} ")
_PROSE = re.compile(r"[A-Za-z]{3,}")
_SENTENCE_END = re.compile(r"[.!?](?=\s|$)")
# Behind the first number of a marked line: a word that changes its value, or a second count.
_CHANGED = re.compile(rf" ?(?:{'|'.join(sorted(ARITHMETIC))})\b", re.IGNORECASE)
_SECOND_COUNT = re.compile(r"(?: [A-Za-z]+){0,2} (?:and|or) [0-9][0-9.,]*(?: [A-Za-z]+){0,2}\.?")
_DIGIT = re.compile("[0-9]")

# Each stops at its own opening mark, so that a run of opening marks is not scanned again from every one of them.
# Dollar signs hold a formula where no space touches them from inside and no digit follows ("$5 and $6" is money), or
# where a LaTeX command stands between them.
_FORMULA_TEXT = (
    r"\$\$([^$]+)\$\$|\$(?=\S)([^$\n]*[^\s$])\$(?![0-9])|\$([^$\n\\]*\\[A-Za-z][^$\n]*)\$"
    r"|\\\(((?:[^\\]|\\[^()])*)\\\)|\\\[((?:[^\\]|\\[^\[\]])*)\\\]"
)
_FRACTION_TEXT = r"(?:[0-9]{1,9} )?[0-9]{1,30} ?/ ?[0-9]{1,30}(?![0-9])"
_NUMBER_TEXT = (
    r"(?:(?<![0-9A-Za-z)}\]])-)?(?:"
    r"[0-9]{0,9}\\[dt]?frac\{[^{}]*\}\{[^{}]*\}"
    rf"|(?:{CURRENCY}-?)?(?<![A-Za-z0-9_])(?:{_FRACTION_TEXT}|{DIGITS}))"
)
_FORMULA = re.compile(_FORMULA_TEXT)
_FORMULA_OR_NUMBER = re.compile(f"{_FORMULA_TEXT}|{_NUMBER_TEXT}")


def find_answer(completion: str) -> tuple[str | None, bool]:
    """The final answer as written, and whether a mark (rules 1 to 4) led to it.  None: no rule found one."""
    text = completion[-TAIL_CHARS:].replace("\u2212", "-")
    for rule in (_last_boxed, _after_hashes, _last_line_of_a, _after_answer_is):
        found = rule(text)
        if found:
            return found, True
    return _last_number(text), False


def _last_boxed(text: str) -> str | None:
    """Content of the balanced, not empty box that opens last."""
    open_braces: list[int | None] = []  # where a box's content starts; None for any other brace
    start, content = -1, None
    for token in _BOX_OR_BRACE.finditer(text) if "box" in text else ():
        if token["bare"]:
            start, content = token.start("bare"), token["bare"].rstrip(".,;:")
        elif token[0] == "{":
            open_braces.append(None)
        elif token["box"]:
            open_braces.append(token.end())
        elif token[0] == "}" and open_braces:
            opened = open_braces.pop()
            inside = text[opened : token.start()].strip() if opened is not None and opened > start else ""
            if inside and opened is not None:
                start, content = opened, inside
    return content


def _after_hashes(text: str) -> str | None:
    _, mark, after = text.rpartition("####")
    line, _, rest = after.strip().partition("\n")
    return _shorten(line, at_end=not rest) if mark and not _HEADING.match(line) else None


def _last_line_of_a(text: str) -> str | None:
    """What follows "A:" at the start of the last line, but where "B:", "B)" or "B." makes it one of several options."""
    line = _A_LINE.fullmatch(text.rstrip().rpartition("\n")[2])
    if line is None or _ANSWER_IS.search(line[0]) or _OPTION_B.search(text):
        return None
    return _shorten(line[1], at_end=True)


def _after_answer_is(text: str) -> str | None:
    starts = [mark.end() for mark in _ANSWER_IS.finditer(text)]
    if not starts:
        return None
    after = text[starts[-1] :]
    formula = _FORMULA.match(after)
    if formula:
        return _content(formula)
    line = after.partition("\n")[0]
    sentence_end = _SENTENCE_END.search(line)
    sentence = line[: sentence_end.start()] if sentence_end else line
    return _shorten(sentence, at_end=not after[len(sentence) :].strip(".!? \n*_"))


def _shorten(line: str, at_end: bool) -> str | None:
    """All of a marked line where it is an answer, else the first formula or number in its prose."""
    line = line.strip(" \t\r*_`").rstrip("!")  # a factorial only between marks of a formula
    if plain_number(line) is not None:
        return line.strip(WRAPPING)
    formula = _FORMULA.search(line)
    if formula is None and "\\" not in line and not _DIGIT.search(line):
        return line.rstrip(".") if at_end else None  # words are an answer only where the text ends with them
    if formula is None and ("\\" in line or not _PROSE.search(line)):
        return line
    first = _FORMULA_OR_NUMBER.search(line if formula else line.rpartition("=")[2])
    if first and formula is None and (_CHANGED.match(first.string, first.end()) or _is_one_of_two(first)):
        return line
    return _content(first) if first else None


def _is_one_of_two(first: re.Match[str]) -> bool:
    """3 of "3 apples and 2 pears"."""
    return not first.string[: first.start()].strip() and bool(_SECOND_COUNT.fullmatch(first.string, first.end()))


def _last_number(text: str) -> str | None:
    found = None
    for token in _FORMULA_OR_NUMBER.finditer(text):
        content = _content(token)
        if content and (found is None or _DIGIT.search(content) or not _DIGIT.search(found)):
            found = content
    return found


def _content(token: re.Match[str]) -> str:
    """A number as it stands; of a formula, the number after its last equals sign, else all of it."""
    inside = next((group for group in token.groups() if group is not None), token[0]).strip()
    right = inside.rpartition("=")[2].strip()
    return right if "," not in inside and plain_number(right) is not None else inside
