"""What a cell had spent by each evaluated step: tokens and seconds, its choice of prompts among them.

Each cell pays for itself whatever was shared: for the stages that its own method needs, and for its training.  Tokens
are of completions, as stages count them: sampled, gone over with gradients, gone over without.  A step's own are what
`rewards.jsonl` and `log.jsonl` say.  A training's seconds are shared out by its tokens: nothing takes them by step,
and loading is among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew
from lean_align.artifacts import read_json, read_jsonl, read_manifest
from lean_align.errors import StageError
from lean_align.evaluation.at_steps import read_steps
from lean_align.pipeline.graph import stored_recipe
from lean_align.pipeline.stage import TOKENS
from lean_align.stages import GRAPH

GENERATED, TRAINED, READ = TOKENS


@dataclass(frozen=True)
class Spent:
    """Completion tokens and seconds.

    Attributes
    ----------
    generated_tokens : int
        Sampled.
    trained_tokens : int or None
        Gone over with gradients; None where a stage of an earlier version does not say.
    read_tokens : int
        Gone over without gradients.
    seconds : float
        On the machine that made them.
    """

    generated_tokens: int = 0
    trained_tokens: int | None = 0
    read_tokens: int = 0
    seconds: float = 0.0

    @property
    def tokens(self) -> int | None:
        """All of them."""
        return None if self.trained_tokens is None else self.generated_tokens + self.trained_tokens + self.read_tokens

    def __add__(self, other: Spent) -> Spent:
        trained = None
        if self.trained_tokens is not None and other.trained_tokens is not None:
            trained = self.trained_tokens + other.trained_tokens
        return Spent(
            self.generated_tokens + other.generated_tokens,
            trained,
            self.read_tokens + other.read_tokens,
            self.seconds + other.seconds,
        )


@dataclass(frozen=True)
class SpentAt:
    """An evaluated step: the accuracy on the fixed subset of `n_problems`, and what had been spent by then."""

    step: int
    accuracy: float
    n_problems: int
    spent: Spent


def selection_spent(cell: Path) -> Spent:
    """What the cell's own method spent before the training."""
    stages = (stage for stage in GRAPH.needed_stages(stored_recipe(cell)) if stage.for_selection)
    before = ((stage, read_manifest(cell / stage.folder)) for stage in stages)
    return total(
        _counted(manifest["counts"], manifest["wall_seconds"], stage.trains is not None or stage.work == "gradients")
        for stage, manifest in before
        if manifest is not None
    )


def reselections(cell: Path) -> list[tuple[int, Spent]]:
    """What choosing again took in a training in rounds, each with the steps that were done by then."""
    counts = read_json(cell / "training" / "manifest.json")["counts"]
    if "selection_tokens" in counts and "reselections" not in counts:  # of an earlier version, which had the sum alone
        return [(0, Spent(counts["selection_tokens"], None, 0, counts["selection_seconds"]))]
    return [(row["after_step"], _counted(row, row["seconds"], True)) for row in counts.get("reselections", [])]


def training_spent(cell: Path) -> Spent:
    """What the whole training spent, the choosing of later rounds apart."""
    manifest = read_json(cell / "training" / "manifest.json")
    return _counted(manifest["counts"], manifest["counts"].get("training_seconds", manifest["wall_seconds"]), True)


def training_by_step(cell: Path) -> list[Spent]:
    """What the training had spent after each number of steps, 0 first, the choosing of later rounds apart.

    Raises
    ------
    StageError
        When its files are not of the same steps.
    """
    seconds = training_spent(cell).seconds
    sampled, log = (read_jsonl(cell / "training" / name) for name in ("rewards.jsonl", "log.jsonl"))
    if len(sampled) != len(log):
        raise StageError(
            f"{cell / 'training'} has the rewards of {len(sampled)} steps and the log of {len(log)}; expected as many. "
            + made_anew(cell / "training")
        )
    steps = _spent_by_step(sampled, log)
    passed = [spent.tokens if spent.tokens is not None else spent.generated_tokens for spent in steps]
    whole = passed[-1] or 1
    return [
        Spent(spent.generated_tokens, spent.trained_tokens, spent.read_tokens, seconds * done / whole)
        for spent, done in zip(steps, passed)
    ]


def spent_at_steps(cell: Path) -> tuple[SpentAt, ...]:
    """The evaluated steps of a finished cell; none where the recipe asks for none."""
    found = read_steps(cell / "evaluation")
    if not found:
        return ()
    before, training, again = selection_spent(cell), training_by_step(cell), reselections(cell)
    return tuple(
        SpentAt(
            row.step,
            row.accuracy,
            row.n,
            total([before, training[row.step], *(spent for done, spent in again if done < row.step)]),
        )
        for row in found
    )


def _spent_by_step(rewards: Sequence[Mapping[str, Any]], log: Sequence[Mapping[str, float]]) -> list[Spent]:
    steps = (
        Spent(
            sum(tokens for group in sampled["n_tokens"] for tokens in group),
            int(logged[TRAINED]) if TRAINED in logged else None,
            int(logged.get(READ, 0)),
        )
        for sampled, logged in zip(rewards, log)
    )
    return list(accumulate(steps, initial=Spent()))


def _counted(counts: Mapping[str, Any], seconds: float, takes_gradients: bool) -> Spent:
    """A stage's counts; one that takes gradients and does not say of how many tokens is of an earlier version."""
    trained = counts.get(TRAINED, None if takes_gradients else 0)
    return Spent(counts.get(GENERATED) or 0, trained, counts.get(READ) or 0, float(seconds))


def total(parts: Iterable[Spent]) -> Spent:
    """The sum of some."""
    return sum(parts, Spent())
