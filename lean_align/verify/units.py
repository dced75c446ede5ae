r"""Which words behind a value are its unit, and may be dropped: 5 cm, 18 dollars per day, `4\sqrt{7}\text{ cm}`.

1. Any words are, but those that change the value or take it back (`NOT_UNITS`): 5 squared, 3 halves, 3 or more.
2. Without a space in front only the abbreviations of `_GLUED` are: 12cm, but 4s, 3am and 6st are products.  Of single
   letters only m has a power: 12 m^2, but 4 s^2 is a product.
3. Letters in alphabetical order are a product: 3 xyz, 6abc.

Scale words are units: of 14 GSM8K solutions that end in "5 dozen" or "60 million", all 14 have the gold 5 or 60.
"""

from __future__ import annotations

import re
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
