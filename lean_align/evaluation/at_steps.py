"""How accuracy grew in a training: adapters of some of its steps, on one fixed subset of the problems.

Each is evaluated as the last one is.  Of the last step, and of a start that changes nothing on the base, the subset's
completions are those of the whole evaluation.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lean_align.artifacts import StageFolder, read_jsonl, write_jsonl
from lean_align.evaluation.problem_sets import ProblemSet
from lean_align.evaluation.solving import BASE, TRAINED, sample_sets
from lean_align.json_records import from_json
from lean_align.recipe import Recipe
from lean_align.rng import rng_for

FOLDER, FILE = "at_steps", "at_steps.jsonl"


@dataclass(frozen=True)
class StepAccuracy:
    """A step of the training, 0 its start, and the mean reward of the subset's `n` problems then, in [0, 1]."""

    step: int
    benchmark: str
    n: int
    accuracy: float


def fixed_subset(problems: ProblemSet, limit: int) -> ProblemSet:
    """`limit` problems of a set, in its order; they follow from their number alone, whatever seed and method are."""
    n = len(problems.prompts)
    kept = sorted(rng_for(0, "evaluation at steps", problems.name).permutation(n)[:limit])
    return replace(problems, prompts=tuple(problems.prompts[i] for i in kept))


def evaluate_steps(
    recipe: Recipe, problems: ProblemSet, adapters: Mapping[int, Path | None], folder: StageFolder
) -> list[StepAccuracy]:
    """Evaluate the adapters of some steps, and write `at_steps.jsonl`, a line a step.

    Parameters
    ----------
    recipe : Recipe
    problems : ProblemSet
        The set that the whole evaluation began with; `folder` has the completions of both models.
    adapters : mapping of int to Path or None
        Folder of each step's adapter; None is the base, and that of the last step the trained model.
    folder : StageFolder
        Gets `at_steps/step-S/<set>.jsonl` of the others; what an earlier attempt left there is gone on with.
    """
    subset, last = fixed_subset(problems, recipe.evaluation.at_limit), max(adapters)
    there = {step: BASE for step, adapter in adapters.items() if adapter is None} | {last: TRAINED}
    own = {step: f"{FOLDER}/step-{step}" for step in adapters if step not in there}
    if own:
        sample_sets(recipe, [subset], {name: adapters[step] for step, name in own.items()}, folder)
    rows = []
    for step in sorted(adapters):
        path = folder.path / (there | own)[step] / f"{problems.name}.jsonl"
        rewards = _mean_rewards(path, {prompt.prompt_id for prompt in subset.prompts})
        rows.append(StepAccuracy(step, problems.name, len(rewards), sum(rewards) / len(rewards)))
    write_jsonl(folder.path / FILE, [asdict(row) for row in rows])
    return rows


def read_steps(folder: Path) -> tuple[StepAccuracy, ...]:
    """What an evaluation's folder says of the steps, in order; nothing where none was asked for."""
    path = folder / FILE
    rows: list[dict[str, Any]] = read_jsonl(path) if path.exists() else []
    return tuple(from_json(StepAccuracy, row, str(path)) for row in rows)


def _mean_rewards(path: Path, prompt_ids: set[str]) -> list[float]:
    """Mean reward of each of some problems' completions."""
    found: dict[str, list[float]] = {}
    for row in read_jsonl(path):
        if row["prompt_id"] in prompt_ids:
            found.setdefault(row["prompt_id"], []).append(row["reward"])
    return [sum(rewards) / len(rewards) for rewards in found.values()]
