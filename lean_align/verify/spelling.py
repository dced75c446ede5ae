r"""One spelling of the formulas that are compared, gold and answer alike, before tokens or math-verify read them.

1. Gone: bold, underline and colour around a value; the space that `\\[4pt]` puts between rows.
2. Braces where LaTeX may leave them out: `\sqrt[3]5`; a repeating decimal as a bar: `0.\dot{6}` and 0.(6).
3. As a program or a keyboard writes it: sqrt(7), 2*pi, x**2, <=, infinity.

Every pattern is linear in the text.

`plain_signs` puts the signs of Unicode that stand for digits, punctuation and small formulas into ASCII and LaTeX:
full-width digits, letters and punctuation as Chinese and Japanese texts have them; raised and lowered digits (10⁵ is
10^{5}); ¾ is \frac{3}{4}; the minus sign and the slash of fractions; a bar or dot above a digit; ⟨ and ⟩.
"""

from __future__ import annotations

import re
import unicodedata

from lean_align.verify.numbers import NAMES

_RAISED, _LOWERED = "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻", "₀₁₂₃₄₅₆₇₈₉"
_PLAIN = "0123456789+-"
_TO_PLAIN = str.maketrans(_RAISED + _LOWERED, _PLAIN + _PLAIN[:10])
_SMALL_FRACTIONS = "¼½¾⅐⅑⅒⅓⅔⅕⅖⅗⅘⅙⅚⅛⅜⅝⅞"
_FRACTIONS = {
    sign: "\\frac{{{}}}{{{}}}".format(*unicodedata.normalize("NFKC", sign).split("\u2044")) for sign in _SMALL_FRACTIONS
}
_CHARACTERS = str.maketrans(
    {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}
    | _FRACTIONS
    | {
        "\u3000": " ",
        "\u202f": " ",
        "\u2009": " ",
        "、": ",",
        "。": ". ",
        "｡": ". ",
        "\u2212": "-",
        "\ufe63": "-",
        "\u2044": "/",
        "\u2215": "/",
        "⟨": r"\langle ",
        "⟩": r"\rangle ",
        "〈": r"\langle ",
        "〉": r"\rangle ",
        "℃": "°C",
        "℉": "°F",
        "º": "°",
        "￥": "¥",
        "￡": "£",
        "\u2019": "'",
        "\u2018": "'",
        "\u211d": r"\mathbb{R}",
        "\u2124": r"\mathbb{Z}",
        "∅": r"\emptyset ",
    }
)
_RUNS = re.compile(f"([{_RAISED}]+)|([{_LOWERED}]+)")
_OVER_A_DIGIT = re.compile("([0-9])[\u0304\u0305]")
_DOT_OVER_A_DIGIT = re.compile("([0-9])\u0307")
_ROOT = re.compile(r"([√∛])\s*(?:([0-9]+(?:\.[0-9]+)?)|([A-Za-z])(?![A-Za-z]))")


def plain_signs(text: str) -> str:
    """The text with these signs replaced; any other character stays as it is."""
    if text.isascii():
        return text
    text = _RUNS.sub(_run, text.translate(_CHARACTERS))
    text = _OVER_A_DIGIT.sub(r"\\overline{\1}", _DOT_OVER_A_DIGIT.sub(r"\\dot{\1}", text))
    return _ROOT.sub(_root, text)


def _run(found: re.Match[str]) -> str:
    return f"{'^' if found[1] else '_'}{{{found[0].translate(_TO_PLAIN)}}}"


def _root(found: re.Match[str]) -> str:
    return f"\\sqrt{'[3]' if found[1] == '∛' else ''}{{{found[2] or found[3]}}}"


_ROW_SPACE = re.compile(r"\\\\\s*\[\s*-?[0-9.]{1,6}\s*(?:pt|em|ex|mm|cm|in|baselineskip)\s*\]")
_STYLE = re.compile(
    r"\\(?:underline|uline|mathbf|boldsymbol|bm|textbf|textit|emph|mathit|mathsf|textsf|mathtt|texttt|mathnormal|textrm"
    r"|mathrm|text|mbox)\s*\{\s*(-?[0-9][0-9.,/\s]*|\\[dt]?frac\s*\{[^{}]*\}\s*\{[^{}]*\})\s*\}"
    r"|\\(?:underline|uline|mathstrut)\s*\{([^{}]*)\}"
)
_COLOUR = re.compile(r"\\(?:textcolor|color)\s*\{[^{}]*\}\s*\{([^{}]*)\}|\\color\s*\{[^{}]*\}")
_SWITCH = re.compile(r"\\(?:bf|rm|it|bfseries|large|Large|huge|Huge|displaystyle|limits)(?![A-Za-z])\s*")
_BARE_ROOT = re.compile(r"(\\sqrt\s*(?:\[[^\[\]{}]*\])?)\s*([0-9A-Za-z])")
_DOTS = re.compile(r"\\dot\s*\{?([0-9])\}?(?:([0-9]*)\\dot\s*\{?([0-9])\}?)?")
_IN_PARENTHESES = re.compile(r"([0-9]\.[0-9]*)\(([0-9]{1,20})\)")
_ANGLES = re.compile(r"<([^<>=]*,[^<>=]*)>$")
_TRANSPOSED = re.compile(r"^([(\[][^()\[\]]*[)\]])\s*\^\s*(?:T|\{\s*(?:T|\\top|\\mathrm\{T\})\s*\}|\\top|\\intercal)$")
_RATIO = re.compile(r"^\s*([0-9]{1,9})\s*(?:to|\\text\s*\{\s*to\s*\})\s*([0-9]{1,9})\s*$")
_OPERATORS = (("**", "^"), ("<=", r"\le "), (">=", r"\ge "), ("!=", r"\ne "), ("=<", r"\le "))

_GREEK = "pi theta alpha beta gamma delta lambda mu omega phi rho sigma tau infinity sqrt cbrt".split()
_FUNCTIONS = "sin cos tan cot csc sec arcsin arccos arctan sinh cosh tanh log ln exp".split()
_MATH_WORD = re.compile(
    rf"(?<![A-Za-z\\])({'|'.join([*_FUNCTIONS, *_GREEK])}|inf|oo)(?![A-Za-z])|(?<=[0-9])\s?(pi)(?![A-Za-z])"
)
_PLAIN_ROOT = re.compile(r"(?<![A-Za-z\\])sqrt\s?([0-9]+)")
_ROOT_OPENS = re.compile(r"\\sqrt\s*(?:\[3\])?\s*\(")
_WORD = re.compile(r"\\[A-Za-z]+|[A-Za-z]{3,}")
_TEXT = re.compile(r"\\(?:text|mbox|textrm|mathrm)\s*\{")
_SPELLED = {"infinity": r"\infty ", "inf": r"\infty ", "oo": r"\infty ", "sqrt": r"\sqrt", "cbrt": r"\sqrt[3]"}


def spelled(text: str) -> str:
    """The text in one spelling."""
    if "\\" in text:
        text = _COLOUR.sub(lambda found: found[1] or "", _ROW_SPACE.sub(r"\\\\", text))
        text = _STYLE.sub(_inside, _STYLE.sub(_inside, text))  # bold inside underlined
        text = _SWITCH.sub("", text)
    for sign, command in _OPERATORS:
        if sign in text:
            text = text.replace(sign, command)
    if text[:1] == "<":
        text = _ANGLES.sub(r"\\langle \1\\rangle ", text)
    if text[-1:] in ("T", "}", "p", "l") and "^" in text:
        text = _TRANSPOSED.sub(r"\1", text)
    text = _RATIO.sub(r"\1:\2", text)
    text = _repeating(text)
    if is_formula(text):
        text = _root_arguments(_MATH_WORD.sub(_command, _PLAIN_ROOT.sub(r"\\sqrt{\1}", text)))
    return _BARE_ROOT.sub(r"\1{\2}", text) if "\\sqrt" in text else text


def is_formula(text: str) -> bool:
    """Whether every word of three letters or more is a command, or the name of a function or constant."""
    return not _TEXT.search(text) and all(
        word[0][0] == "\\" or word[0] in NAMES or word[0] in ("inf", "sec") for word in _WORD.finditer(text)
    )


def _inside(found: re.Match[str]) -> str:
    inside, before = (
        (found[1] or found[2] or "").strip(),
        found.string[max(found.start() - 2, 0) : found.start()].rstrip()[-1:],
    )
    return f"{{{inside}}}" if before.isdigit() or before in ("^", "_", "}") else inside


def _repeating(text: str) -> str:
    if "\\dot" in text:
        text = _DOTS.sub(lambda d: f"\\overline{{{d[1]}{d[2] or ''}{d[3] or ''}}}", text)
    return _IN_PARENTHESES.sub(r"\1\\overline{\2}", text) if "(" in text else text


def _command(found: re.Match[str]) -> str:
    name = found[1] or found[2]
    return _SPELLED.get(name, f"\\{name} ")


def _root_arguments(text: str) -> str:
    r"""`\sqrt{x + 1}` of `\sqrt(x + 1)`."""
    starts = {root.end() - 1 for root in _ROOT_OPENS.finditer(text)}
    pieces, opened = list(text), list[int]()
    for at, character in enumerate(text if starts else ""):
        if character == "(":
            opened.append(at)
        elif character == ")" and opened and opened[-1] in starts:
            pieces[opened.pop()], pieces[at] = "{", "}"
        elif character == ")" and opened:
            opened.pop()
    return "".join(pieces)
