"""A plan, as a record, as JSON and as a table."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lean_align.memory import human_bytes
from lean_align.table import Table

_HEADER = {
    "cuda": ("stage", "VRAM", "RAM", "tokens", "hours", "disk", ""),
    "cpu": ("stage", "RAM", "tokens", "hours", "disk", ""),
}

TOO_MANY_HOURS = 1000


@dataclass(frozen=True)
class PlannedStage:
    """A stage that is planned.

    Attributes
    ----------
    folder : str
        Its name.
    work : str
        What it does: `rollouts`, `gradients`, `training` or `evaluation`.
    section : str
        Of the recipe, with its settings.
    of_target : bool
        Whether it goes over the target of the selection, and not over the pool.
    """

    folder: str
    work: str
    section: str
    of_target: bool = False


@dataclass(frozen=True)
class StagePlan:
    """What one stage will take.

    Attributes
    ----------
    stage : str
    peak_bytes : int
        On a card, of torch's allocations there; on a CPU, of the process.
    ram_bytes : int
        Of the process; on a CPU the same.
    work_bytes : int
        Part of it: tensors besides the loaded weights.
    tokens : int
        At most: prompts and completions, each completion at its longest.
    hours : float
        For that many tokens.
    disk_bytes : int
        What the stage leaves in the run folder.
    changes : tuple of str
        Recipe keys and values with which it fits, as `--set` takes them; empty where it fits, or where nothing helps.
    fits : bool
    """

    stage: str
    peak_bytes: int
    ram_bytes: int
    work_bytes: int
    tokens: int
    hours: float
    disk_bytes: int
    changes: tuple[str, ...] = ()
    fits: bool = True


@dataclass(frozen=True)
class Plan:
    """A recipe on a device.

    Attributes
    ----------
    recipe, model, device : str
        `device` is `cuda` or `cpu`.
    limit_bytes : int
        Memory of the card, or of the machine.
    weight_bytes : int
        Of the loaded model with its adapter.
    lora_parameters : int
        P.
    download_bytes : int
        Of the model, in 16 bits; 0 of a local folder.
    stages : tuple of StagePlan
    assumptions : tuple of str
        What the figures rest on.
    """

    recipe: str
    model: str
    device: str
    limit_bytes: int
    weight_bytes: int
    lora_parameters: int
    download_bytes: int
    stages: tuple[StagePlan, ...]
    assumptions: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether every stage fits as the recipe is."""
        return all(stage.fits for stage in self.stages)

    @property
    def changes(self) -> tuple[str, ...]:
        """All changes of all stages, each key once: where stages differ, the smallest number."""
        found: dict[str, str] = {}
        for stage in self.stages:
            for key, _, value in (change.partition("=") for change in stage.changes):
                found[key] = min(found.get(key, value), value, key=int) if value.isdigit() else value
        return tuple(f"{key}={value}" for key, value in found.items())

    @property
    def fit(self) -> str | None:
        """Command-line options with which it fits: empty where it fits as it is; None where no key helps."""
        if all(stage.fits or stage.changes for stage in self.stages):
            return " ".join(f"--set {change}" for change in self.changes)
        return None

    @property
    def peak_bytes(self) -> int:
        """Of the largest stage."""
        return max(stage.peak_bytes for stage in self.stages)

    @property
    def ram_bytes(self) -> int:
        """Of the largest process."""
        return max(stage.ram_bytes for stage in self.stages)

    @property
    def disk_bytes(self) -> int:
        """Of the run folder."""
        return sum(stage.disk_bytes for stage in self.stages)

    @property
    def hours(self) -> float:
        """At most."""
        return sum(stage.hours for stage in self.stages)

    @classmethod
    def from_json(cls, found: Mapping[str, Any]) -> Plan:
        """The plan that `as_json` gave."""
        stages = tuple(StagePlan(**{**stage, "changes": tuple(stage["changes"])}) for stage in found["stages"])
        values = {field.name: found[field.name] for field in dataclasses.fields(cls)}
        return cls(**{**values, "stages": stages, "assumptions": tuple(found["assumptions"])})

    def as_json(self) -> dict[str, Any]:
        """The plan as plain values."""
        return {**dataclasses.asdict(self), "fits": self.fits, "changes": list(self.changes)}

    def lines(self) -> list[str]:
        """The plan for people: a table, what to change, and what it rests on."""
        where = f"a card of {human_bytes(self.limit_bytes)}" if self.device == "cuda" else "this CPU"
        rows = [_row(stage, self.device) for stage in self.stages]
        table = Table.of_texts(_HEADER[self.device], rows, words=(0, -1))
        return [
            f"{self.recipe} on {where}: {self.model}, {human_bytes(self.weight_bytes)} loaded, "
            f"{self.lora_parameters:,} LoRA weights, "
            f"{human_bytes(self.download_bytes) if self.download_bytes else 'nothing'} to download",
            *table.text(rule=False),
            self._verdict(),
            *(f"- {assumption}" for assumption in self.assumptions),
        ]

    def _verdict(self) -> str:
        if self.fits and self.device == "cpu" and self.hours > TOO_MANY_HOURS:
            return (
                f"fits the memory, but may take {self.hours:,.0f} hours: too many to be of use on this CPU; demo and "
                "gsm8k-cpu are made for one"
            )
        if self.fits:
            return f"fits; at most {self.hours:.1f} hours"
        if self.fit is not None:
            return f"does not fit as it is (at most {self.hours:.1f} hours); it does with: {self.fit}"
        stuck = [stage.stage for stage in self.stages if not stage.fits and not stage.changes]
        return f"does not fit, and no key helps ({', '.join(stuck)}): take a smaller model, such as that of gsm8k-8gb"


def _row(stage: StagePlan, device: str) -> tuple[str, ...]:
    note = "" if stage.fits else "does not fit" + (f"; {', '.join(stage.changes)}" if stage.changes else "")
    return (
        stage.stage,
        human_bytes(stage.peak_bytes),
        *((human_bytes(stage.ram_bytes),) if device == "cuda" else ()),
        f"{stage.tokens:,}",
        f"{stage.hours:.2f}",
        human_bytes(stage.disk_bytes),
        note,
    )
