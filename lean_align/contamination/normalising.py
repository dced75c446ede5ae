r"""A problem's text as tokens that stay the same when it is typeset differently.

Rules, in order, each with what it is there for:

1. Unicode NFKC and case folding, the minus sign as a hyphen: full-width forms, ligatures, capitals at a start.
2. A leading exercise number goes ("12. Let x ..."): it is the book's, not the problem's.
3. Pictures go (`[asy] ... [/asy]`) where near matches are looked for: copies lose them, and their coordinates would
   count as numbers.  An exact match has the same picture.
4. LaTeX that only sets type goes: thin spaces, `\left` and `\right`, `\text` and the other fonts, `\(` and `\[`,
   `~`, `\quad`, empty scripts (`^{}_{}`, which AoPS puts everywhere).
5. `\dfrac`, `\tfrac`, `\cfrac` are `\frac`; `\frac12` is `\frac{1}{2}`; `1,000` is `1000`.
6. What is left is cut into numbers, runs of letters, single Chinese characters, and the signs that carry meaning
   (`+ - * / ^ = < > ! | %` and all beyond ASCII).  White space, dollar signs, braces, brackets, subscripts and
   punctuation fall away; a hyphen before a word of three letters or more ("6-sided") is punctuation, not a minus.

Signs stay on purpose: z^4 + z^2 + 1 and z^4 - z^2 + 1 make different problems, and a rule that kept letters and digits
alone would call them equal.  Capital and small letters of the same name are not told apart.
"""

from __future__ import annotations

import re
import unicodedata

_EXERCISE_NUMBER = re.compile(r"^\s*(?:(?:problem|example|exercise|question|例)\s*)?\(?\d{1,3}[.):]\s+(?=\D)")
_PICTURE = re.compile(r"\[asy\].*?\[/asy\]|\\begin\{asy\}.*?\\end\{asy\}", re.DOTALL)
_SPACING = re.compile(
    r"\\[,;:!> ()\[\]]|~|[\^_]\{\s*\}|\\(?:q?quad|left|right|displaystyle|limits|bigg?[lrm]?|text(?:bf|it|rm)?"
    r"|math(?:rm|bf)|mbox|operatorname|emph|rm|bf)(?![a-z])"
)
_SHORT_FRACTION = re.compile(r"\\[dtc]?frac(?![a-z])\s*(\d)(?=\s*[\d{])")
_FRACTION = re.compile(r"\\[dtc]frac(?![a-z])")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,\\?!?)(?=\d{3}(?!\d))")
_HYPHEN = re.compile(r"(?<=\w)-(?=[a-z]{3})")
_TOKEN = re.compile(
    r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]|\d+(?:\.\d+)?|[^\W\d_\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff]+"
    r"|[-+*/^=<>!|%]|[^\w\s\x00-\x7f\u2010-\u2027\u3001-\u3011\u3014\u3015]"
)
_GLUE = re.compile(r"(?<!\d) | (?!\d)")


def tokens(text: str, pictures: bool = False) -> list[str]:
    """Cut a text into tokens, by the rules of the module; with `pictures`, rule 3 is left out."""
    text = unicodedata.normalize("NFKC", text).casefold().replace("\u2212", "-")
    text = _THOUSANDS.sub("", _EXERCISE_NUMBER.sub("", text))
    text = text if pictures else _PICTURE.sub(" ", text)
    text = _SPACING.sub(" ", text)
    text = _FRACTION.sub(r" \\frac", _SHORT_FRACTION.sub(r" \\frac \1 ", text))
    return _TOKEN.findall(_HYPHEN.sub(" ", text))


def exact_key(text: str) -> str:
    """What texts that match exactly have in common: the tokens, pictures included, without the spaces between them.

    Two numbers stay apart.  A text without any token is its own key.
    """
    return _GLUE.sub("", " ".join(tokens(text, pictures=True))) or text.strip()
