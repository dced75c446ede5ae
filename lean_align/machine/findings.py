"""Facts of a machine, and what is found in them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Status = Literal["ok", "warn", "fail"]
MAIN_RECIPE = "gsm8k"
"""The recipe that decides the exit status."""
_MARKS = {"ok": "ok", "warn": "warn", "fail": "FAIL"}


@dataclass(frozen=True)
class Report:
    """What a probe in a child process brought back: values, or the line that says why there are none."""

    values: Mapping[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class Card:
    """A card that torch sees."""

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Disk:
    """Where a folder lies, or would lie; `device` is equal for folders that share their free bytes."""

    folder: str
    free_bytes: int
    device: int


@dataclass(frozen=True)
class Machine:
    """Facts of a machine.

    Attributes
    ----------
    python : str
        Version.
    cpus : int
        Cores that this process may use.
    memory_bytes, available_bytes : int or None
        RAM, or the limit that was put on this process; None where the system does not say.
    driver : str or None
        Version of NVIDIA's driver.
    nvidia_devices : int
        NVIDIA's display devices on the bus, with or without a driver.
    visible_devices : str or None
        CUDA_VISIBLE_DEVICES.
    versions : mapping of str to str or None
        Installed packages; None where one is missing.
    ranges : mapping of str to str
        Supported versions as this installation of lean-align declares them; empty where it is not installed.
    disk : Disk
        Of the current folder.
    cache : Disk or None
        Of the hub's cache; None where it could not be found out.
    probes : mapping of str to Report
        By name; `unsloth` and `vllm` only where they are installed.
    """

    python: str
    cpus: int
    memory_bytes: int | None
    available_bytes: int | None
    driver: str | None
    nvidia_devices: int
    visible_devices: str | None
    versions: Mapping[str, str | None]
    ranges: Mapping[str, str]
    disk: Disk
    cache: Disk | None
    probes: Mapping[str, Report]

    @property
    def has_nvidia(self) -> bool:
        """Whether an NVIDIA card is in the machine, usable or not."""
        return self.driver is not None or self.nvidia_devices > 0

    @property
    def cards(self) -> tuple[Card, ...]:
        """The cards that torch sees."""
        return tuple(
            Card(c["name"], c["total_bytes"], c["free_bytes"], (c["capability"][0], c["capability"][1]))
            for c in self.probes["torch"].values.get("cards", ())
        )


@dataclass(frozen=True)
class Finding:
    """One check: what was got, what was expected, and the command that mends it.

    Attributes
    ----------
    name : str
    status : str
        `ok`, `warn` (it works, or may) or `fail`.
    got, expected : str
    command : str or None
        A shell command, or several, one a line; None where nothing is to be done.
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
        """Whether each shipped recipe can run here, as it is shipped."""
        stopped = {recipe for finding in self.findings for recipe in finding.stops}
        return {recipe: recipe not in stopped for recipe in self.recipes}

    def as_json(self) -> dict[str, Any]:
        """The diagnosis as plain values."""
        return {"can_run": self.can_run, "findings": [dataclasses.asdict(finding) for finding in self.findings]}

    def lines(self) -> list[str]:
        """The diagnosis for people: a line a finding, the command below it, the verdict last."""
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
