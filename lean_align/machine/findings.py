"""What is found in the facts of a machine, and which shipped recipes can run there."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]
MAIN_RECIPE = "gsm8k"
"""The recipe that decides the exit status."""
_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True)
class Finding:
    """One check: what was got, what was expected, and the command that fixes it.

    Attributes
    ----------
    name : str
    status : str
        `ok`, `warn` (it works, or may) or `fail`.
    got, expected : str
    command : str or None
        A shell command, or several, one per line; None where nothing is to be done.
    stops : tuple of str
        Shipped recipes that cannot run because of it.
    """

    name: str
    status: Status
    got: str
    expected: str = ""
    command: str | None = None
    stops: tuple[str, ...] = ()


@dataclass(frozen=True)
class Diagnosis:
    """Every finding, and which shipped recipes can run."""

    findings: tuple[Finding, ...]
    recipes: tuple[str, ...]

    @property
    def can_run(self) -> dict[str, bool]:
        """Whether each shipped recipe can run here: as shipped, or with the settings of a finding."""
        stopped = {recipe for finding in self.findings for recipe in finding.stops}
        return {recipe: recipe not in stopped for recipe in self.recipes}

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        return {"can_run": self.can_run, "findings": [dataclasses.asdict(finding) for finding in self.findings]}

    def lines(self) -> list[str]:
        """The diagnosis for people: one line per finding, the command below it, the verdict last."""
        width = max((len(finding.name) for finding in self.findings), default=0)
        return [line for finding in self.findings for line in _finding_lines(finding, width)] + [self._verdict()]

    def _verdict(self) -> str:
        able = [recipe for recipe, can in self.can_run.items() if can]
        others = f"Shipped recipes that can: {', '.join(able) or 'none'}."
        if self.can_run[MAIN_RECIPE]:
            return f"{MAIN_RECIPE} can run here. {others}"
        reasons = ", ".join(finding.name for finding in self.findings if MAIN_RECIPE in finding.stops)
        return f"{MAIN_RECIPE} cannot run here ({reasons}). {others}"


def _finding_lines(finding: Finding, width: int) -> list[str]:
    below = [f"expected {finding.expected}"] if finding.status != "ok" and finding.expected else []
    below += [f"$ {command}" for command in (finding.command or "").splitlines()]
    first = f"{_MARKS[finding.status]:<4}  {finding.name:<{width}}  {finding.got}"
    return [first, *(f"{'':<{width + 8}}{line}" for line in below)]
