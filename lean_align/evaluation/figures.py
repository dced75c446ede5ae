"""The figures of an evaluation, from the completions on disk: every model on every set, and the models compared."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

from lean_align.evaluation.benchmark_scores import (
    Outcomes,
    compare_scores,
    mean_difference,
    mean_score,
    problem_means,
    score_completions,
)
from lean_align.evaluation.problem_sets import ProblemSet
from lean_align.statistics import accuracy, paired_difference
from lean_align.types import Outcome

Of = TypeVar("Of")


def evaluation_summary(sets: Sequence[ProblemSet], folders: Mapping[str, Path], seed: int) -> dict[str, Any]:
    """All that an evaluation found out, as `summary.json` holds it.

    Parameters
    ----------
    sets : sequence of ProblemSet
        The first may be a held-out set; the others are benchmarks.
    folders : mapping of str to Path
        Names of one or two models, and the folder of each with `<set>.jsonl`.  Two are compared, the second minus the
        first.
    seed : int
        Of bootstraps and sign flips.

    Returns
    -------
    dict
        benchmark and accuracy of the held-out set (null without one), benchmarks, mean.
    """
    held_out = next((s for s in sets if s.facts is None), None)
    benchmarks = [s for s in sets if s.facts is not None]
    outcomes = {
        problems.name: {m: read_outcomes(folder / f"{problems.name}.jsonl", problems) for m, folder in folders.items()}
        for problems in sets
    }
    tree = {
        "benchmark": held_out.name if held_out else None,
        "accuracy": _held_out(outcomes[held_out.name]) if held_out else None,
        "benchmarks": {s.name: _benchmark(s, outcomes[s.name], seed) for s in benchmarks},
        "mean": _mean({s.name: outcomes[s.name] for s in benchmarks}, list(folders), seed) if benchmarks else None,
    }
    return dict(json.loads(json.dumps(tree)))  # as it is read back: lists instead of tuples


def add_seconds(benchmarks: Mapping[str, Any], seconds: Mapping[str, float]) -> None:
    """Put the seconds of `<model>/<benchmark>` next to the scores; models of other evaluations have none."""
    for name, benchmark in benchmarks.items():
        for model, score in benchmark["models"].items():
            if f"{model}/{name}" in seconds:
                score["wall_seconds"] = seconds[f"{model}/{name}"]


def read_outcomes(path: Path, problems: ProblemSet) -> dict[str, list[Outcome]]:
    """What each problem's completions came to, by problem, in the order of the set."""
    found: dict[str, list[Outcome]] = {prompt.prompt_id: [] for prompt in problems.prompts}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            answered = problems.extract(row["completion"]) is not None
            found[row["prompt_id"]].append(Outcome(row["reward"], row["n_tokens"], row["finished"], answered))
    return found


def _held_out(outcomes: Mapping[str, Outcomes]) -> dict[str, Any]:
    rewards = {model: {key: found[0].reward for key, found in problems.items()} for model, problems in outcomes.items()}
    tree: dict[str, Any] = {model: asdict(accuracy(list(found.values()))) for model, found in rewards.items()}
    base, trained = rewards.values()
    return tree | {"difference": asdict(paired_difference(base, trained))}


def _benchmark(problems: ProblemSet, outcomes: Mapping[str, Outcomes], seed: int) -> dict[str, Any]:
    before, after = _first_and_last(outcomes)
    return {
        **(problems.facts or {}),
        "n": len(problems.prompts),
        "decoding": problems.decoding(),
        "models": {model: asdict(score_completions(found, seed)) for model, found in outcomes.items()},
        "difference": asdict(compare_scores(before, after, seed)) if len(outcomes) == 2 else None,
    }


def _mean(outcomes: Mapping[str, Mapping[str, Outcomes]], models: Sequence[str], seed: int) -> dict[str, Any]:
    means = {model: {name: problem_means(by_model[model]) for name, by_model in outcomes.items()} for model in models}
    tree: dict[str, Any] = {model: asdict(mean_score(found, seed)) for model, found in means.items()}
    before, after = _first_and_last(means)
    return tree | {"difference": asdict(mean_difference(before, after, seed)) if len(means) == 2 else None}


def _first_and_last(by_model: Mapping[str, Of]) -> tuple[Of, Of]:
    found = list(by_model.values())
    return found[0], found[-1]
