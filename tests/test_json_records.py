"""Records of JSON: what is read, what is written, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from lean_align.errors import DataError
from lean_align.json_records import WHERE_KNOWN, as_json, from_json
from lean_align.report import Comparison, Summary
from tests.test_comparison_report import LABELS, half_full, make_results
from tests.test_report import BENCHMARKED, SUMMARY


@dataclass(frozen=True)
class Part:
    n: int
    ends: tuple[float | None, ...] = ()


@dataclass(frozen=True)
class Whole:
    part: Part | None = None
    parts: Mapping[str, Part | None] = field(default_factory=dict)
    rows: tuple[Part, ...] = ()
    seconds: float | None = field(default=None, metadata=WHERE_KNOWN)
    other: Mapping[str, Any] | None = None


def test_records_come_back_as_they_were_written() -> None:
    whole = Whole(Part(1, (0.5, None)), {"a": Part(2), "b": None}, (Part(3),))
    tree = json.loads(json.dumps(as_json(whole)))
    assert from_json(Whole, tree, "it") == whole
    assert list(tree) == ["part", "parts", "rows", "other"]
    assert list(as_json(Whole(seconds=1.0)))[3] == "seconds"


def test_what_is_missing_null_or_unknown_is_the_default() -> None:
    tree = {"part": None, "parts": {"a": {}, "b": {"n": 1, "new": 2}}, "rows": None, "newer": [1]}
    assert from_json(Whole, tree, "it") == Whole(parts={"a": None, "b": Part(1)})


@pytest.mark.parametrize(
    ("tree", "message"),
    [
        ([1], "it is of type list, expected an object"),
        ({"part": {"ends": []}}, "part of it has ends; expected n too"),
        ({"parts": {"a": {"ends": []}}}, "a of it has ends; expected n too"),
        ({"parts": [1]}, "parts of it is of type list, expected an object"),
        ({"rows": [{"ends": []}]}, "rows of it has ends; expected n too"),
    ],
)
def test_what_no_version_wrote_is_refused_by_name(tree: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_json(Whole, tree, "it")


def stage(**more: Any) -> dict[str, Any]:
    return {"wall_seconds": 1.5, "peak_rss_bytes": 2**30, "peak_vram_bytes": None, **more}


def whole_summary() -> dict[str, Any]:
    """All that a run writes, in its order, with counts that no report shows."""
    found = json.loads(json.dumps(BENCHMARKED))
    for tree in found["benchmarks"].values():
        tree["difference"]["interval_kind"] = "bootstrap over problems"
    found["benchmarks"] = {
        name: {key: tree[key] for key in ("title", "source", "prompt_source", "licence", "n", "decoding")}
        | {"models": tree["models"], "difference": tree["difference"]}
        for name, tree in found["benchmarks"].items()
    }
    found["benchmarks"]["gsm8k"]["models"]["base"]["wall_seconds"] = 12.5
    for model in ("base", "trained"):
        found["mean"][model] |= {"benchmarks": ["gsm8k", "amc2023"], "interval_kind": "bootstrap over problems"}
    found["mean"]["difference"]["interval_kind"] = "bootstrap over problems"
    return {
        **{key: SUMMARY[key] for key in ("recipe", "seed", "git_commit", "device", "model", "benchmark", "accuracy")},
        **{key: found[key] for key in ("benchmarks", "mean")},
        "contamination": found["contamination"] | {"unchecked": ["crux"]},
        "rollouts": {"engine": {"engine": "vllm"}, **found["rollouts"], "generated_tokens": 81920},
        "selection": {**found["selection"], "n_without_signal": None, "explanation": "why", "new": 1, "rounds": 1},
        "stability": {
            "n": 4,
            "bootstrap": {"replicates": 32, "mean_overlap": 0.9, "low_overlap": 0.8},
            "second_seed": None,
        },
        "dropped_rows": 0,
        "dropped_by_reason": {},
        "total_wall_seconds": 3.0,
        "peak_rss_bytes": 2**30,
        "stages": {
            "perplexity": stage(),
            "data": stage(planned_rss_bytes=2**29),
            "training": stage(planned_vram_bytes=1, backend={"backend": "trl", "version": "1"}, generated_tokens=7),
        },
    }


def test_a_summary_is_written_as_it_was_read() -> None:
    tree = whole_summary()
    assert json.dumps(Summary.from_json(tree).as_json()) == json.dumps(tree)


def ordered(results: dict[str, Any]) -> dict[str, Any]:
    """Results with every key that a comparison writes, in its order: those of the record."""
    return json.loads(json.dumps(Comparison.from_json(results).as_json()))  # type: ignore[no-any-return]


@pytest.mark.parametrize("results", [make_results(LABELS[:4]), half_full()], ids=["complete", "half full"])
def test_a_comparison_is_written_as_it_was_read(results: dict[str, Any]) -> None:
    tree = ordered(results)
    assert json.dumps(ordered(tree)) == json.dumps(tree)
    assert list(tree) == [
        *("recipe", "description", "reference", "seeds", "n_problems", "benchmark", "git_commit", "device"),
        *("processor", "pool_size", "n_cells", "n_done", "training_steps", "prompts_per_step", "base", "methods"),
        *("comparisons", "overlap", "scatter", "faults"),
    ]
    assert tree["scatter"] == results["scatter"]
    for given, written in zip(results["methods"], tree["methods"], strict=True):
        assert {key: written.get(key) for key in given} == given
    assert "accuracy" not in tree["methods"][2] or len(results["methods"]) == 4


def test_a_method_says_nothing_of_a_pool_that_is_not_known() -> None:
    results = make_results(LABELS[:1])
    results["methods"][0] |= {"lengths": None, "n_without_signal": None}
    assert list(ordered(results)["methods"][0])[-2:] == ["learning_curve", "n_without_signal"]
