r"""Plain numbers as exact fractions: text -> Fraction, or None for anything else.

1. Wrapping goes: white space, `$`, `**`, `\(...\)`, `\text{...}`, `^\circ`, LaTeX's thin spaces, a closing period.
2. What is left has to be, from end to end, a sign, a currency sign, one number and a unit of words.
3. The number is an integer or decimal, with or without thousands commas or spaces in groups of three; a fraction a/b or
   `\frac{a}{b}`; or a mixed number: 2 1/2, 2 and a half.

Not plain, on purpose: 5x, 5m, 2\pi, 1,2 (a list), 7 and 8, 12:30, 1e9, 5! (a factorial), 3.14... (an ellipsis),
\frac{1}{2}3 (a product), 5 squared.

Which words behind a value are its unit, and may be dropped: 5 cm, 18 dollars per day, `4\sqrt{7}\text{ cm}`.

1. Any words are, but those that change the value or take it back (`NOT_UNITS`): 5 squared, 3 halves, 3 or more.
2. Without a space in front only the abbreviations of `_GLUED` are: 12cm, but 4s, 3am and 6st are products.  Of single
   letters only m has a power: 12 m^2, but 4 s^2 is a product.
3. Letters in alphabetical order are a product: 3 xyz, 6abc.

Scale words are units: of 14 GSM8K solutions that end in "5 dozen" or "60 million", all 14 have the gold 5 or 60.
"""

from __future__ import annotations

import re
from fractions import Fraction
from itertools import pairwise

ARITHMETIC = frozenset(
    "or over mod modulo squared cubed factorial halves thirds fourths fifths sixths sevenths eighths ninths tenths "
    "hundredths thousandths millionths divided multiplied remainder".split()
)
"""Those of `CHANGES` that do so in a sentence too, where "18 and so" is still 18."""
CHANGES = ARITHMETIC | frozenset(
    "and nor but not is are was were if than less plus minus root roots half third fourth fifth sixth seventh eighth "
    "ninth tenth hundredth thousandth millionth".split()
)
"""Words that change the number in front of them or take it back."""
NAMES = frozenset(
    "sqrt cbrt sin cos tan cot csc arcsin arccos arctan sinh cosh tanh log ln exp lim gcd lcm sum infinity pi alpha "
    "beta gamma delta theta lambda mu omega phi rho sigma tau epsilon eta kappa psi chi xi".split()
)
"""Names of functions and letters, written without the backslash."""
NOT_UNITS = CHANGES | NAMES
"""Words that are never a unit; but "squared" and "cubed" belong to one where another word stands in front of them."""

_POWERS = frozenset(["squared", "cubed"])
_GLUED = re.compile(r"(?:[ckm]m|in|ft|yd|kg|lbs?|oz|m?L|hrs?|nd|rd|th)(?![A-Za-z])|[A-Za-z]{4,}")
_SHORT = frozenset(
    "m g s h l L N J W V A K C F mg mm cm km kg in ft yd mi lb lbs oz ml mL cl dl dm hr hrs yr yrs am pm st nd rd th "
    "Hz Pa kN kJ kW kV mA mV nm um ms ns ha eV GB MB KB TB pt qt ct ea pc "
    "sq ¢ Ω".split()
)
_WITHOUT_POWER = frozenset("gshlL")
_WORD = re.compile("[A-Za-z]+|[¢Ω]")
_CHINESE = re.compile(r"[\u4e00-\u9fff]+")
_CHINESE_SCALES = frozenset("百千万亿十半倍零第几多")


def is_unit(words: str, glued: bool = False, power: bool = False) -> bool:
    """Whether words behind a value are its unit: `glued` to it without a space, raised to a `power`."""
    if _CHINESE.fullmatch(words):
        return not power and _CHINESE_SCALES.isdisjoint(words)
    found = _WORD.findall(words)
    if found[:1] == ["times"] and found[1:]:
        return False
    if not found or takes_back(words) or (glued and not _GLUED.match(words)) or (power and words in _WITHOUT_POWER):
        return False
    return found[0] in _SHORT or (len(found[0]) > 2 and not is_product(found[0]))


def takes_back(words: str, listed: frozenset[str] = NOT_UNITS) -> bool:
    """Whether one of the words is listed: it makes another value of the number in front, or none."""
    found = [word.lower() for word in _WORD.findall(words)]
    return any(word in listed and not (at and word in _POWERS) for at, word in enumerate(found))


def is_product(word: str) -> bool:
    """Letters in alphabetical order, as in xyz: variables, where they stand outside of `\\text`."""
    return word not in _SHORT and all(a < b for a, b in pairwise(word))


MAX_NUMBER_CHARS = 1_000
"""A longer text is not plain; it also keeps int() below Python's limit of 4,300 digits."""

_CODES = "Rs INR USD EUR GBP CNY RMB AUD CAD JPY".replace(" ", "|")
CURRENCY = rf"(?:(?:US|AU|CA|HK|NZ|[ACS])?\\?[$]|[€£¥₹₩₽]|(?<![A-Za-z])(?:{_CODES})(?![A-Za-z])\.?\s?)"
DIGITS = r"(?:[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<![A-Za-z0-9])\.[0-9]+"
WRAPPING = " \t\r\n*_`$"

ELLIPSIS = re.compile(r"\.\s?\.|…|\\[lc]?dots(?![A-Za-z])")
"""What makes another number of the digits in front of it: 0.333... is not 0.333."""

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
