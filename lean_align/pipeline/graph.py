"""The stages of a run, what each depends on, and which of them a recipe needs.  Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew, quoted
from lean_align.artifacts import (
    check_inputs,
    check_outputs,
    check_seal,
    file_hash,
    folder_hash,
    outputs_fingerprint,
    read_inputs,
    read_manifest,
)
from lean_align.benchmarks import find_benchmarks, protocol_of, source_of
from lean_align.data import data_sources
from lean_align.errors import RecipeError, StageError, StaleStageError
from lean_align.recipe import Recipe, load_recipe, recipe_tree
from lean_align.selection import find_method, method_file

COMPARISON = "comparison.yaml"
"""The recipe of a comparison, in its folder: a run has recipe.yaml."""
SUMMARY = "summary.json"
DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"


@dataclass(frozen=True)
class Stage:
    """A stage: its folder in the run, its command, the recipe keys and the stages it depends on.

    `after` names stages that it reads; those that the recipe does without do not count.  `keys` are
    recipe sections or dotted fields.  A stage that is not `resumable` takes seconds and starts anew.  `beside` are
    files that it writes into the run's folder itself.
    """

    folder: str
    command: str
    keys: tuple[str, ...]
    after: tuple[str, ...] = ()
    resumable: bool = True
    beside: tuple[str, ...] = ()


_PROMPT = ("data.prompt_format", "data.system_prompt", "data.prompt_template", "data.chat_template_kwargs")
_POLICY = ("seed", "model", "lora", *_PROMPT)
# a training samples with its trainer, whatever the engine of the rollouts, their batch and window
_SAMPLED = ("rollouts.num_generations", "rollouts.temperature", "rollouts.max_new_tokens")
_SOURCES = ("seed", "model.name", "model.revision", "pool")
_ALLOCATION = ("rollouts.allocation", "rollouts.first_generations", "rollouts.num_generations")
_DRAWN = ("rollouts", "gradients", "scores")
# what a selection method may ask for
_LOOKED_AT = ("rollouts", "gradients", "scores", "perplexity", "ratings", "features", "reward_curves")
# what the training prompts are compared with: they depend on it only where matches are dropped
_BENCHMARKS = ("evaluation.benchmarks", "evaluation.data_dir")
STAGES = (
    Stage("data", "prepare", (*_SOURCES, "data", "rollouts.max_new_tokens"), (), False, ("run.json", "plan.json")),
    Stage("warmup", "warmup", (*_POLICY, "warmup", *_SAMPLED), ("data",)),
    Stage("rollouts", "rollout", (*_POLICY, "rollouts"), ("data", "warmup")),
    Stage(
        "gradients",
        "gradients",
        (*_POLICY, "gradients", "rollouts.temperature", "rollouts.max_new_tokens"),
        ("data", "warmup", "rollouts"),
    ),
    Stage("scores", "score", ("seed", "selection.n", *_ALLOCATION), ("rollouts", "gradients"), False),
    Stage("perplexity", "perplexity", _POLICY, ("data", "warmup", "rollouts")),
    Stage("ratings", "ratings", _POLICY, ("data", "warmup", "rollouts")),
    Stage("features", "features", _POLICY, ("data", "warmup", "rollouts")),
    Stage(
        "reward_curves",
        "reward-curves",
        (*_POLICY, "training", "selection.curve_epochs", *_SAMPLED),
        ("data", "warmup"),
    ),
    Stage("selection", "select", ("seed", "selection.method", "selection.n"), ("data", *_LOOKED_AT), False),
    Stage("training", "train", (*_POLICY, "training", "selection.rounds", *_SAMPLED), ("selection", "warmup")),
    Stage(
        "evaluation",
        "evaluate",
        (*_POLICY, "evaluation", "rollouts.max_new_tokens", "rollouts.engine", "rollouts.vllm_adapter"),
        ("data", "training"),
    ),
    Stage("report", "report", ("name", "seed"), ("selection", "evaluation"), False, (SUMMARY,)),
)
BY_FOLDER = {stage.folder: stage for stage in STAGES}
BY_COMMAND = {stage.command: stage for stage in STAGES}


def needed_stages(recipe: Recipe) -> list[Stage]:
    """The stages that a recipe runs, in order: those before the selection that its method needs, and the rest."""
    needs = find_method(recipe.selection.method).needs
    skipped = set(_LOOKED_AT) - needs
    if recipe.warmup.steps == 0 or ("rollouts" not in needs and recipe.training.init == "base"):
        skipped.add("warmup")
    return [stage for stage in STAGES if stage.folder not in skipped]


def upstream(stage: Stage, recipe: Recipe) -> list[Stage]:
    """The finished stages that a stage reads."""
    needed = {s.folder for s in needed_stages(recipe)}
    names = [name for name in stage.after if name in needed]
    if stage.folder in ("training", "reward_curves") and recipe.training.init == "base":
        names = [name for name in names if name != "warmup"]
    return [BY_FOLDER[name] for name in names]


def stage_inputs(stage: Stage, recipe: Recipe, run_dir: Path) -> dict[str, Any]:
    """All that a stage's result depends on: recipe fields, source files, the outputs it reads.

    Raises
    ------
    StageError
        When a stage that it reads has not finished.
    """
    tree = recipe_tree(recipe)
    keys = stage_keys(stage, recipe)
    inputs: dict[str, Any] = {"recipe": {key: pick(tree, key) for key in keys}}
    if any(key.startswith("model") for key in stage.keys):
        inputs["model_files"] = model_hash(recipe.model.name)
    if stage.folder in ("data", "evaluation"):
        inputs["data_files"] = {p: _file_hash(p) for p in sorted(_data_paths(stage, recipe)) if Path(p).is_file()}
    if stage.folder == "evaluation":
        inputs["benchmarks"] = {b.name: protocol_of(b) for b in find_benchmarks(recipe.evaluation.benchmarks)}
    own_method = method_file(recipe.selection.method) if stage.folder == "selection" else None
    if own_method is not None and own_method.is_file():
        inputs["method_file"] = {str(own_method): _file_hash(str(own_method))}
    inputs["stages"] = {}
    for before in upstream(stage, recipe):
        manifest = read_manifest(run_dir / before.folder)
        if manifest is None:
            raise StageError(
                f"{stage.command} needs {before.folder}, which has not finished in {run_dir}. "
                f"Run: lean-align {before.command} {quoted(run_dir)}"
            )
        check_outputs(run_dir / before.folder, manifest)
        inputs["stages"][before.folder] = outputs_fingerprint(run_dir / before.folder)
    return dict(json.loads(json.dumps(inputs)))


def stage_keys(stage: Stage, recipe: Recipe) -> tuple[str, ...]:
    """The recipe keys that a stage depends on; a training in rounds takes rollouts and gradients of its own."""
    if _drops_matches(stage, recipe):
        return (*stage.keys, *_BENCHMARKS)
    keys = stage.keys
    if stage.folder == "training" and recipe.selection.rounds > 1:
        keys = (*keys, "rollouts", "gradients", "selection.method", "selection.n")
    if recipe.selection.num_generations is not None and (stage.folder in _DRAWN or "rollouts" in keys):
        keys = (*keys, "selection.num_generations")
    return keys


def is_finished(stage: Stage, recipe: Recipe, run_dir: Path) -> bool:
    """Whether a stage's folder is complete, and made from what the recipe says now.

    Raises
    ------
    StaleStageError
        When it was made from other inputs, or its files were changed.
    """
    folder = run_dir / stage.folder
    manifest = read_manifest(folder)
    if manifest is None:
        partial = run_dir / f"{stage.folder}.partial"
        recorded = read_inputs(partial) if stage.resumable else None
        if recorded is not None and _upstream_finished(stage, recipe, run_dir):
            check_inputs(partial, recorded["inputs"], stage_inputs(stage, recipe, run_dir))
        return False
    check_seal(folder, manifest)
    check_inputs(folder, manifest["inputs"], stage_inputs(stage, recipe, run_dir), _made_from(stage, run_dir))
    check_outputs(folder, manifest)
    if stage.folder == "report" and not (run_dir / SUMMARY).exists():  # of a version that did not write its hash
        raise StaleStageError(f"{run_dir / SUMMARY} is missing. The stage report writes it. {made_anew(folder)}")
    return True


def check_run(recipe: Recipe, run_dir: Path) -> None:
    """Refuse, before anything runs, a run folder that this recipe cannot continue."""
    up_to_here = True
    for stage in needed_stages(recipe):
        if up_to_here:
            up_to_here = is_finished(stage, recipe, run_dir)
        elif (manifest := read_manifest(run_dir / stage.folder)) is not None:
            # whether it fits is seen once those before it are made anew; that it is whole must not be seen hours later
            check_outputs(run_dir / stage.folder, manifest)


def stored_recipe(run_dir: Path) -> Recipe:
    """The recipe of a run folder.

    Raises
    ------
    StageError
        When the folder is no run, or its recipe was damaged.
    """
    refuse_comparison(run_dir)
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise StageError(f"{run_dir} is no run folder: it has no recipe.yaml. Start one with: lean-align run RECIPE")
    try:
        return load_recipe(path)
    except RecipeError as error:
        raise StageError(
            f"{path} was damaged: {error} The lean-align run command that made the folder writes it again."
        ) from error


def refuse_comparison(run_dir: Path) -> None:
    """Refuse the folder of a comparison, whose runs lie below it.

    Raises
    ------
    StageError
    """
    if (run_dir / COMPARISON).exists():
        raise StageError(
            f"{run_dir} is a comparison and no run: its runs are in {run_dir / 'seed-S' / 'METHOD'}. Continue it with "
            "lean-align compare, or choose another --run-dir."
        )


def _drops_matches(stage: Stage, recipe: Recipe) -> bool:
    """Whether the stage leaves out training prompts that a benchmark holds too."""
    return stage.folder == "data" and recipe.data.contamination in ("drop", "drop_exact")


def _data_paths(stage: Stage, recipe: Recipe) -> set[str]:
    """Files, or names on the hub, that a stage reads besides the outputs of others."""
    found: set[str] = set()
    if stage.folder == "evaluation" or _drops_matches(stage, recipe):
        found |= {source_of(b, recipe.evaluation.data_dir) for b in find_benchmarks(recipe.evaluation.benchmarks)}
    if stage.folder == "data":
        found |= data_sources(recipe.data)
    return found


def _upstream_finished(stage: Stage, recipe: Recipe, run_dir: Path) -> bool:
    return all(read_manifest(run_dir / before.folder) is not None for before in upstream(stage, recipe))


def _made_from(stage: Stage, run_dir: Path) -> list[Path]:
    """Folders of stages that read this one, directly or through others, where they exist."""
    names = {stage.folder}
    for later in STAGES:
        if names & set(later.after):
            names.add(later.folder)
    folders = (run_dir / f"{name.folder}{suffix}" for name in STAGES for suffix in ("", ".partial"))
    return [f for f in folders if f.name.removesuffix(".partial") in names - {stage.folder} and f.exists()]


def pick(tree: dict[str, Any], dotted: str) -> Any:
    """The value of a dotted key."""
    value: Any = tree
    for key in dotted.split("."):
        value = value[key]
    return value


def model_hash(name: str) -> str:
    """One hash for the files of a local model; `hub` for one that lies elsewhere."""
    folder = DEMO_MODEL if name == "demo" else Path(name)
    return _hash_once(folder, _stamp(folder)) if folder.is_dir() else "hub"


def _file_hash(path: str) -> str:
    return _hash_once(Path(path), _stamp(Path(path)))


def _stamp(path: Path) -> tuple[tuple[str, int, int], ...]:
    """Name, size and time of change of each file: a cheap sign that a hash taken before still holds."""
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    return tuple((str(p), p.stat().st_size, p.stat().st_mtime_ns) for p in files)


@cache
def _hash_once(path: Path, stamp: tuple[tuple[str, int, int], ...]) -> str:
    return folder_hash(path) if path.is_dir() else file_hash(path)
