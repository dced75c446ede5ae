"""What a comparison of selection methods found: DIR/compare/results.json as a record.

It is written while the table fills in, and may be shown then: any part can be missing, null or NaN, and is None or
empty here.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

from lean_align import json_records
from lean_align.json_records import WHERE_KNOWN
from lean_align.report.costs import Cost, CostCurve, Ends, Goal, ToGoal
from lean_align.report.formatting import MISSING

NAME = "results.json"
WAITING = "…"
"""Stands in a cell whose trainings are still to come."""


@dataclass(frozen=True)
class BaseResult:
    """The model without training."""

    accuracy: float | None = None
    interval: Ends | None = None


@dataclass(frozen=True)
class Curve:
    """Mean, least and largest reward of each step over the seeds."""

    step: tuple[float | None, ...] = ()
    reward: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Lengths:
    """Histogram of the mean completion lengths of the chosen prompts."""

    edges: tuple[float | None, ...] = ()
    counts: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Correlation:
    """Of the values that a method gives prompts, with something else; `partial` with learnability held fixed."""

    spearman: float | None = None
    pearson: float | None = None
    partial: float | None = None


@dataclass(frozen=True)
class Correlations:
    """With the mean length of a prompt's completions and with the norm of its gradient."""

    n_tokens: Correlation | None = None
    gradient_norm: Correlation | None = None


@dataclass(frozen=True)
class Method:
    """A method at a size and with its settings, over the seeds that are done; with none done, only what it is.

    Attributes
    ----------
    label, method, n, settings
        Name in tables, selection method, prompts that it chooses, and recipe keys of its own.
    n_seeds : int or None
    flags : tuple of str
    accuracy, interval, by_seed
        Mean, its 95 % interval, and the accuracy of each seed, by its number as text.
    cost, learning_curve
    cost_curve, to_goal
        Where steps of the trainings were evaluated.
    n_without_signal, lengths, mean_tokens, kinds, n_wrong_gold, correlations
        Of the chosen prompts, means over the seeds; all but the first only where a method of the pool took scores.
    """

    label: str = ""
    method: str | None = None
    n: int | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    n_seeds: int | None = None
    flags: tuple[str, ...] = ()
    accuracy: float | None = None
    interval: Ends | None = None
    by_seed: Mapping[str, float | None] = field(default_factory=dict)
    cost: Cost | None = None
    learning_curve: Curve | None = None
    cost_curve: CostCurve | None = field(default=None, metadata=WHERE_KNOWN)
    to_goal: ToGoal | None = field(default=None, metadata=WHERE_KNOWN)
    n_without_signal: float | None = None
    lengths: Lengths | None = None
    mean_tokens: float | None = None
    kinds: Mapping[str, float] | None = None
    n_wrong_gold: float | None = None
    correlations: Correlations | None = None

    @property
    def name(self) -> str:
        """The label, or what else names it."""
        return str(self.label or self.method or "unnamed")

    @property
    def n_done(self) -> int:
        """On how many seeds it has been trained and evaluated."""
        return self.n_seeds if self.n_seeds is not None else sum(value is not None for value in self.by_seed.values())

    def as_json(self) -> dict[str, Any]:
        """What is known: nothing from `accuracy` on before a seed is done, of the pool only where it is known."""
        names, tree = [own.name for own in fields(self)], json_records.as_json(self)
        if self.accuracy is None:
            names = names[: names.index("accuracy")]
        elif self.lengths is None:
            names = names[: names.index("lengths")]
        return {name: tree[name] for name in names if name in tree}


@dataclass(frozen=True)
class Pair:
    """A method minus what it is compared with; the fields are those of `statistics.SeedComparison` and four more.

    `family` are the comparisons that the p-value is corrected with, to `p_holm`; `detectable` is the true difference
    that would be found in 80 of 100 comparisons.
    """

    label: str | None = None
    reference: str | None = None
    family: str | None = None
    difference: float | None = None
    interval: Ends | None = None
    interval_kind: str | None = None
    interval_seeds: Ends | None = None
    interval_problems: Ends | None = None
    reference_at_least: float | None = None
    other_at_least: float | None = None
    p_value: float | None = None
    test: str | None = None
    smallest_p: float | None = None
    wins: int | None = None
    losses: int | None = None
    seed_wins: int | None = None
    seed_losses: int | None = None
    seed_ties: int | None = None
    seed_sd: float | None = None
    n_seeds: int | None = None
    seeds: tuple[int, ...] | None = None
    seeds_left_out: tuple[int, ...] | None = None
    n_problems: int | None = None
    p_holm: float | None = None
    detectable: float | None = None


@dataclass(frozen=True)
class Overlap:
    """Share of the smaller choice that is also in the other: one row and one column per label."""

    labels: tuple[str, ...] = ()
    share: tuple[tuple[float | None, ...], ...] = ()


@dataclass(frozen=True)
class Scatter:
    """Every prompt of one seed, and which of them the method of that label chose (1) or did not (0)."""

    seed: int | None = None
    label: str | None = None
    learnability: tuple[float | None, ...] = ()
    alignment: tuple[float | None, ...] = ()
    chosen: tuple[int | None, ...] = ()
    kind: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class Comparison:
    """All that a comparison found so far.

    Attributes
    ----------
    reference : str or None
        Label of the method that the others are compared with.
    n_cells, n_done : int or None
        Trainings in all, and those that are done and count.
    goal : Goal or None
        What the methods' `to_goal` are about.
    methods : tuple of Method
    comparisons : tuple of Pair
    scatter : Scatter or None
        Of the reference.
    faults : tuple of str
        Why trainings do not count.
    """

    recipe: str | None = None
    description: str | None = None
    reference: str = ""
    seeds: tuple[int, ...] = ()
    n_problems: int | None = None
    benchmark: str | None = None
    git_commit: str | None = None
    device: str | None = None
    processor: str | None = None
    pool_size: int | None = None
    n_cells: int | None = None
    n_done: int | None = None
    training_steps: int | None = None
    prompts_per_step: int | None = None
    base: BaseResult | None = None
    goal: Goal | None = field(default=None, metadata=WHERE_KNOWN)
    methods: tuple[Method, ...] = ()
    comparisons: tuple[Pair, ...] = ()
    overlap: Overlap | None = None
    scatter: Scatter | None = None
    faults: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Comparison:
        """Read results.json; text comes without what HTML, XML and UTF-8 cannot hold, and every method has a label.

        Raises
        ------
        DataError
            When a part of it is of another shape.
        """
        found = json_records.from_json(cls, _mapped(_shown, tree), NAME)
        return replace(found, methods=tuple(replace(method, label=method.name) for method in found.methods))

    def as_json(self) -> dict[str, Any]:
        """As results.json holds it: JSON has no NaN."""
        tree: dict[str, Any] = _mapped(_finite, json_records.as_json(self))
        return tree

    @property
    def is_finished(self) -> bool:
        """Whether every training is done."""
        return self.n_done is not None and self.n_cells is not None and self.n_done >= self.n_cells

    def method(self, label: str) -> Method | None:
        """The method of that label, or None."""
        return next((method for method in self.methods if method.label == label), None)

    def named(self, name: str) -> Method | None:
        """The first method of that name, whatever its size."""
        return next((method for method in self.methods if method.method == name), None)

    def at_reference_size(self, name: str) -> Method | None:
        """The method of that name which chooses as many prompts as the reference, with the recipe's settings."""
        reference = self.method(self.reference) or Method()
        alike = (m for m in self.methods if m.method == name and m.n == reference.n and not m.settings)
        return next(alike, None)

    @property
    def pairs(self) -> dict[str, Pair]:
        """Comparisons by label of the method that is compared."""
        return {str(pair.label): pair for pair in self.comparisons if pair.label}

    def pair(self, label: str) -> Pair:
        """The comparison of that method; an empty one before there is one."""
        return self.pairs.get(label) or Pair()

    def reference_of(self, label: str) -> str:
        """Label of what a method is compared with: the reference, or its method at the size of this one."""
        return self.pair(label).reference or self.reference

    def against(self, label: str) -> str:
        """`against learnalign@50` where a method is not compared with the reference itself."""
        other = self.reference_of(label)
        return "" if other == self.reference else f"against {other}"

    def gap(self, *labels: str) -> str:
        """What stands in an empty cell: `…` while a training of these methods is to come, then a dash."""
        done = self.is_finished or all(self._is_done(label) for label in labels)
        return MISSING if done else WAITING

    def _is_done(self, label: str) -> bool:
        method = self.method(label)
        return method is not None and method.n_done >= max(len(self.seeds), 1)


def _mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The same tree with every key and value that holds no other put through a function."""
    if isinstance(value, Mapping):
        return {function(key): _mapped(function, part) for key, part in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_mapped(function, part) for part in value]
    return function(value)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _shown(value: Any) -> Any:
    """None for a number that is not finite; text without control characters but white space, or lone surrogates."""
    if isinstance(value, str):
        return "".join("\N{REPLACEMENT CHARACTER}" if _is_broken(letter) else letter for letter in value)
    return _finite(value)


def _is_broken(letter: str) -> bool:
    return letter not in "\n\t" and unicodedata.category(letter) in {"Cc", "Cs"}
