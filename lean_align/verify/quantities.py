r"""Golds that are written in parts: 3 hours 20 minutes, 12:30, CH4.  Equal part by part; None: not decided here."""

from __future__ import annotations

import re

_TEXT = re.compile(r"\\(?:text|mbox|mathrm|textbf|mathbf|textrm|ce)\s*\{([^{}]*)\}")
_SPACING = re.compile(r"\\[,!;: ]|[\s$~]+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?([A-Za-z]+)\.?(?:,? (?:and )?)?")
_PARTS = re.compile(rf"(?:{_PART.pattern}){{2,4}}")
_UNIT_NAMES = {
    "h": "hour", "hr": "hour", "min": "minute", "sec": "second", "ft": "foot", "feet": "foot", "in": "inch",
    "inche": "inch", "lb": "pound", "oz": "ounce", "yd": "yard",
}  # fmt: skip
_TIME = re.compile(r"([0-9]{1,2}):([0-9]{2})(?: ?([ap])\.?m\.?)?", re.IGNORECASE)
_CHEMICAL = re.compile(r"(?:[A-Z][a-z]?[0-9]{0,3}|[()]){2,20}")


def same_parts(gold: str, found: str) -> bool | None:
    """Whether two answers of one of these kinds are equal; None where they are of another, or differ."""
    ours, theirs = _plain(gold), _plain(found)
    for kind in (_quantity, _time, _chemical):
        wanted, given = kind(ours), kind(theirs)
        if wanted is not None and wanted == given:
            return True
        if kind is _time and wanted and given and wanted[:2] == given[:2] and "" in (wanted[2], given[2]):
            return True
    return None


def _plain(text: str) -> str:
    return " ".join(_SPACING.sub(" ", _TEXT.sub(r" \1 ", text)).split()).strip(" .*")


def _quantity(text: str) -> tuple[tuple[str, str], ...] | None:
    if len(text) > 100 or not _PARTS.fullmatch(text):
        return None
    return tuple((part[1], _unit(part[2].lower())) for part in _PART.finditer(text))


def _unit(word: str) -> str:
    singular = word.removesuffix("s")
    return _UNIT_NAMES.get(singular, singular)


def _time(text: str) -> tuple[str, str, str] | None:
    found = _TIME.fullmatch(text)
    return (found[1].lstrip("0"), found[2], (found[3] or "").lower()) if found else None


def _chemical(text: str) -> tuple[str, ...] | None:
    bare = re.sub(r"[_{} ]", "", text)
    return (bare,) if len(text) <= 60 and _CHEMICAL.fullmatch(bare) and re.search("[0-9]", bare) else None
