r"""The signs of Unicode that stand for digits, punctuation and small formulas, in ASCII and LaTeX.

Full-width digits, letters and punctuation as Chinese and Japanese texts have them; raised and lowered digits (10⁵ is
10^{5}); ¾ is \frac{3}{4}; the minus sign and the slash of fractions; a bar or dot above a digit; ⟨ and ⟩.
"""

from __future__ import annotations

import re
import unicodedata

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
