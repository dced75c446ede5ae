r"""Formulas and numbers as they stand in a text, between the marks of LaTeX or bare.

Every pattern is linear in the text: a model that repeats one token up to its limit must not cost seconds.
"""

from __future__ import annotations

import re

from lean_align.verify.numbers import CURRENCY, DIGITS, plain_number

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
