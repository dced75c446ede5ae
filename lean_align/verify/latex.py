r"""LaTeX as tokens, with everything gone that only changes how a formula looks: the normalised text of an answer.

1. Gone: white space, `\,` `\!` `\;` `\quad`, `\left` and `\right`, `$`, `\(`, `\[`, `^\circ`, closing punctuation,
   marks between groups of three digits, a unit of words at the end (`4\sqrt{7}\text{ cm}`).
2. One spelling: `\dfrac` and `\tfrac` are `\frac`; `\leq` is `\le`; `\times`, `\cdot` and `*` are `*`; the signs of
   Unicode are their commands; "and" and "or" between values are commas; pmatrix and bmatrix are matrix.
3. `\text{...}` (`\mbox`, `\mathrm`, `\textbf` ...) is one token that starts with `"`; of one letter, that letter.

Every pattern is linear in the text.
"""

from __future__ import annotations

import re

from lean_align.verify.numbers import is_product, takes_back
from lean_align.verify.sums import NotExactError

MAX_CHARS = 1_000
"""A longer answer has no normal form here."""

UNCLEAR_COMMA = "{,}"
"""The token of a comma that may group thousands or separate: the one of [12,500], but not of [12, 500]."""

Tokens = tuple[str, ...]
OPENING, CLOSING = ("(", "[", r"\{", "{"), (")", "]", r"\}", "}")

_SIGNS = str.maketrans(
    {
        "\u2212": "-",
        "\u2013": "-",
        "\u00d7": "*",
        "\u00b7": "*",
        "\u22c5": "*",
        "\u00a0": " ",
        "\u03c0": r"\pi ",
        "\u221a": r"\sqrt ",
        "\u221e": r"\infty ",
        "\u00b1": r"\pm ",
        "\u2264": r"\le ",
        "\u2265": r"\ge ",
        "\u222a": r"\cup ",
        "\u2208": r"\in ",
        "\u2205": r"\emptyset ",
        "\u00b0": r"^\circ ",
        "\u00b2": "^2",
        "\u00b3": "^3",
    }
)
_SPELLINGS = {
    r"\dfrac": r"\frac", r"\tfrac": r"\frac", r"\cfrac": r"\frac", r"\leq": r"\le", r"\geq": r"\ge",
    r"\leqslant": r"\le", r"\geqslant": r"\ge", r"\lt": "<", r"\gt": ">", r"\cdot": "*", r"\times": "*",
    r"\div": "/", r"\varnothing": r"\emptyset", r"\lbrace": r"\{", r"\rbrace": r"\}", r"\lbrack": "[",
    r"\rbrack": "]", r"\bar": r"\overline", r"\dots": r"\ldots", r"\langle": "(", r"\rangle": ")",
    r"\neq": r"\ne", r"\vert": "|", r"\colon": ":", r"\cdots": r"\ldots",
    ";": ",", '"and': ",", '"or': ",", "and": ",", "or": ",",
}  # fmt: skip
_DIGIT_GROUP = re.compile(r"(?<=[0-9])(?:\{,\}|,?\\[!,]\s*,?(?:\\!)?|,(?:\\!)+)(?=[0-9]{3}(?![0-9]))")
_LEADING_COMMAS = re.compile(r"(?:^|=\s*)-?[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9,])")  # 12,500\pi, but not [12,500]
_UNCLEAR_COMMA = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")
_LOOKS = re.compile(
    r"(\\\\)|\\(?:left|right|[bB]igg?[lr]?)(?![A-Za-z])\s*\.?|\\(?:displaystyle|textstyle|quad|qquad)(?![A-Za-z])"
    r"|\^\s*(?:\{\s*\\circ\s*\}|\\circ(?![A-Za-z]))|\\[,!;: $()\[\]]|[$~]|[pb](?=matrix\})"
)
_TOKEN = re.compile(
    r"\\(?:text|mbox|mathrm|textbf|textit|mathbf|textrm|operatorname)\s*\{([^{}]*)\}"
    r"|\{,\}|\\\\|\\[A-Za-z]+|\\.|[0-9]+(?:\.[0-9]+)?|\.[0-9]+|[A-Za-z]+|\S",
    re.DOTALL,
)
_UNIT = re.compile(r'"[A-Za-z][A-Za-z ./-]*|[A-Za-z]{3,}')
_UNIT_LETTERS = "mgshlLNJWVAK"
_ENDS_A_VALUE = re.compile(r"[0-9]$|[)}]$|^\\pi$")


def tokens(text: str, keep_unit: bool = False) -> Tokens | None:
    """The normalised tokens of an answer; None where it is longer than `MAX_CHARS`."""
    if len(text) > MAX_CHARS:
        return None
    text = _LEADING_COMMAS.sub(lambda number: number[0].replace(",", ""), text.strip(" *_`\n$"))
    text = _UNCLEAR_COMMA.sub(UNCLEAR_COMMA, _DIGIT_GROUP.sub("", text.translate(_SIGNS)))
    bare = _LOOKS.sub(r" \1 ", text)
    found: list[str] = []
    for match in _TOKEN.finditer(bare):
        token = _token(match)
        if token != "," or found[-1:] != [","]:  # "17, 48, and 85" holds two in a row
            found.append(token)
    while found and found[-1] in (",", ".", ":"):
        found.pop()
    kept = found if keep_unit else _without_unit(found)
    return tuple(token[1:] if token[0] == '"' and len(token) == 2 else token for token in kept)


def _token(match: re.Match[str]) -> str:
    if match[1] is None:
        return _SPELLINGS.get(match[0], match[0])
    inside = " ".join(match[1].split()).rstrip(".")
    return inside if len(inside) == 1 and inside not in _UNIT_LETTERS else _SPELLINGS.get(f'"{inside}', f'"{inside}')


def _without_unit(found: list[str]) -> list[str]:
    end = len(found) - 2 if found[-2:-1] == ["^"] and found[-1] in ("2", "3") else len(found)
    if end < 2 or not _UNIT.fullmatch(found[end - 1]) or not _ENDS_A_VALUE.search(found[end - 2]):
        return found
    words = found[end - 1]
    return found if takes_back(words) or (words[0] != '"' and is_product(words)) else found[: end - 1]


def split(answer: Tokens, *separators: str) -> tuple[Tokens, ...]:
    """Parts between separators that stand in no bracket.

    Raises
    ------
    NotExactError : the brackets are not closed.
    """
    parts: list[Tokens] = []
    depth = start = 0
    for index, token in enumerate(answer):
        depth += (token in OPENING) - (token in CLOSING)
        if token in separators and depth == 0:
            parts.append(answer[start:index])
            start = index + 1
    if depth:
        raise NotExactError
    return (*parts, answer[start:])


def closes_at_end(value: Tokens) -> bool:
    """Whether the bracket with which the answer begins closes with its last token."""
    depth = 0
    for index, token in enumerate(value):
        depth += (token in OPENING) - (token in CLOSING)
        if depth == 0:
            return index == len(value) - 1 and token in CLOSING
    return False
