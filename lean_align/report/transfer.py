"""How far chosen prompts' mean gradients point where a target's does: transfer.json as records, and in a terminal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lean_align import json_records
from lean_align.report.formatting import MISSING, bounds, coefficient, count, p_value
from lean_align.table import Table, printable

NAME = "transfer.json"
Ends = tuple[float, ...] | None


@dataclass(frozen=True)
class Direction:
    """A cosine with the target and its 95 % interval, and the first choice's lead over it with its own.

    `lead` is the first choice's cosine minus this one, and None of the first; all are None where a mean is zero.
    """

    cosine: float | None = None
    interval: Ends = None
    lead: float | None = None
    lead_interval: Ends = None

    @property
    def verdict(self) -> str:
        """Whether the first choice's lead is more than chance."""
        ends = bounds(self.lead_interval)
        if ends is None:
            return ""
        return "chosen points nearer" if ends[0] > 0 else "this points nearer" if ends[1] < 0 else "no difference shown"


@dataclass(frozen=True)
class ChoiceTransfer:
    """A choice: its method, how many prompts, how many of them have V above 0.

    `by_learnability` weighs unit rows by V, as scores do; `by_norm` takes the gradients as they are.
    """

    method: str
    n: int
    n_learnable: int
    by_learnability: Direction
    by_norm: Direction


@dataclass(frozen=True)
class Transfer:
    """What a run's choice, and others of the same size, promise for a target.  The run's own choice comes first."""

    target: str
    n_target: int
    n_target_learnable: int
    seed: int
    replicates: int
    choices: tuple[ChoiceTransfer, ...]

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], where: str = NAME) -> Transfer:
        """Read transfer.json, or what summary.json holds of it.

        Raises
        ------
        DataError
            When a part is missing.
        """
        return json_records.from_json(cls, tree, where)

    def as_json(self) -> dict[str, Any]:
        """As transfer.json holds it."""
        return json_records.as_json(self)


@dataclass(frozen=True)
class MethodTransfer:
    """A method of a comparison: mean accuracy and mean cosines over its seeds, and both cosines of each seed."""

    label: str
    accuracy: float
    n_seeds: int
    by_learnability: float
    by_norm: float
    seeds: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Trust:
    """Spearman's correlation of cosine and accuracy over methods, and the mean of those within each seed."""

    value: float | None = None
    interval: Ends = None
    p_value: float | None = None
    n: int = 0
    within_seeds: float | None = None


@dataclass(frozen=True)
class ComparisonTransfer:
    """How well cosines with a target order the methods of a comparison by the accuracy that was measured."""

    target: str
    n_target: int
    seeds: tuple[int, ...]
    by_learnability: Trust
    by_norm: Trust
    methods: tuple[MethodTransfer, ...]
    left_out: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """As transfer.json holds it."""
        return json_records.as_json(self)


def transfer_lines(found: Transfer) -> list[str]:
    """What a run's choice promises for a target: a row a choice, and how to read it."""
    heads = ("choice", "prompts", "V > 0", "cosine, by V", "chosen leads by", "", "of whole gradients")
    rows = [transfer_cells(choice) for choice in found.choices]
    return [
        printable(
            f"target {found.target}: {count(found.n_target)} problems, {count(found.n_target_learnable)} with V > 0"
        ),
        "",
        *Table.of_texts(heads, rows, words=(0, 5)).text(),
        f"- {READING}",
    ]


READING = (
    "Cosine of the mean gradient of the chosen prompts with the target's; in brackets 95 %, over prompts and problems. "
    "Compare rows: a figure alone says little."
)


def transfer_cells(choice: ChoiceTransfer) -> tuple[str, ...]:
    """A choice as a row of texts: method, prompts, those with V > 0, cosine, lead, what it shows, whole gradients."""
    own = choice.by_learnability
    return (
        choice.method,
        count(choice.n),
        count(choice.n_learnable),
        _with_interval(own.cosine, own.interval),
        "" if own.lead is None else _with_interval(own.lead, own.lead_interval),
        own.verdict,
        _with_interval(choice.by_norm.cosine, choice.by_norm.interval),
    )


def comparison_transfer_lines(found: ComparisonTransfer) -> list[str]:
    """Cosine and accuracy of every method, highest cosine first, and their rank correlations."""
    ordered = sorted(found.methods, key=lambda method: (-method.by_learnability, method.label))
    rows = [
        (
            method.label,
            str(method.n_seeds),
            _cosine(method.by_learnability),
            _cosine(method.by_norm),
            f"{100 * method.accuracy:.1f}",
        )
        for method in ordered
    ]
    heads = ("method", "seeds", "cosine, by V", "of whole gradients", "accuracy, %")
    return [
        printable(f"target {found.target}: {count(found.n_target)} problems; {len(found.seeds)} seeds"),
        "",
        *Table.of_texts(heads, rows).text(),
        f"- rank correlation with accuracy, by V: {_trust(found.by_learnability)}",
        f"- of whole gradients: {_trust(found.by_norm)}",
        *(f"- left out: {printable(line)}" for line in found.left_out),
    ]


def _trust(found: Trust) -> str:
    if found.value is None:
        return f"not defined over {found.n} methods"
    within = "" if found.within_seeds is None else f"; within a seed {coefficient(found.within_seeds)} on average"
    low, high = found.interval or (None, None)
    ends = f"[{coefficient(low)}, {coefficient(high)}]"
    shown = "" if found.p_value is None else f", {p_value(found.p_value)}"
    return f"{coefficient(found.value)} {ends}{shown} over {found.n} methods{within}"


def _cosine(value: float | None) -> str:
    return MISSING if value is None else f"{value:+.3f}".replace("-", "\N{MINUS SIGN}")


def _with_interval(value: float | None, interval: Ends) -> str:
    ends = bounds(interval)
    return _cosine(value) if ends is None else f"{_cosine(value)} [{_cosine(ends[0])}, {_cosine(ends[1])}]"
