"""What a results table is made of: methods with their scores, read from a summary.json."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from lean_align.errors import DataError
from lean_align.types import BenchmarkScore, MeanScore

METHOD_NAMES = {"learnalign": "LearnAlign", "random": "random", "full": "all prompts"}
"""Selection methods as the paper writes them."""
Record = TypeVar("Record")


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
class BenchmarkFacts:
    """What a benchmark is, and how it was put to the models; the same for all methods of a table."""

    title: str
    n: int
    decoding: Decoding
    source: str
    prompt_source: str
    licence: str


@dataclass(frozen=True)
class MethodResults:
    """A row of a results table.

    Attributes
    ----------
    label : str
        `base`, or what was selected: `LearnAlign, 1,000 of 17,290 (ours)`.
    model : str
        The model's name, without the folder or owner before it.
    seed : int or None
        The run's seed, where known.
    scores, benchmarks : mapping
        By name of the benchmark; a method may lack some.
    mean : MeanScore or None
        With the benchmarks that it is over.
    """

    label: str
    model: str
    seed: int | None
    scores: Mapping[str, BenchmarkScore]
    benchmarks: Mapping[str, BenchmarkFacts]
    mean: MeanScore | None


def methods_from_summary(summary: Mapping[str, Any]) -> list[MethodResults]:
    """The methods in a run's summary.json, or in that of `lean-align evaluate MODEL`.

    Parameters
    ----------
    summary : mapping
        With `benchmarks`, and `mean`, `selection`, `model` and `seed` where there are any.

    Returns
    -------
    list of MethodResults
        In the order of the summary: base, then trained.  Empty without benchmarks.

    Raises
    ------
    DataError
        When a score lacks a field.
    """
    trees: Mapping[str, Any] = summary.get("benchmarks") or {}
    _check_trees(trees)
    facts = {name: benchmark_facts(name, tree) for name, tree in trees.items()}
    models = dict.fromkeys(model for tree in trees.values() for model, score in tree["models"].items() if score)
    return [
        MethodResults(
            label=_label(model, summary.get("selection") or {}),
            model=_model_name(summary, model),
            seed=summary.get("seed"),
            scores=scores,
            benchmarks={name: facts[name] for name in scores},
            mean=_mean(summary, model, scores),
        )
        for model, scores in _scores_by_model(models, trees)
    ]


def _check_trees(trees: Any) -> None:
    """Refuse what no evaluation wrote."""
    keys = {"n": int, "decoding": Mapping, "models": Mapping}
    for name, tree in trees.items() if isinstance(trees, Mapping) else [("benchmarks", trees)]:
        if not isinstance(tree, Mapping) or not all(isinstance(tree.get(key), kind) for key, kind in keys.items()):
            raise DataError(
                f"{name} of summary.json has not {', '.join(keys)}; expected a benchmark as an evaluation writes it. "
                "It was changed, or comes from another version: run the evaluation again."
            )


def benchmark_facts(name: str, tree: Mapping[str, Any]) -> BenchmarkFacts:
    """Title, size, decoding and sources of a benchmark of summary.json."""
    decoding = _record(Decoding, tree["decoding"], f"the decoding of {name}")
    given = {"title": name} | {key: value for key, value in tree.items() if value is not None}
    words = {key: str(given.get(key, "not recorded")) for key in ("title", "source", "prompt_source", "licence")}
    return BenchmarkFacts(n=tree["n"], decoding=decoding, **words)


def _scores_by_model(
    models: Mapping[str, None], trees: Mapping[str, Any]
) -> Iterator[tuple[str, dict[str, BenchmarkScore]]]:
    for model in models:
        found = {name: tree["models"][model] for name, tree in trees.items() if tree["models"].get(model)}
        yield (
            model,
            {name: _record(BenchmarkScore, score, f"{name} of {model}") for name, score in found.items()},
        )


def _mean(summary: Mapping[str, Any], model: str, scores: Mapping[str, BenchmarkScore]) -> MeanScore | None:
    tree = (summary.get("mean") or {}).get(model)
    if not tree:
        return None
    given = {"benchmarks": list(scores), "interval_kind": "bootstrap over problems"} | tree
    return _record(MeanScore, given, f"the mean of {model}")


def _record(kind: type[Record], tree: Mapping[str, Any], what: str) -> Record:
    """A frozen record from JSON; lists become tuples, and fields that it does not know are left out."""
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    missing = [name for name in names if name not in tree]
    if missing:
        raise DataError(
            f"{what} has {', '.join(tree)} in summary.json; expected {', '.join(missing)} too. "
            "It comes from another version: run the evaluation again."
        )
    return kind(**{name: tuple(v) if isinstance(v := tree[name], list) else v for name in names})


def _label(model: str, selection: Mapping[str, Any]) -> str:
    if model != "trained" or not selection.get("method"):
        return model
    method = METHOD_NAMES.get(selection["method"], selection["method"])
    return f"{method}, {selection['n']:,} of {selection['pool_size']:,} (ours)"


def _model_name(summary: Mapping[str, Any], model: str) -> str:
    """The run's model; with `lean-align evaluate` each row is a model of its own."""
    if model not in ("base", "trained"):
        return model
    name = str((summary.get("model") or {}).get("name") or model)
    return name.rstrip("/").rpartition("/")[2]
