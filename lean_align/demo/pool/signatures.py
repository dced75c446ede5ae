"""What problems have in common that differ only in names, things and verbs."""

from __future__ import annotations

import random
import re
import zlib

from lean_align.demo.problems import NAMES, THINGS

HELD_OUT_IN = 4
"""One signature in this many belongs to the evaluation, the others to the pool."""

_NAME = re.compile(rf"\b(?:{'|'.join(NAMES)})\b")
_THING = re.compile(rf"\b(?:{'|'.join(THINGS)})\b")
_GAIN = re.compile(r"\b(?:finds|buys|gets)\b")
_LOSS = re.compile(r"\b(?:loses|sells|eats)\b")


def signature(question: str) -> str:
    """The text with every name, thing, gain and loss replaced by one word each; numbers stay.

    >>> signature("Ann has 7 boxes of 2 cards. Ann buys 4 more. How many cards does Ann have?")
    'WHO has 7 boxes of 2 THINGS. WHO gains 4 more. How many THINGS does WHO have?'
    """
    text = _THING.sub("THINGS", _NAME.sub("WHO", question))
    return _LOSS.sub("drops", _GAIN.sub("gains", text))


def is_held_out(question: str) -> bool:
    """Whether problems of this signature are asked in the evaluation, and so are kept out of the pool."""
    return zlib.crc32(signature(question).encode()) % HELD_OUT_IN == 0


def renamed(question: str, rng: random.Random) -> str:
    """The same question with other names and things, drawn without repeats; numbers and verbs stay."""
    text = question
    for words, pattern in ((NAMES, _NAME), (THINGS, _THING)):
        found = list(dict.fromkeys(pattern.findall(text)))
        new = dict(zip(found, rng.sample(words, len(found))))
        text = pattern.sub(lambda match, new=new: new[match[0]], text)  # type: ignore[misc]
    return text
