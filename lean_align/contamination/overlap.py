"""What a contamination check found."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True, order=True)
class ContaminationPair:
    """A training prompt and the benchmark's problem that it matches.

    Attributes
    ----------
    prompt_id, benchmark, problem_id : str
    kind : str
        `exact` (equal after normalisation) or `near`.
    similarity : float
        Share of the problem's tokens that are found again in the prompt, in passages of three or more; 1.0 if exact.
    """

    prompt_id: str
    benchmark: str
    problem_id: str
    kind: str
    similarity: float


@dataclass(frozen=True)
class BenchmarkOverlap:
    """Counts of one benchmark.

    Attributes
    ----------
    benchmark : str
    n_problems : int
        Of the whole benchmark.
    n_exact : int
        Problems that a training prompt matches exactly.
    n_near : int
        Further problems that a training prompt matches nearly.
    n_prompts : int
        Training prompts that match one of its problems.
    """

    benchmark: str
    n_problems: int
    n_exact: int
    n_near: int
    n_prompts: int


@dataclass(frozen=True)
class Contamination:
    """All pairs that were found, sorted by prompt_id, benchmark and problem_id, and the counts of each benchmark.

    `n_prompts` counts the training prompts that were looked at.
    """

    pairs: tuple[ContaminationPair, ...]
    overlaps: tuple[BenchmarkOverlap, ...]
    n_prompts: int

    def as_rows(self) -> list[dict[str, Any]]:
        """A plain row for each pair, to be written as JSON lines."""
        return [asdict(pair) for pair in self.pairs]

    def as_json(self) -> dict[str, Any]:
        """Counts of each benchmark and all pairs, as one JSON object."""
        benchmarks = {overlap.benchmark: asdict(overlap) for overlap in self.overlaps}
        for counts in benchmarks.values():
            del counts["benchmark"]
        return {"n_prompts": self.n_prompts, "benchmarks": benchmarks, "pairs": self.as_rows()}


def summarise(pairs: Iterable[ContaminationPair], sizes: Mapping[str, int], n_prompts: int) -> Contamination:
    """Sort pairs and count them by benchmark; `sizes` holds each benchmark's number of problems."""
    ordered = tuple(sorted(pairs))
    overlaps = []
    for benchmark in sorted(sizes):
        own = [pair for pair in ordered if pair.benchmark == benchmark]
        exact = {pair.problem_id for pair in own if pair.kind == "exact"}
        near = {pair.problem_id for pair in own} - exact
        prompts = {pair.prompt_id for pair in own}
        overlaps.append(BenchmarkOverlap(benchmark, sizes[benchmark], len(exact), len(near), len(prompts)))
    return Contamination(ordered, tuple(overlaps), n_prompts)
