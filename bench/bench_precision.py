"""Which error matters: a 16-bit base, a 4-bit base, or the projection, each against float32 without projection.

`cosine` and `norm_ratio` are between the gradients of a prompt (a projection changes its length, so its cosine is not
defined); `pairwise_cosine_error` is the mean absolute change of the cosine between two prompts, which the score is made
of; `spearman` and `overlap` compare the scores. All take the gradients of the same real completions. On SmolLM2
rewards are planted, so only the directions are real.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch

from bench.cases import AbsentError, demo_run, real_case
from bench.measure import Row, Settings, attempt, cosine, pairwise_cosines, spread, top_overlap
from bench.passes import exact_scores, stored_scores, unprojected
from lean_align.gradients import GradientSettings
from lean_align.policy import Policy, load_policy
from lean_align.projection import make_projector
from lean_align.recipe import Recipe
from lean_align.statistics import spearman
from lean_align.types import Group

PROJ_DIM = 8192
BASES = {
    "bfloat16 base": ("none", "bfloat16"),
    "NF4 base, float32 arithmetic": ("nf4", "float32"),
    "NF4 base, bfloat16 arithmetic": ("nf4", "bfloat16"),
}


@dataclass(frozen=True)
class Subject:
    """Groups, and a policy for each kind of base."""

    name: str
    recipe: Recipe
    groups: list[Group]
    policy: Callable[[str, str], Policy]

    def gradients(self, quantization: str, dtype: str) -> np.ndarray:
        policy = self.policy(quantization, dtype)
        return unprojected(policy, self.groups, GradientSettings.of(self.recipe))


def measure(settings: Settings) -> Iterator[Row]:
    yield from _compare(_demo(settings), settings)
    if settings.size == "quick":
        yield {"model": "smollm2", "note": "with --full only"}
        return
    try:
        case = real_case(settings.pick(1, 0, 16), settings.pick(16, 0, 100))
    except AbsentError as error:
        yield {"model": "smollm2", "note": f"skipped: {error}"}
    else:
        yield from _compare(Subject(case.name, case.recipe, case.groups(), case.policy), settings)


def _demo(settings: Settings) -> Subject:
    run_dir, recipe, groups = demo_run()

    def policy(quantization: str, dtype: str) -> Policy:
        model = replace(recipe.model, quantization=quantization, dtype=dtype)
        return load_policy(model, recipe.data, adapter=run_dir / "warmup" / "adapter")

    return Subject("demo", recipe, groups[: settings.pick(6, None, None)], policy)


def _compare(subject: Subject, settings: Settings) -> Iterator[Row]:
    rates = np.array([group.success_rate for group in subject.groups])
    best = min(subject.recipe.selection.n, len(rates))
    exact = subject.gradients("none", "float32")
    scores, cosines = exact_scores(exact, rates), pairwise_cosines(exact)
    columns: Row = {"model": subject.name, "prompts": len(rates)}

    def of_scores(guess: np.ndarray, pairs: np.ndarray) -> Row:
        error = float(abs(pairs - cosines).mean()) if len(pairs) else None
        ranks = spearman(guess, scores) if len(rates) > 4 else None
        return {"pairwise_cosine_error": error, "spearman": ranks, "overlap": top_overlap(guess, scores, best)}

    def of_base(quantization: str, dtype: str) -> Row:
        found = subject.gradients(quantization, dtype)
        lengths = np.linalg.norm(found, axis=1) / np.linalg.norm(exact, axis=1)
        row = {"cosine": spread(map(cosine, found, exact)), "norm_ratio": spread(lengths)}
        return row | of_scores(exact_scores(found, rates), pairwise_cosines(found))

    def of_projection(seed: int, whole: np.ndarray) -> Row:
        projected = make_projector("sjlt", whole.shape[1], PROJ_DIM, seed).project(torch.from_numpy(whole)).numpy()
        lengths = np.linalg.norm(projected, axis=1) / np.linalg.norm(exact, axis=1)
        found = of_scores(stored_scores(projected, rates), pairwise_cosines(projected))
        return {"norm_ratio": spread(lengths)} | found

    for name, kind in BASES.items():
        yield attempt(columns | {"error": name}, lambda kind=kind: of_base(*kind))
    for seed in range(settings.seed, settings.seed + settings.times(3, 3)):
        name = f"projection alone, sjlt, proj_dim {PROJ_DIM}, seed {seed}"
        yield attempt(columns | {"error": name}, lambda seed=seed: of_projection(seed, exact))
    name = f"NF4 base, bfloat16 arithmetic, and projection, seed {settings.seed}"
    both = BASES["NF4 base, bfloat16 arithmetic"]
    yield attempt(columns | {"error": name}, lambda: of_projection(settings.seed, subject.gradients(*both)))
