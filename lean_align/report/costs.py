"""What each method of a comparison cost, and cost until an accuracy was reached."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeAlias

from lean_align.json_records import WHERE_KNOWN

Ends: TypeAlias = tuple[float | None, ...]
"""Both ends of an interval."""


@dataclass(frozen=True)
class Cost:
    """Means over the seeds: of the stages that a method needs in order to choose, and of the training itself.

    Attributes
    ----------
    selection_seconds, training_seconds
    generated_tokens, selection_trained_tokens, selection_read_tokens
        In order to choose: completion tokens that were sampled, gone over with gradients, and without.
    training_tokens, trained_tokens
        Of the training: sampled, and gone over with gradients.
    total_tokens
        All of them.  Those with gradients, and so the total, are None where an earlier version did not count them.
    """

    selection_seconds: float | None = None
    generated_tokens: float | None = None
    training_tokens: float | None = None
    training_seconds: float | None = None
    selection_trained_tokens: float | None = field(default=None, metadata=WHERE_KNOWN)
    selection_read_tokens: float | None = field(default=None, metadata=WHERE_KNOWN)
    trained_tokens: float | None = field(default=None, metadata=WHERE_KNOWN)
    total_tokens: float | None = field(default=None, metadata=WHERE_KNOWN)

    @property
    def seconds(self) -> float | None:
        """Of choosing and training."""
        if self.selection_seconds is None or self.training_seconds is None:
            return None
        return self.selection_seconds + self.training_seconds


@dataclass(frozen=True)
class CostCurve:
    """Accuracy on the fixed subset at each evaluated step, and what was spent by then, choosing included.

    Means over the seeds, and of the accuracy the lowest and the highest seed; `hours` are of this machine.
    """

    step: tuple[int | None, ...] = ()
    accuracy: tuple[float | None, ...] = ()
    low: tuple[float | None, ...] = ()
    high: tuple[float | None, ...] = ()
    generated_tokens: tuple[float | None, ...] = ()
    trained_tokens: tuple[float | None, ...] = ()
    total_tokens: tuple[float | None, ...] = ()
    hours: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Until:
    """What it cost until the goal was reached, or a ratio of two such costs.

    Attributes
    ----------
    value : float or None
        None where it was not reached by the last evaluated step.
    interval : tuple or None
        95 % over seeds; an end that is None is beyond what was trained.  None for one seed.
    share_reached : float or None
        Of the resampled seeds, the share in which it was reached, by both of a ratio.
    at_least, at_most : float or None
        A bound in place of the value: what had been spent by the last step, where the goal was not reached; of a ratio
        where one of the two did not reach it.
    """

    value: float | None = None
    interval: Ends | None = None
    share_reached: float | None = None
    at_least: float | None = None
    at_most: float | None = None


@dataclass(frozen=True)
class ToGoal:
    """Tokens and hours until the goal, on the seeds that the method shares with it, and the ratios of its tokens.

    `to_reference` and `to_random` are the method's tokens as a multiple of the reference's and of random's of the
    reference's size; None where that is not there, or is the method itself.
    """

    n_seeds: int | None = None
    tokens: Until | None = None
    hours: Until | None = None
    to_reference: Until | None = None
    to_random: Until | None = None


@dataclass(frozen=True)
class Goal:
    """The accuracy aimed at: that of the method of this label at its last step, on the fixed subset, over the seeds."""

    label: str | None = None
    step: int | None = None
    accuracy: float | None = None
    n_problems: int | None = None
