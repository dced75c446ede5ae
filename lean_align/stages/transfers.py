"""What a choice promises for a target before anything is trained: `scoring.transfer` on the stages of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lean_align.artifacts import read_json
from lean_align.errors import StageError
from lean_align.recipe import Recipe
from lean_align.report.transfer import NAME, ChoiceTransfer, Direction, Transfer
from lean_align.scoring.transfer import REPLICATES, MeanCosine, mean_cosines
from lean_align.selection import SelectionPool, TargetProblems, find_method, recipe_method, select_prompts
from lean_align.selection.pool import given
from lean_align.stages.inputs import chosen_ids, read_prompts
from lean_align.stages.selection import read_pool

TRANSFER = "transfer"
"""Folder of a run, or of a comparison, with one of each target that it was held against."""
AIMED = "learnalign-target"
"""The method whose stages are those that are needed: rollouts and gradients, of the pool and of the target."""
BASELINES = ("random", "learnability")


@dataclass(frozen=True)
class AimedPool:
    """A pool and a target, with the weights of both: V, and the norms of the projected gradients."""

    pool: SelectionPool
    target: TargetProblems
    weights: tuple[NDArray[np.float64], NDArray[np.float64]]
    target_weights: tuple[NDArray[np.float64], NDArray[np.float64]]

    @classmethod
    def read(cls, recipe: Recipe, run_dir: Path) -> AimedPool:
        """From the finished stages of a run that has them."""
        pool = read_pool(recipe, run_dir, read_prompts(run_dir, "train"), find_method(AIMED))
        target, gradients = given(pool.target, "target"), given(pool.gradients, "gradients")
        target.check_pool(pool)
        norms, target_norms = (np.asarray(one.norms, np.float64) for one in (gradients, target.rows("gradients")))
        v = given(pool.learnability(), "rewards")
        return cls(pool, target, (v, norms), (target.learnability, target_norms))

    def places(self, prompt_ids: Sequence[str], whose: str) -> NDArray[np.int64]:
        """Rows of some prompts.

        Raises
        ------
        StageError
            When one of them is not in the pool.
        """
        place = {prompt_id: row for row, prompt_id in enumerate(self.pool.prompt_ids)}
        strange = [prompt_id for prompt_id in prompt_ids if prompt_id not in place]
        if strange:
            raise StageError(
                f"{whose} chose {len(strange)} prompts that are not in the pool whose gradients were taken (first: "
                f"{strange[0]}); expected a choice from one pool."
            )
        return np.array([place[prompt_id] for prompt_id in prompt_ids], dtype=np.int64)

    def cosines(
        self, choices: Mapping[str, NDArray[np.int64]], seed: int, replicates: int = REPLICATES
    ) -> tuple[dict[str, MeanCosine], dict[str, MeanCosine]]:
        """Of each choice, weighed by V and by the gradients' norms."""
        rows, problems = given(self.pool.gradients, "gradients"), self.target.rows("gradients")
        by_v, by_norm = (
            mean_cosines(rows, w, choices, problems, w_target, seed, self.target.in_both, replicates)
            for w, w_target in zip(self.weights, self.target_weights, strict=True)
        )
        return by_v, by_norm


def choice_transfer(recipe: Recipe, run_dir: Path, aimed: AimedPool, target: str) -> Transfer:
    """Hold a run's choice, a random one and V alone of its size against a target.

    Parameters
    ----------
    recipe : Recipe
        The run's.
    run_dir : Path
        With a finished selection.
    aimed : AimedPool
        The run's pool, and the target.
    target : str
        Its name.

    Raises
    ------
    StageError
        When a chosen prompt is not in the pool.
    """
    method = recipe.selection.method
    choices = {method: aimed.places(chosen_ids(run_dir), str(run_dir))}
    for name in BASELINES:
        if name != method:
            choices[name] = select_prompts(find_method(name), aimed.pool, len(choices[method]))[1].order
    by_v, by_norm = aimed.cosines(choices, recipe.seed)
    v = aimed.weights[0]
    found = tuple(
        ChoiceTransfer(name, len(own), int((v[own] > 0).sum()), _direction(by_v[name]), _direction(by_norm[name]))
        for name, own in choices.items()
    )
    n_learnable = int((aimed.target.learnability > 0).sum())
    return Transfer(target, len(aimed.target), n_learnable, recipe.seed, REPLICATES, found)


def read_transfers(run_dir: Path) -> list[Transfer]:
    """What `lean-align transfer` found of a run, by the name of the folder."""
    return [Transfer.from_json(read_json(path)) for path in sorted((run_dir / TRANSFER).glob(f"*/{NAME}"))]


def aims_by_gradients(recipe: Recipe) -> bool:
    """Whether a run has the gradients of its target."""
    return recipe_method(recipe).needs.issuperset(("gradients", "target"))


def run_transfers(recipe: Recipe, run_dir: Path) -> tuple[Transfer, ...]:
    """All that a run can say: of its own target where its method aims at one by gradients, and what was asked for."""
    own: list[Transfer] = []
    if aims_by_gradients(recipe):
        target = str(recipe.selection.target)
        own = [choice_transfer(recipe, run_dir, AimedPool.read(recipe, run_dir), target)]
    named = {found.target for found in own}
    return (*own, *(found for found in read_transfers(run_dir) if found.target not in named))


def _direction(found: MeanCosine) -> Direction:
    return Direction(found.cosine, found.interval, found.lead, found.lead_interval)
