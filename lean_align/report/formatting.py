"""Numbers as people read them; None and non-finite values come out as words, never as `nan`."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from lean_align.memory import human_bytes

NOT_RUN = "not run"
MISSING = "\N{EN DASH}"
_MINUS = "\N{MINUS SIGN}"


def is_number(value: object) -> bool:
    """Whether `value` is a finite number."""
    return isinstance(value, int | float) and math.isfinite(value)


def number(value: float | None, digits: int = 3, missing: str = MISSING) -> str:
    """`value` with `digits` significant digits, trailing zeros kept so that columns compare."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{value:#.{digits}g}".rstrip(".").replace("-", _MINUS)


def count(value: float | None, missing: str = MISSING) -> str:
    """A whole number with commas between thousands."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{round(value):,}"


def percent(share: float | None, missing: str = NOT_RUN) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    if share is None or not math.isfinite(share):
        return missing
    return f"{100 * share:.1f} %"


def percent_interval(interval: Sequence[float] | None, missing: str = NOT_RUN) -> str:
    """Two shares as `45.6 to 54.4 %`."""
    if interval is None:
        return missing
    low, high = interval
    return f"{100 * low:.1f} to {100 * high:.1f} %"


def points(difference: float | None, missing: str = MISSING) -> str:
    """A difference of shares in percentage points, signed, one decimal."""
    if difference is None:
        return missing
    rounded = round(100 * difference, 1)
    if rounded == 0:
        return "0.0"
    return f"{rounded:+.1f}".replace("-", _MINUS)


def bounds(interval: Sequence[float | None] | None) -> tuple[float, float] | None:
    """Both ends of an interval, or None where one is missing."""
    if interval is None or len(interval) != 2:
        return None
    low, high = interval
    return None if low is None or high is None else (float(low), float(high))


def bare_share(value: float | None, missing: str = MISSING) -> str:
    """A share as a percentage without its sign: `76.0`."""
    return missing if value is None else f"{100 * value:.1f}"


def bare_interval(interval: Sequence[float | None] | None) -> str:
    """Two shares as `[74.1, 77.9]`; nothing where there is no interval."""
    ends = bounds(interval)
    return "" if ends is None else f"[{bare_share(ends[0])}, {bare_share(ends[1])}]"


def difference_interval(interval: Sequence[float | None] | None, missing: str = "") -> str:
    """Two differences as `[−3.1, +0.7]`."""
    ends = bounds(interval)
    return missing if ends is None else f"[{points(ends[0])}, {points(ends[1])}]"


def multiple(value: float | None, missing: str = MISSING) -> str:
    """A ratio with two decimals: `0.58`."""
    return missing if value is None else f"{value:.2f}"


def hours(value: float | None, missing: str = MISSING) -> str:
    """Hours with two significant digits below ten: `0.14`, `3.2`, `21`."""
    if value is None or not math.isfinite(value):
        return missing
    return f"{value:.0f}" if value >= 9.95 else f"{value:.1f}" if value >= 0.995 else f"{value:.2g}"


def coefficient(value: float | None, missing: str = MISSING) -> str:
    """A correlation with two decimals, signed."""
    return missing if value is None else f"{value:+.2f}".replace("-", _MINUS)


def won_lost(won: int | None, lost: int | None, missing: str = MISSING) -> str:
    """Wins and losses as `2 : 6`."""
    return missing if won is None or lost is None else f"{won:,} : {lost:,}"


def shorten(text: str, limit: int) -> str:
    """The first words of `text`, at most `limit` characters and an ellipsis."""
    if len(text) <= limit:
        return text
    words, _, _ = text[: limit + 1].rpartition(" ")
    return (words or text[:limit]).rstrip(" ,;:.") + "…"


def signed(whole: int) -> str:
    """A difference of counts with its sign."""
    return f"{whole:+,}".replace("-", _MINUS) if whole else "0"


def p_value(value: float) -> str:
    """`p = 0.012`, or `p < 0.001` where more digits would say nothing."""
    return f"p {bare_p(value)}" if value < 0.001 else f"p = {bare_p(value)}"


def bare_p(value: float | None, missing: str = MISSING) -> str:
    """`0.012`, or `< 0.001`; `missing`, never 0, where there is none."""
    if value is None:
        return missing
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def duration(seconds: float | None, missing: str = NOT_RUN) -> str:
    """Seconds as `4.2 s`, `2 min 5 s` or `1 h 20 min`."""
    if seconds is None or not math.isfinite(seconds):
        return missing
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min"


def memory(n_bytes: float | None, missing: str = MISSING) -> str:
    """Bytes as `858.3 MiB` or `1.1 GiB`."""
    if n_bytes is None or not math.isfinite(n_bytes):
        return missing
    return human_bytes(round(n_bytes))


FOR_PAGE: tuple[Callable[..., str], ...] = (
    count,
    duration,
    memory,
    number,
    p_value,
    percent,
    percent_interval,
    points,
    shorten,
    signed,
)
"""Functions that the template uses by name."""
