"""Any model and adapter on benchmarks, outside a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lean_align.artifacts import (
    MANIFEST,
    check_inputs,
    check_outputs,
    disk_errors,
    file_hash,
    folder_hash,
    read_json,
    read_manifest,
    stage_folder,
    write_json,
)
from lean_align.benchmarks import DEFAULT_NAMES, Benchmark, find_benchmarks, load_problems, source_of
from lean_align.errors import DataError, ModelError
from lean_align.pipeline.environment import describe, lock
from lean_align.pipeline.evaluation import SECONDS, sample_sets
from lean_align.pipeline.figures import evaluation_summary
from lean_align.pipeline.graph import model_hash
from lean_align.pipeline.problem_sets import ProblemSet, benchmark_set, check_room
from lean_align.pipeline.tabulating import timed_table, write_table
from lean_align.progress import say
from lean_align.recipe import Recipe, recipe_of, recipe_tree
from lean_align.report.results_table import ResultsTable
from lean_align.sandbox.support import require_sandbox

STAGE = "evaluation"
_KEYS = ("seed", "model", "evaluation")


@dataclass(frozen=True)
class ModelEvaluation:
    """What `summary.json` of an evaluation holds, and its table."""

    summary: dict[str, Any]
    table: ResultsTable


def evaluate_model(
    model: str,
    adapter: Path | None,
    benchmarks: Sequence[str] | None = None,
    output: Path | None = None,
    against: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> ModelEvaluation:
    """Solve benchmarks with a model, and write completions, figures and tables.

    The weights are taken as they are, in bfloat16, unless model.quantization and model.dtype say otherwise.

    Parameters
    ----------
    model : str
        Hub id, local folder, or `demo`.
    adapter : Path, optional
        A peft adapter, put on top.
    benchmarks : sequence of str, optional
        Those of the paper's second table when not given.
    output : Path, optional
        `evaluations/<model>` when not given.  Gets `evaluation/<model>/<benchmark>.jsonl`, `summary.json`, `results.md`
        and `results.tex`; the same call continues what was cut off.
    against : Path, optional
        Output of another evaluation with the same problems and decoding, or a run: its model is compared with this.
    overrides : mapping, optional
        Recipe keys and values, such as evaluation.limit or rollouts.engine.

    Returns
    -------
    ModelEvaluation

    Raises
    ------
    StaleStageError
        When the folder holds an evaluation of something else.
    DataError, ModelError, SandboxError
    """
    own = {
        "model.name": model,
        "model.quantization": "none",
        "evaluation.benchmarks": list(benchmarks or DEFAULT_NAMES),
    }
    recipe = recipe_of("evaluate", {**own, "data.test_path": None, **(overrides or {})})
    if adapter is not None and not (adapter / "adapter_config.json").is_file():
        raise ModelError(f"{adapter} has no adapter_config.json; expected the folder of a peft adapter.")
    chosen = find_benchmarks(recipe.evaluation.benchmarks)
    name = _label(model, adapter)
    output = output or Path("evaluations") / name
    output.mkdir(parents=True, exist_ok=True)
    with lock(output), disk_errors(output):
        sets = _sets(recipe, chosen)
        other = _other(against, sets, name) if against is not None else {}  # refused now, not after hours
        manifest = _sampled(recipe, adapter, chosen, sets, name, output)
        summary = _summary(recipe, adapter, sets, {**other, name: output / STAGE / name}, manifest)
        write_json(output / "summary.json", summary)
        table = timed_table(summary, None)
        write_table(table, output)
    say(f"evaluation: {output / 'results.md'}")
    return ModelEvaluation(summary, table)


def _label(model: str, adapter: Path | None) -> str:
    """The model's name in tables and folders."""
    own = Path(model).name or "model"
    return own if adapter is None else f"{own}+{adapter.resolve().name}"


def _sets(recipe: Recipe, chosen: Sequence[Benchmark]) -> list[ProblemSet]:
    from lean_align.policy import context_length, load_encoder

    if any(benchmark.runs_code for benchmark in chosen):
        require_sandbox()
    sets = [benchmark_set(recipe, b, load_problems(b, recipe.evaluation.data_dir)) for b in chosen]
    check_room(sets, load_encoder(recipe.model, recipe.data), context_length(recipe.model))
    return sets


def _sampled(
    recipe: Recipe,
    adapter: Path | None,
    chosen: Sequence[Benchmark],
    sets: Sequence[ProblemSet],
    name: str,
    output: Path,
) -> dict[str, Any]:
    """The manifest of the completions, which are sampled where they are not there whole."""
    inputs = _inputs(recipe, adapter, chosen)
    finished = read_manifest(output / STAGE)
    if finished is not None:
        check_inputs(output / STAGE, finished["inputs"], inputs)
        check_outputs(output / STAGE, finished)
        say(f"evaluation: finished before; delete {output / STAGE} to have it made again")
        return finished
    with stage_folder(output, STAGE, inputs) as folder:
        _set_threads(recipe)
        folder.counts["run"] = describe(recipe.seed, _device(recipe))
        sample_sets(recipe, sets, {name: adapter}, folder)
    return dict(read_json(output / STAGE / MANIFEST))


def _inputs(recipe: Recipe, adapter: Path | None, chosen: Sequence[Benchmark]) -> dict[str, Any]:
    tree = recipe_tree(recipe)
    files = [Path(source_of(b, recipe.evaluation.data_dir)) for b in chosen]
    return {
        "recipe": {key: tree[key] for key in _KEYS}
        | {"prompt_format": recipe.data.prompt_format, "engine": recipe.rollouts.engine},
        "model_files": model_hash(recipe.model.name),
        "adapter": folder_hash(adapter) if adapter is not None else None,
        "data_files": {str(path): file_hash(path) for path in files if path.is_file()},
    }


def _summary(
    recipe: Recipe,
    adapter: Path | None,
    sets: Sequence[ProblemSet],
    folders: Mapping[str, Path],
    manifest: dict[str, Any],
) -> dict[str, Any]:
    tree, name = evaluation_summary(sets, folders, recipe.seed), list(folders)[-1]
    for benchmark, found in tree["benchmarks"].items():
        found["models"][name]["wall_seconds"] = manifest["counts"][SECONDS][f"{name}/{benchmark}"]
    return {
        "model": asdict(recipe.model),
        "adapter": None if adapter is None else str(adapter),
        "seed": recipe.seed,
        "device": manifest["counts"]["run"]["device"],
        "git_commit": manifest["counts"]["run"]["git_commit"],
        "engine": manifest["counts"]["engine"],
        **{key: manifest[key] for key in ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes")},
        **tree,
    }


def _other(folder: Path, sets: Sequence[ProblemSet], name: str) -> dict[str, Path]:
    """The last model of another evaluation, by name, and the folder of its completions.

    Raises
    ------
    DataError
        When it has not solved the same problems in the same way.
    """
    found = read_json(
        folder / "summary.json" if (folder / "summary.json").is_file() else folder / STAGE / "summary.json"
    )
    for problems in sets:
        theirs = found["benchmarks"].get(problems.name, {})
        got = {"n": theirs.get("n"), **theirs.get("decoding", {})}
        expected = {"n": len(problems.prompts), **problems.decoding()}
        if got != expected:
            raise DataError(
                f"{folder} has {problems.name} with {got}, expected {expected} as here: two models are compared on the "
                "same problems alone, solved in the same way. Evaluate one of them again."
            )
    models = list(next(iter(found["benchmarks"].values()))["models"])
    label = models[-1] if models[-1] != name else f"{models[-1]} ({folder.name})"
    return {label: folder / STAGE / models[-1]}


def _set_threads(recipe: Recipe) -> None:
    if recipe.threads is not None:
        import torch

        torch.set_num_threads(recipe.threads)


def _device(recipe: Recipe) -> str:
    from lean_align.policy import resolve_device

    return str(resolve_device(recipe.model.device))
