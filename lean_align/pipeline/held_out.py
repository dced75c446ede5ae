"""The held-out set of a run as a column of a results table, beside benchmarks."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lean_align.artifacts import file_hash
from lean_align.errors import DataError
from lean_align.evaluate import score_completions
from lean_align.pipeline.evaluation import BASE, TRAINED
from lean_align.pipeline.figures import read_outcomes
from lean_align.pipeline.graph import stored_recipe
from lean_align.pipeline.problem_sets import run_sets


def with_held_out(summary: Mapping[str, Any], run_dir: Path) -> dict[str, Any]:
    """A run's summary with its held-out set in the place of benchmarks, scored from the completions in its folder.

    Two runs share the column only where they solved the same problems: its source has their hash.

    Parameters
    ----------
    summary : mapping
        RUN/summary.json of a run without benchmarks.
    run_dir : Path

    Raises
    ------
    DataError
        When it has no held-out set either.
    """
    if not summary.get("accuracy") or not (run_dir / "recipe.yaml").is_file():
        raise DataError(
            f"{run_dir} was evaluated on no benchmark and on no held-out set; expected the folder of a finished run or "
            "evaluation."
        )
    recipe, test = stored_recipe(run_dir), run_dir / "data" / "test.jsonl"
    problems = run_sets(recipe, test, {})[0]
    scores = {
        model: score_completions(
            read_outcomes(run_dir / "evaluation" / model / f"{problems.name}.jsonl", problems), recipe.seed
        )
        for model in (BASE, TRAINED)
    }
    tree = {
        "title": f"{problems.name} (held out)",
        "source": f"data.test_path {recipe.data.test_path}, SHA-256 {file_hash(test)[:12]}",
        "prompt_source": "that of the run",
        "n": len(problems.prompts),
        "decoding": problems.decoding(),
        "models": {model: asdict(score) for model, score in scores.items()},
        "difference": None,
    }
    return {**summary, "benchmarks": {f"held-out-{problems.name}": json.loads(json.dumps(tree))}}
