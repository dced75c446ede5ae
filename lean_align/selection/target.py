"""The target of a selection, as a method sees it, and what aims at it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.errors import DataError
from lean_align.store.gradient_store import GradientStore

if TYPE_CHECKING:
    from lean_align.selection.pool import SelectionPool


@dataclass(frozen=True)
class TargetProblems:
    """Problems of what is wanted, in the order of `prompt_ids`; neither their text nor their golds.

    Attributes
    ----------
    prompt_ids : tuple of str
    success_rate, learnability : (m,) float64
        p and V, from RUN/target_rollouts.
    gradients : GradientStore or None
        Unit rows, from RUN/target_gradients, by the projection of the pool's; of methods that need `gradients`.
    features : GradientStore or None
        Mean hidden states, from RUN/target_features; of methods that need `features`.
    in_both : mapping of int to sequence of int
        Index into the pool -> indices into the target, for prompts that are in both.

    Raises
    ------
    DataError
        When a field is of other problems, or no problem has V above 0: then nothing says where to aim.
    """

    prompt_ids: tuple[str, ...]
    success_rate: NDArray[np.float64]
    learnability: NDArray[np.float64]
    gradients: GradientStore | None = None
    features: GradientStore | None = None
    in_both: Mapping[int, Sequence[int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        n = len(self.prompt_ids)
        for name in ("success_rate", "learnability"):
            if (shape := getattr(self, name).shape) != (n,):
                raise DataError(f"the target has {n} problems and {name} of shape {shape}; expected one per problem.")
        for name in ("gradients", "features"):
            store = getattr(self, name)
            if store is not None and store.prompt_ids != self.prompt_ids:
                raise DataError(f"{name} of the target are of other problems than its own. Make them again.")
        if not np.any(self.learnability != 0):
            raise DataError(
                f"no problem of the target can teach: all {n} are always or never solved. Take problems of which the "
                "model solves some (selection.target), or more of them."
            )

    def __len__(self) -> int:
        return len(self.prompt_ids)

    def rows(self, name: str) -> GradientStore:
        """Its gradients or features, by name.

        Raises
        ------
        DataError
            When there are none.
        """
        found: GradientStore | None = getattr(self, name)
        if found is None:
            raise DataError(f"the target has no {name}; name {name} beside `target` in what the method needs.")
        return found

    def check_pool(self, pool: SelectionPool) -> None:
        """Refuse rows that cannot be compared with the pool's.

        Raises
        ------
        DataError
            When they are of another length or projection, or `in_both` names what is not there.
        """
        for name in ("gradients", "features"):
            own, other = getattr(self, name), getattr(pool, name)
            if own is not None and other is not None:
                _check_alike(name, own, other)
        outside = [i for i, found in self.in_both.items() if i >= len(pool) or max(found, default=0) >= len(self)]
        if outside:
            raise DataError(
                f"the target says that prompt {outside[0]} of a pool of {len(pool)} is one of its problems."
            )


def _check_alike(name: str, own: GradientStore, other: GradientStore) -> None:
    if own.proj_dim != other.proj_dim:
        raise DataError(
            f"{name} of the target have {own.proj_dim} numbers a row, the pool's {other.proj_dim}; expected rows of "
            "one projection. Make them again."
        )
    differences = own.other_projection(other)
    if differences:
        raise DataError(
            f"{own.folder} holds rows of another projection than {other.folder}:\n  "
            + "\n  ".join(differences)
            + f"\n{made_anew(own.folder)}"
        )
