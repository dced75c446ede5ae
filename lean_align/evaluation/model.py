"""Any model and adapter on benchmarks, outside a run."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lean_align.advice import quoted, removal
from lean_align.artifacts import (
    MANIFEST,
    canonical_json,
    check_inputs,
    check_outputs,
    folder_hash,
    read_json,
    read_manifest,
    safe_name,
    stage_folder,
    text_hash,
    write_json,
)
from lean_align.benchmarks import DEFAULT_NAMES, find_benchmarks, protocol_of
from lean_align.data import prompt_rows
from lean_align.disk import disk_errors
from lean_align.errors import DataError, ModelError, RecipeError
from lean_align.evaluation.figures import add_seconds, evaluation_summary
from lean_align.evaluation.joint_tables import timed_table, write_table
from lean_align.evaluation.problem_sets import ProblemSet, benchmark_sets, check_room, load_benchmarks
from lean_align.evaluation.solving import BASE, PROBLEMS, SECONDS, TRAINED, drop_clock, keep_problems, sample_sets
from lean_align.pipeline.environment import describe, set_threads
from lean_align.pipeline.folder_locks import lock
from lean_align.pipeline.graph import model_hash, refuse_comparison
from lean_align.pipeline.prompt_notes import say_prompt_notes
from lean_align.progress import say
from lean_align.recipe import Recipe, recipe_of, recipe_tree
from lean_align.report.summary import Summary
from lean_align.table import Table
from lean_align.types import Prompt

STAGE = "evaluation"
_OWN_PARTS = ("model.", "evaluation.", "data.chat_template_kwargs.")
_OWN_KEYS = ("seed", "threads", "data.prompt_format", "rollouts.engine", "rollouts.vllm_adapter")


@dataclass(frozen=True)
class ModelEvaluation:
    """What `summary.json` of an evaluation holds, and its table."""

    summary: dict[str, Any]
    table: Table


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
    _check_keys(overrides or {})
    recipe = recipe_of("evaluate", {**own, "data.test_path": None, **(overrides or {})})
    refuse_comparison(Path(model))
    if (Path(model) / "adapter_config.json").is_file() and not (Path(model) / "config.json").is_file():
        raise ModelError(
            f"{model} is an adapter, not a model. Give the model that it belongs to, and --adapter {quoted(model)}."
        )
    if adapter is not None:
        from lean_align.policy.adapters import check_adapter

        check_adapter(recipe.model, adapter)
    problems, name = _problems(recipe), _label(model, adapter)
    sets = benchmark_sets(recipe, problems)
    other = _other(against, sets, name) if against is not None else {}  # refused now, not after hours
    output = output or Path("evaluations") / name
    if against is not None and against.resolve() == output.resolve():
        raise DataError(f"--against is {against}, where this evaluation is written; expected another one's.")
    with _folder(output), lock(output), disk_errors(output):
        manifest = _sampled(recipe, adapter, problems, sets, name, output)
        summary = _summary(recipe, adapter, sets, {**other, name: output / STAGE / name}, manifest)
        write_json(output / "summary.json", summary)
        table = timed_table(Summary.from_json(summary), None)
        write_table(table, output)
    say(f"evaluation: {output / 'results.md'}")
    return ModelEvaluation(summary, table)


@contextmanager
def _folder(output: Path) -> Iterator[None]:
    """Make a folder; an evaluation that fails before its first completion leaves no new folder behind."""
    made = [folder for folder in (output, *output.parents) if not folder.exists()]
    output.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        answers = (p for p in output.rglob("*.jsonl") if p.parent.name != PROBLEMS and p.stat().st_size)
        if made and next(answers, None) is None:
            shutil.rmtree(output)
            for folder in made[1:]:
                with suppress(OSError):  # another process uses it by now
                    folder.rmdir()
        raise


def _label(model: str, adapter: Path | None) -> str:
    """The model's name in tables and folders: one part of a path, and not a name that an evaluation uses itself."""
    path = Path(model)
    own = (path.resolve().name if path.name in ("", "..") else path.name) or "model"
    if adapter is not None:
        folder = adapter.resolve()
        in_run = folder.name == "adapter" and folder.parent.name in ("training", "warmup")
        own = f"{own}+{folder.parents[1].name if in_run else folder.name}"
    return f"{own}-model" if own == PROBLEMS else safe_name(own)


def _check_keys(overrides: Mapping[str, Any]) -> None:
    odd = [key for key in overrides if not f"{key}.".startswith(_OWN_PARTS) and key not in _OWN_KEYS]
    if odd:
        raise RecipeError(
            f"got {odd[0]!r}, which has no effect on an evaluation of a model; expected model.*, evaluation.*, "
            f"data.chat_template_kwargs or one of {', '.join(_OWN_KEYS)}."
        )


def _problems(recipe: Recipe) -> dict[str, list[Prompt]]:
    """The benchmarks' problems, once it is known that the model is there and has room for them."""
    from lean_align.policy import context_length, load_encoder

    encoder, context = load_encoder(recipe.model, recipe.data), context_length(recipe.model)
    problems = load_benchmarks(recipe)
    sets = benchmark_sets(recipe, problems)
    check_room(sets, encoder, context)
    say_prompt_notes(STAGE, {f"problems of {s.name}": (s.encoder(encoder), s.prompts) for s in sets})
    return problems


def _sampled(
    recipe: Recipe,
    adapter: Path | None,
    problems: Mapping[str, list[Prompt]],
    sets: Sequence[ProblemSet],
    name: str,
    output: Path,
) -> dict[str, Any]:
    """The manifest of the completions, which are sampled unless they are complete."""
    inputs = _inputs(recipe, adapter, problems)
    finished = read_manifest(output / STAGE)
    if finished is not None:
        check_inputs(output / STAGE, finished["inputs"], inputs)
        check_outputs(output / STAGE, finished)
        say(f"evaluation: already finished; to make it again: {removal(output / STAGE)}")
        return finished
    with stage_folder(output, STAGE, inputs) as folder:
        set_threads(recipe)
        folder.counts["run"] = describe(recipe.seed, _device(recipe))
        keep_problems(problems, folder)
        sample_sets(recipe, sets, {name: adapter}, folder)
        drop_clock(folder)
    return dict(read_json(output / STAGE / MANIFEST))


def _inputs(recipe: Recipe, adapter: Path | None, problems: Mapping[str, list[Prompt]]) -> dict[str, Any]:
    """All that the completions depend on; of the benchmarks the problems themselves, wherever they came from."""
    tree, rollouts = recipe_tree(recipe), recipe.rollouts
    evaluation = {key: value for key, value in tree["evaluation"].items() if key != "data_dir"}
    return {
        "recipe": {"seed": recipe.seed, "model": tree["model"], "evaluation": evaluation}
        | {"data.prompt_format": recipe.data.prompt_format, "rollouts.engine": rollouts.engine}
        | {"rollouts.vllm_adapter": rollouts.vllm_adapter},
        # only where there are any: earlier evaluations still continue
        **({"chat_template_kwargs": variables} if (variables := recipe.data.chat_template_kwargs) else {}),
        "model_files": model_hash(recipe.model.name),
        "adapter": folder_hash(adapter) if adapter is not None else None,
        "benchmarks": {
            benchmark.name: {
                **protocol_of(benchmark),
                "problems": text_hash(canonical_json(prompt_rows(problems[benchmark.name]))),
            }
            for benchmark in find_benchmarks(recipe.evaluation.benchmarks)
        },
    }


def _summary(
    recipe: Recipe,
    adapter: Path | None,
    sets: Sequence[ProblemSet],
    folders: Mapping[str, Path],
    manifest: dict[str, Any],
) -> dict[str, Any]:
    tree = evaluation_summary(sets, folders, recipe.seed)
    add_seconds(tree["benchmarks"], manifest["counts"][SECONDS])
    return {
        "model": asdict(recipe.model),
        "adapter": None if adapter is None else str(adapter),
        "prompt_format": recipe.data.prompt_format,
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
    path = next((p for p in (folder / "summary.json", folder / STAGE / "summary.json") if p.is_file()), None)
    if path is None:
        raise DataError(f"{folder} holds neither an evaluation nor a run; expected the folder of a finished one.")
    found = read_json(path)
    for problems in sets:
        theirs = (found.get("benchmarks") or {}).get(problems.name, {})
        got = {"n": theirs.get("n"), **theirs.get("decoding", {})}
        expected = {"n": len(problems.prompts), **problems.decoding()}
        if got != expected:
            raise DataError(
                f"{folder} has {problems.name} with {got}, expected {expected} as here: two models are compared "
                "only on the same problems, solved in the same way. Evaluate one of them again."
            )
    last = list(next(iter(found["benchmarks"].values()))["models"])[-1]
    label = f"{last} ({folder.resolve().name})" if last in (name, BASE, TRAINED) else last
    return {label: folder / STAGE / last}


def _device(recipe: Recipe) -> str:
    from lean_align.policy import resolve_device

    return str(resolve_device(recipe.model.device))
