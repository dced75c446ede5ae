r"""Golds as data sets spell them: repaired where what was meant is clear, refused where no completion could match them.

Repaired, in this order:

1. A list of one text or number, as JSON or Python prints it: `["3, 5"]` is `3, 5`; a text in quotes likewise.
2. LaTeX written into JSON with one backslash: the `\f` of `\frac` was read as a form feed, and may be gone since:
   `rac{1}{2}`.  So with `\b`, `\n`, `\r`, `\t`, `\v` and `\a`; and with two backslashes in place of one.
3. A box around the whole gold.
4. The sign of a rounded value in front of it: `≈ 3.14`.

Refused: nothing at all; a word that stands for a missing answer (proof, notfound); a picture; what is left of
characters lost in reading; braces that do not close.
"""

from __future__ import annotations

import ast
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from lean_align.errors import DataError

_QUOTED = {"[": "]", '"': '"', "'": "'"}
MAX_LIST_CHARS = 1_000
"""A longer list or quoted text is left as it is."""

# Python and JSON read these as control characters; where letters follow, a backslash stood there.
_LETTER_OF = {"\x07": "a", "\b": "b", "\f": "f", "\v": "v", "\t": "t", "\n": "n", "\r": "r"}
_NEVER_SPACE = re.compile(r"([\x07\x08\x0b\x0c])(?=[A-Za-z])")
_NO_LETTER = r"(?![A-Za-z])"
_MAY_BE_SPACE = re.compile(
    rf"\t(?=(?:ext(?:bf|it|rm|sf|tt)?|imes|heta|frac|anh?(?! [A-Za-z]{{2}})|au|ilde|riangle|herefore){_NO_LETTER})"
    rf"|\r(?=(?:ight|ho|angle|m|floor|ceil|brace|brack|ightarrow){_NO_LETTER})"
    rf"|\n(?=(?:eq|abla|otin){_NO_LETTER})|(?:(?<=\S)|(?<=\S ))\n(?=(?:e|ot|mid){_NO_LETTER})"
)
_LOST = re.compile(
    r"(?<![A-Za-z\\])(?:(?P<f>rac|box)|(?P<b>oxed|egin|inom)|(?P<t>ext(?:bf|it|rm)?)|(?P<v>ec))(?=\s?\{)"
    rf"|(?<![A-Za-z\\])(?P<t2>imes|heta){_NO_LETTER}|(?<![A-Za-z\\])(?P<r>ight)(?=[)\]}}|.\\])"
)
_NO_BACKSLASH = re.compile(r"(?<![A-Za-z\\])(?=(?:[dt]?frac|sqrt|boxed|text|mathrm|overline)\s?\{)")
_TWO_BACKSLASHES = re.compile(r"(?<!\\)\\{2,}(?=[A-Za-z]{2})")

_MISSING = frozenset(
    "proof; see proof; proof omitted; proof required; proved; qed; q.e.d; notfound; not found; not_found; "
    "answer not found; no answer; no answer provided; not available; n/a; na; nan; null; undefined answer; unknown; "
    "see solution; see the solution; see above; see below; see explanation; todo; tbd; unanswerable; missing".split(
        "; "
    )
)
_EMPTY_DRESS = re.compile(
    r"\\(?:boxed|text|mbox|mathrm|textbf|mathbf)\s*\{\s*\}|\\(?:square|ldots|dots|quad)(?![A-Za-z])|\\[(),!;:\[\] ]"
    r"|[\s$.,;:!?_#\u2026\u2014-]"
)
_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|textit|operatorname)\s*\{([^{}]*)\}")
_PICTURE = re.compile(r"!\[[^\]]*\]\(|<img\b|\\includegraphics|\[asy\]|^https?://\S+$", re.IGNORECASE)
_APPROXIMATE = re.compile(r"^(?:(?:\u2248|\\approx(?![A-Za-z])|\\simeq(?![A-Za-z]))\s*)+(?=-?\.?[0-9]|\\[dt]?frac)")
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufffd\ud800-\udfff]")


def gold_text(answer: Any) -> str:
    """A gold as text: a number that a data set holds as one is written out, 142.0 as 142 and 1e-05 as 0.00001.

    Raises
    ------
    DataError : it is neither text nor a number, or an integer of more digits than Python writes.
    """
    if isinstance(answer, str):
        return answer
    if isinstance(answer, float | Decimal):
        value = Decimal(repr(float(answer))) if isinstance(answer, float) else answer
        if not value.is_finite():
            return str(value)
        return str(int(value)) if value == value.to_integral_value() else format(value, "f")
    if isinstance(answer, int | Fraction):
        try:
            return str(answer)
        except ValueError as error:  # int's own limit of 4,300 digits
            raise DataError(
                f"got a gold answer that is a number too long to write ({error}); expected text or a number of fewer "
                "digits: correct the row or drop it"
            ) from error
    raise DataError(
        f"got a gold answer of type {type(answer).__name__} ({str(answer)[:80]!r}); expected text or a number: pass "
        "the text of the answer"
    )


def completion_text(completion: Any) -> str:
    """The completion, which has to be text.

    Raises
    ------
    DataError : it is something else.
    """
    if not isinstance(completion, str):
        raise DataError(
            f"got a completion of type {type(completion).__name__} ({str(completion)[:80]!r}); expected text: pass the "
            "text that the model sampled"
        )
    return completion


def mend_gold(text: str) -> str:
    r"""A gold as it was meant, without surrounding white space, by the module's rules; any other is returned as it is.

    Total, and the same when applied again.

    Parameters
    ----------
    text : the gold as the data set has it, what stands before a "####" already gone.
    """
    mended = _mend_latex(_unlisted(_mend_latex(text).strip())).strip()
    for _ in range(3):  # a list inside a box, a box inside a list
        inside = _unlisted(_unboxed(mended))
        if inside == mended:
            break
        mended = inside
    return _APPROXIMATE.sub("", mended)


def unanswerable(gold: str) -> str | None:
    """Why no completion could ever match a repaired gold, as half a sentence; None where one might.

    Parameters
    ----------
    gold : the gold, as `mend_gold` returns it.
    """
    words = _TEXT.sub(r"\1", gold).strip(" .$*_()[]").lower()
    if words in _MISSING or gold.strip() == "None":
        return f"{gold.strip()[:40]!r} stands for a missing answer"
    if not _EMPTY_DRESS.sub("", gold):
        return "it is empty"
    if _PICTURE.search(gold):
        return "it is a picture"
    if _CONTROL.search(gold):
        return "it holds characters that were lost or changed in reading"
    if not _closes(gold):
        return "its braces do not close"
    return None


def _unlisted(text: str) -> str:
    """The element of a list of one; a text without its quotes."""
    if len(text) > MAX_LIST_CHARS or len(text) < 2 or _QUOTED.get(text[0]) != text[-1]:
        return text
    try:
        value = ast.literal_eval(text.replace("\\", "\\\\"))  # a backslash is LaTeX's, never an escape
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
    while isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, str):
        return value.strip()
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return text.strip("[] ") if is_number else text


def _mend_latex(text: str) -> str:
    text = _NEVER_SPACE.sub(lambda found: "\\" + _LETTER_OF[found[1]], text)
    text = _MAY_BE_SPACE.sub(lambda found: "\\" + _LETTER_OF[found[0]], text)
    text = _LOST.sub(lambda found: f"\\{str(found.lastgroup)[0]}{found[0]}", text)
    text = _NO_BACKSLASH.sub(r"\\", text)
    return text if "\\begin" in text else _TWO_BACKSLASHES.sub(r"\\", text)  # between rows two are right


def _unboxed(text: str) -> str:
    """What a box around all of the text holds."""
    bare = text.strip("$ .").removeprefix("\\(").removesuffix("\\)").strip()
    for box in ("\\boxed{", "\\fbox{"):
        inside = bare[len(box) : -1]
        if bare.startswith(box) and bare.endswith("}") and _closes(inside):
            return inside.strip()
    return text


def _closes(text: str) -> bool:
    depth = 0
    for brace in re.findall(r"\\.|[{}]", text, re.DOTALL):
        depth += (brace == "{") - (brace == "}")
        if depth < 0:
            return False
    return depth == 0
