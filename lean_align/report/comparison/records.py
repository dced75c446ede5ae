"""What a comparison found, as the page and the tables read it.

The results are JSON and may be incomplete: while the table fills in, any part can be absent, null or NaN.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lean_align.report.formatting import MISSING

WAITING = "…"
"""Stands in a cell whose trainings are still to come."""

Tree = Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Results without non-finite numbers and control characters, and what is looked up in them.

    Attributes
    ----------
    tree : mapping
        The whole of the results; a NaN or an infinity has become None.
    methods : tuple of mapping
        Entries of `methods` in the order given, each with its label.
    paired : mapping
        Entries of `comparisons` by label of the method that is compared.
    """

    tree: Tree
    methods: tuple[Tree, ...]
    paired: Mapping[str, Tree]

    @property
    def reference(self) -> str:
        """Label of the method that the others are compared with; empty where none is named."""
        return str(self.tree.get("reference") or "")

    @property
    def seeds(self) -> list[int]:
        """Seeds of the comparison, in the order given."""
        return list(self.tree.get("seeds") or [])

    @property
    def is_finished(self) -> bool:
        """Whether every training is done."""
        n_done, n_cells = self.tree.get("n_done"), self.tree.get("n_cells")
        return n_done is not None and n_cells is not None and n_done >= n_cells

    def method(self, label: str) -> Tree | None:
        """The method of that label, or None."""
        return next((method for method in self.methods if method["label"] == label), None)

    def at_reference_size(self, name: str) -> Tree | None:
        """The method of that name which chooses as many prompts as the reference, with the recipe's settings."""
        reference = self.method(self.reference) or {}
        return next(
            (
                method
                for method in self.methods
                if method.get("method") == name and method.get("n") == reference.get("n") and not method.get("settings")
            ),
            None,
        )

    def reference_of(self, label: str) -> str:
        """Label of what a method is compared with: the reference, or its method at the size of this one."""
        return str((self.paired.get(label) or {}).get("reference") or self.reference)

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
        return method is not None and n_seeds(method) >= max(len(self.seeds), 1)


def read_comparison(results: Tree) -> Comparison:
    """Take the results of a comparison apart.

    Parameters
    ----------
    results : mapping
        As `write_comparison` describes them.
    """
    tree: dict[str, Any] = _cleaned(dict(results))
    methods = tuple(
        {**method, "label": str(method.get("label") or method.get("method") or "unnamed")}
        for method in tree.get("methods") or []
    )
    paired = {str(row["label"]): row for row in tree.get("comparisons") or [] if row.get("label")}
    return Comparison(tree, methods, paired)


def n_seeds(method: Tree) -> int:
    """On how many seeds a method has been trained and evaluated."""
    n = method.get("n_seeds")
    return int(n) if n is not None else len([value for value in by_seed(method).values() if value is not None])


def by_seed(method: Tree) -> Tree:
    """Accuracy by seed, the seed as JSON holds it: a string."""
    return {str(seed): value for seed, value in (method.get("by_seed") or {}).items()}


def bounds(interval: object) -> tuple[float, float] | None:
    """Both ends of an interval, or None where one is missing."""
    if not isinstance(interval, list | tuple) or len(interval) != 2 or None in interval:
        return None
    return float(interval[0]), float(interval[1])


def _cleaned(value: Any) -> Any:
    """None for a number that is none, and text that HTML, XML and UTF-8 can hold."""
    if isinstance(value, Mapping):
        return {_cleaned(key): _cleaned(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_cleaned(part) for part in value]
    if isinstance(value, str):
        return "".join("\N{REPLACEMENT CHARACTER}" if _is_broken(letter) else letter for letter in value)
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _is_broken(letter: str) -> bool:
    """Whether it is a control character other than white space, or half of a surrogate pair."""
    return letter not in "\n\t" and unicodedata.category(letter) in {"Cc", "Cs"}
