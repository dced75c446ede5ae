"""How the cost of a call grows with its input: a check of "linear time" that asks no clock how fast the machine is."""

from __future__ import annotations

import time
from collections.abc import Callable

SMALL_SECONDS = 0.05
"""Below this a call is at once, whatever its growth: of seconds of this process at work, which others do not add to."""


def grows_faster_than(call: Callable[[str], object], text: str, repeats: int = 4, most: float = 3.0) -> bool:
    """Whether a call on a text takes more than `most` times `repeats` what it takes on a piece of it.

    A quadratic pattern takes `repeats`^2 times as much, a linear one `repeats`.  The least of three tries counts.
    """
    whole = _seconds(call, text)
    if whole < SMALL_SECONDS:
        return False
    return whole > most * repeats * _seconds(call, text[: len(text) // repeats])


def _seconds(call: Callable[[str], object], text: str) -> float:
    tries = []
    for _ in range(3):
        started = time.process_time()
        call(text)
        tries.append(time.process_time() - started)
    return min(tries)
