r"""Plain numbers as exact fractions: text -> Fraction, or None for anything else.

1. Wrapping goes: white space, `$`, `**`, `\(...\)`, `\text{...}`, `^\circ`, LaTeX's thin spaces, a closing period.
2. What is left has to be, from end to end, a sign, a currency sign, one number and a unit of words (units.py).
3. The number is an integer or decimal, with or without thousands commas or spaces in groups of three; a fraction a/b or
   `\frac{a}{b}`; or a mixed number: 2 1/2, 2 and a half.

Not plain, on purpose: 5x, 5m, 2\pi, 1,2 (a list), 7 and 8, 12:30, 1e9, 5! (a factorial), 3.14... (an ellipsis),
\frac{1}{2}3 (a product), 5 squared.
"""

from __future__ import annotations

import re
from fractions import Fraction

from lean_align.verify.units import is_unit, takes_back

MAX_NUMBER_CHARS = 1_000
"""A longer text is not plain; it also keeps int() below Python's limit of 4,300 digits."""

_CODES = "Rs INR USD EUR GBP CNY RMB AUD CAD JPY".replace(" ", "|")
CURRENCY = rf"(?:(?:US|AU|CA|HK|NZ|[ACS])?\\?[$]|[€£¥₹₩₽]|(?<![A-Za-z])(?:{_CODES})(?![A-Za-z])\.?\s?)"
DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![A-Za-z0-9])\.[0-9]+"
WRAPPING = " \t\r\n*_`$"

ELLIPSIS = re.compile(r"\.\s?\.|…|\\[lc]?dots(?![A-Za-z])")
"""What makes another number of the digits in front of it: 0.333... is no 0.333."""

_POWER = r"(?: ?\^ ?(?:-?[1-3]|\{-?[1-3]\})|[²³])"
_UNITS = rf"(?P<gap> ?)(?P<unit>[A-Za-z]+(?:[ /-][A-Za-z]+)*|[\u4e00-\u9fff]{{1,8}}|[¢Ω])\.?(?P<power>{_POWER})?"
_PLAIN = re.compile(
    rf"(?:{CURRENCY} ?)?(?P<sign>[-+]?) ?(?:{CURRENCY} ?)?"
    rf"(?:(?:(?P<whole>[0-9]+) )?(?P<top>{DIGITS}) ?/ ?(?P<bottom>{DIGITS})|(?P<value>{DIGITS})\.?)"
    rf"(?: ?(?:%|percent\b))?(?: ?{CURRENCY})?(?:{_UNITS}| ?)"
)
_SPACE = r"(?:\s|\\[,;:! ]|~)*"
_ATOM = (
    r"(?:\\mu\s*|\\Omega(?![A-Za-z])|(?:\\mu\s*)?\\(?:text|mathrm|mbox|textrm|operatorname)\s*\{[^{}0-9]{1,40}\})"
    rf"(?:{_SPACE}\^{_SPACE}(?:\{{\s*-?[1-9]\s*\}}|[1-9]))?"
)
_PRODUCT = rf"{_ATOM}(?:{_SPACE}(?:(?:\\cdot|\\times|/|\*){_SPACE})?{_ATOM})*"
_IN_BRACES = rf"\{{{_SPACE}{_PRODUCT}{_SPACE}\}}"
_LATEX_UNIT = re.compile(
    rf"(?<=[0-9}}\s,;:! ~])(?:\\[dt]?frac{_SPACE}{_IN_BRACES}{_SPACE}{_IN_BRACES}"
    rf"|{_ATOM}{_SPACE}(?:\\cdot|\\times|/|\*)?{_SPACE}{_PRODUCT}|\\mu{_SPACE}[a-z]|\\Omega)\s*$"
)
r"""A unit of several parts or with a sign: `\frac{\text{m}}{\text{s}^2}`, `\text{N}\cdot\text{m}`, `\mu\text{m}`."""
_WORDS_IN_TEXT = re.compile(r"\{([^{}]*)\}")
_TEMPERATURE = re.compile(
    r"(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°)\s*(?:\\(?:text|mathrm|rm|mbox)\s*\{\s*[CFK]\s*\}|[CFK](?![A-Za-z]))"
)
_ARGUMENT = r"\{\s*([-+]?[0-9][0-9.,]*)\s*\}"
_CLEANING = tuple(
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\\[!,;:]\s*", ""),
        (r"\\ |~", " "),
        (r"\{,\}", ","),
        (r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm|textit|underline)\s*\{([^{}]*)\}", r" \1 "),
        (r"\^\s*(?:\{\s*\\circ\s*\}|\\circ)|°|\\(?=[%$])", ""),
        # A digit behind it makes it a product: left alone, the braces make it no plain number.
        (rf"\\[dt]?frac\s*(?:{_ARGUMENT}|([0-9]))\s*(?:{_ARGUMENT}|([0-9]))(?!\s*\.?[0-9])", r" \1\2/\3\4"),
        (r"^\\[(\[]|\\[)\]]$", ""),
        (r"(?<=[0-9]) ?\(([A-Za-z][A-Za-z ]{1,40})\)\s*$", r" \1"),
        (r"\s+", " "),
        (r"^ ?(?:minus|negative) (?=[0-9$.])", "-"),
        (r" and (?:a|one) half\b", " 1/2"),
    )
)

_BARE_LETTER = re.compile(r"\\.*(?<![A-Za-z\\])[A-Za-z]\s*(?:\^\s*\{?[0-9]\}?)?$", re.DOTALL)
_SPACED_GROUPS = re.compile(r"^-?[0-9]{1,3}(?: [0-9]{3})+(?=[ .]|$)")


def plain_number(text: str) -> Fraction | None:
    """The exact value of a plain number, None for anything else."""
    if len(text) > MAX_NUMBER_CHARS or ELLIPSIS.search(text):
        return None
    text = text.replace("\u2212", "-").strip(WRAPPING).rstrip(".,;:")
    if "°" in text or "circ" in text:
        text = _TEMPERATURE.sub("", text)
    if "\\" in text and _BARE_LETTER.search(text):  # \frac12 h: among LaTeX a letter is a variable, a unit has \text
        return None
    if "\\" in text:
        text = _LATEX_UNIT.sub(_unit_word, text)
    for pattern, replacement in _CLEANING:
        text = pattern.sub(replacement, text)
    text = _SPACED_GROUPS.sub(lambda groups: groups[0].replace(" ", ""), text.strip())
    match = _PLAIN.fullmatch(text.strip(WRAPPING).rstrip(".,;:"))
    if match is None or (match["unit"] and not is_unit(match["unit"], not match["gap"], bool(match["power"]))):
        return None
    value = _fraction(match["value"]) if match["value"] else _mixed(match["whole"], match["top"], match["bottom"])
    return -value if value is not None and match["sign"] == "-" else value


def _unit_word(found: re.Match[str]) -> str:
    return found[0] if takes_back(" ".join(_WORDS_IN_TEXT.findall(found[0]))) else " units"


def _mixed(whole: str | None, top: str, bottom: str) -> Fraction | None:
    divisor = _fraction(bottom)
    return _fraction(whole or "0") + _fraction(top) / divisor if divisor else None


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))
