"""What a run or an evaluation found out and what it cost: summary.json as a record, and the scores of the pool.

The stages write it, and page, tables and terminal read it.  Summaries of older versions lack keys: what is missing or
null is None here, or empty.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align import json_records
from lean_align.errors import DataError
from lean_align.json_records import WHERE_KNOWN
from lean_align.report.counts import Rollouts, SelectionCounts
from lean_align.report.transfer import Transfer
from lean_align.types import BenchmarkScore, MeanScore, PairedDifference, Proportion, ScoreDifference, Scores

NAME = "summary.json"


@dataclass(frozen=True)
class Model:
    """The model that was trained or evaluated."""

    name: str | None = None
    quantization: str | None = None
    dtype: str | None = None


@dataclass(frozen=True)
class Accuracy:
    """The held-out set: both models, and trained minus base."""

    base: Proportion | None = None
    trained: Proportion | None = None
    difference: PairedDifference | None = None


@dataclass(frozen=True)
class Decoding:
    """How completions were sampled; temperature 0 is greedy."""

    num_samples: int
    temperature: float
    top_p: float
    max_new_tokens: int

    @property
    def greedy(self) -> bool:
        """Whether the likeliest token was always taken."""
        return self.temperature == 0


@dataclass(frozen=True)
class Score(BenchmarkScore):
    """A model on a benchmark, and how long it took, loading not counted; the time is not part of its identity."""

    wall_seconds: float | None = field(default=None, compare=False, metadata=WHERE_KNOWN)


@dataclass(frozen=True)
class Difference(ScoreDifference):
    """The second model minus the first."""

    test: str = "sign flips"
    interval_kind: str = "bootstrap over problems"


@dataclass(frozen=True)
class Mean(MeanScore):
    """The mean of a model over benchmarks."""

    benchmarks: tuple[str, ...] = ()
    interval_kind: str = "bootstrap over problems"


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """What a benchmark is, how it was put to the models, and how they did.

    Attributes
    ----------
    title, source, prompt_source, licence : str or None
    n : int
    decoding : Decoding
    models : mapping of str to Score or None
        By name of the model: `base` and `trained` in a run.
    difference : Difference or None
    """

    title: str | None = None
    source: str | None = None
    prompt_source: str | None = None
    licence: str | None = None
    n: int
    decoding: Decoding
    models: Mapping[str, Score | None]
    difference: Difference | None = None


@dataclass(frozen=True)
class Means:
    """Means over the benchmarks by model, and their difference; JSON has the difference next to the models."""

    models: Mapping[str, Mean | None] = field(default_factory=dict)
    difference: Difference | None = None

    @classmethod
    def from_json(cls, tree: Mapping[str, Any], where: str) -> Means:
        """Read the models and the difference apart."""
        models = {name: mean for name, mean in tree.items() if name != "difference"}
        return json_records.from_json(cls, {"models": models, "difference": tree.get("difference")}, where)

    def as_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        tree = json_records.as_json(self)
        return {**tree["models"], "difference": tree["difference"]}


@dataclass(frozen=True)
class Matches:
    """Problems of a benchmark that training prompts match exactly and nearly, and how many prompts those are."""

    n_problems: int | None = None
    exact: int | None = None
    near: int | None = None
    train_prompts: int | None = None


@dataclass(frozen=True)
class Contamination:
    """What training prompts share with held-out problems.

    Attributes
    ----------
    mode : str or None
        data.contamination of the recipe.
    n_train, n_dropped : int or None
        Training prompts that were compared, and that were left out.
    benchmarks : mapping of str to Matches
    pairs : tuple of mapping
        The first pairs: prompt_id, benchmark, problem_id, kind, similarity.
    n_pairs : int or None
        How many there are in all.
    unchecked : tuple of str
        Benchmarks that came after the prompts were prepared.
    """

    mode: str | None = None
    n_train: int | None = None
    benchmarks: Mapping[str, Matches] = field(default_factory=dict)
    pairs: tuple[Mapping[str, Any], ...] = ()
    n_pairs: int | None = None
    n_dropped: int | None = None
    unchecked: tuple[str, ...] = ()


@dataclass(frozen=True)
class BootstrapStability:
    """The share of the best prompts that draws of the pool have in common with the whole, and its lower bound."""

    replicates: int
    mean_overlap: float
    low_overlap: float


@dataclass(frozen=True)
class SecondSeed:
    """What another seed of the projection changes."""

    share_changed: float
    spearman: float | None = None


@dataclass(frozen=True)
class Stability:
    """How many of the `n` best prompts would be others."""

    n: int | None = None
    bootstrap: BootstrapStability | None = None
    second_seed: SecondSeed | None = None


@dataclass(frozen=True)
class StageCost:
    """Time and peaks of a stage, the planned peaks, and what trained or sampled in it."""

    wall_seconds: float | None = None
    peak_rss_bytes: int | None = None
    peak_vram_bytes: int | None = None
    planned_vram_bytes: int | None = field(default=None, metadata=WHERE_KNOWN)
    planned_rss_bytes: int | None = field(default=None, metadata=WHERE_KNOWN)
    backend: Mapping[str, Any] | None = field(default=None, metadata=WHERE_KNOWN)
    engine: Mapping[str, Any] | None = field(default=None, metadata=WHERE_KNOWN)
    generated_tokens: int | None = field(default=None, metadata=WHERE_KNOWN)

    @property
    def ran(self) -> str:
        """What trained and what sampled, with versions: `lean 0.1.0, vllm 0.32.0`, `trl 1.14.2`, or nothing."""
        named = [
            " ".join(str(found[key]) for key in ("backend", "engine", "version") if key in found)
            for found in (self.backend, self.engine)
            if found
        ]
        return ", ".join(named)


@dataclass(frozen=True)
class Summary:
    """summary.json of a run, or of `lean-align evaluate MODEL`, which has no stages and no selection.

    Attributes
    ----------
    benchmark, accuracy
        Name and figures of the held-out set.
    benchmarks, mean
        By name of the benchmark, in order, and the means over them.
    stages : mapping of str to StageCost
        In the order in which they ran.
    transfer : tuple of Transfer or None
        Of each target that the choice was held against.
    """

    recipe: str | None = None
    seed: int | None = None
    git_commit: str | None = None
    device: str | None = None
    model: Model | None = None
    benchmark: str | None = None
    accuracy: Accuracy | None = None
    benchmarks: Mapping[str, Benchmark] = field(default_factory=dict)
    mean: Means | None = None
    contamination: Contamination | None = None
    rollouts: Rollouts | None = None
    selection: SelectionCounts | None = None
    stability: Stability | None = None
    dropped_rows: int | None = None
    dropped_by_reason: Mapping[str, int] | None = None
    total_wall_seconds: float | None = None
    peak_rss_bytes: int | None = None
    stages: Mapping[str, StageCost] = field(default_factory=dict)
    transfer: tuple[Transfer, ...] | None = field(default=None, metadata=WHERE_KNOWN)

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Summary:
        """Read summary.json.

        Raises
        ------
        DataError
            When a part of it lacks what every version wrote.
        """
        return json_records.from_json(cls, tree, NAME)

    def as_json(self) -> dict[str, Any]:
        """As summary.json holds it."""
        return json_records.as_json(self)

    @property
    def titles(self) -> dict[str, str]:
        """Title of each benchmark by its name."""
        return {name: benchmark.title or name for name, benchmark in self.benchmarks.items()}


@dataclass(frozen=True)
class ReportScores(Scores):
    """Scores of the whole pool and two more columns; every array has one entry per prompt, in the same order.

    Attributes
    ----------
    n_tokens : (n,) int64 or float64, mean length of the prompt's completions in tokens
    selected : (n,) bool, True where the prompt was chosen

    Raises
    ------
    DataError
        If a column is not one-dimensional with one entry per prompt.
    """

    n_tokens: NDArray[np.int64] | NDArray[np.float64]
    selected: NDArray[np.bool_]

    def __post_init__(self) -> None:
        expected = (len(self.prompt_ids),)
        for column in fields(self)[1:]:
            shape = getattr(self, column.name).shape
            if shape != expected:
                raise DataError(
                    f"report column {column.name} has shape {shape}; expected {expected}, one entry for each of "
                    "prompt_ids. Build all columns from one scores.parquet."
                )

    @property
    def n(self) -> int:
        """Number of prompts in the pool."""
        return len(self.prompt_ids)

    @property
    def n_selected(self) -> int:
        """Number of chosen prompts."""
        return int(self.selected.sum())

    @property
    def cut_score(self) -> float | None:
        """Lowest chosen score, or None where the choice is not simply the best N by rank."""
        if not self.n_selected or int(self.rank[self.selected].max()) != self.n_selected:
            return None
        return float(self.score[self.selected].min())
