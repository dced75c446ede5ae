"""Stages as a graph: which of them a recipe needs, and whether what is finished fits.  Imports no torch."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew, quoted
from lean_align.artifacts import (
    check_inputs,
    check_outputs,
    check_seal,
    folder_hash,
    outputs_fingerprint,
    read_inputs,
    read_manifest,
)
from lean_align.errors import RecipeError, StageError, StaleStageError
from lean_align.machine.plan_records import PlannedStage
from lean_align.pipeline.stage import Stage
from lean_align.recipe import Recipe, load_recipe, recipe_tree

COMPARISON = "comparison.yaml"
"""The recipe of a comparison, in its folder: a run has recipe.yaml."""
DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"


@dataclass(frozen=True)
class Graph:
    """Stages in the order in which they run; each reads only stages before it."""

    stages: tuple[Stage, ...]

    @cached_property
    def by_folder(self) -> dict[str, Stage]:
        """Stages by the name of their folder."""
        return {stage.folder: stage for stage in self.stages}

    @cached_property
    def by_command(self) -> dict[str, Stage]:
        """Stages by their command."""
        return {stage.command: stage for stage in self.stages}

    def needed_stages(self, recipe: Recipe) -> list[Stage]:
        """The stages that a recipe runs, in order."""
        return [stage for stage in self.stages if stage.needed(recipe)]

    def planned(self, recipe: Recipe) -> list[PlannedStage]:
        """Those that a plan covers, in order."""
        stages = self.needed_stages(recipe)
        return [PlannedStage(s.folder, s.work, s.trains or s.work, s.of_target) for s in stages if s.work is not None]

    def upstream(self, stage: Stage, recipe: Recipe) -> list[Stage]:
        """The finished stages that a stage reads."""
        needed = {s.folder for s in self.needed_stages(recipe)} - {*stage.unread(recipe)}
        return [self.by_folder[name] for name in stage.after if name in needed]

    def stage_inputs(self, stage: Stage, recipe: Recipe, run_dir: Path) -> dict[str, Any]:
        """All that a stage's result depends on: recipe fields, source files, the outputs it reads.

        Raises
        ------
        StageError
            When a stage that it reads has not finished.
        """
        inputs: dict[str, Any] = {"recipe": picked(recipe, stage.all_keys(recipe))}
        if any(key.startswith("model") for key in stage.keys):
            inputs["model_files"] = model_hash(recipe.model.name)
        inputs |= stage.more_inputs(recipe)
        inputs["stages"] = {}
        for before in self.upstream(stage, recipe):
            manifest = read_manifest(run_dir / before.folder)
            if manifest is None:
                raise StageError(
                    f"{stage.command} needs {before.folder}, which has not finished in {run_dir}. "
                    f"Run: lean-align {before.command} {quoted(run_dir)}"
                )
            check_outputs(run_dir / before.folder, manifest)
            inputs["stages"][before.folder] = outputs_fingerprint(run_dir / before.folder)
        return dict(json.loads(json.dumps(inputs)))

    def is_finished(self, stage: Stage, recipe: Recipe, run_dir: Path) -> bool:
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
            before = self.upstream(stage, recipe)
            if recorded is not None and all(read_manifest(run_dir / s.folder) is not None for s in before):
                check_inputs(partial, recorded["inputs"], self.stage_inputs(stage, recipe, run_dir))
            return False
        check_seal(folder, manifest)
        inputs = self.stage_inputs(stage, recipe, run_dir)
        check_inputs(folder, manifest["inputs"], inputs, self._made_from(stage, recipe, run_dir))
        check_outputs(folder, manifest)
        result = None if stage.result is None else run_dir / stage.result
        if result is not None and not result.exists():  # of a version that did not write its hash
            raise StaleStageError(f"{result} is missing. The stage {stage.folder} writes it. {made_anew(folder)}")
        return True

    def check_run(self, recipe: Recipe, run_dir: Path) -> None:
        """Refuse, before anything runs, a run folder that this recipe cannot continue."""
        up_to_here = True
        for stage in self.needed_stages(recipe):
            if up_to_here:
                up_to_here = self.is_finished(stage, recipe, run_dir)
            elif (manifest := read_manifest(run_dir / stage.folder)) is not None:
                # whether it fits is seen once those before it are made again; that it is whole must not be seen hours
                # later
                check_outputs(run_dir / stage.folder, manifest)

    def _made_from(self, stage: Stage, recipe: Recipe, run_dir: Path) -> list[Path]:
        """Folders of stages that read this one, directly or through others, where they exist."""
        names = {stage.folder}
        for later in self.stages:
            if names & (set(later.after) - {*later.unread(recipe)}):
                names.add(later.folder)
        found = (s.folder for s in self.stages if s.folder in names - {stage.folder})
        folders = (run_dir / f"{name}{suffix}" for name in found for suffix in ("", ".partial"))
        return [folder for folder in folders if folder.exists()]


def stored_recipe(run_dir: Path) -> Recipe:
    """The recipe of a run folder.

    Raises
    ------
    StageError
        When the folder is not a run, or its recipe was damaged.
    """
    refuse_comparison(run_dir)
    path = run_dir / "recipe.yaml"
    if not path.is_file():
        raise StageError(f"{run_dir} is not a run folder: it has no recipe.yaml. Start one with: lean-align run RECIPE")
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
            f"{run_dir} is a comparison, not a run: its runs are in {run_dir / 'seed-S' / 'METHOD'}. Continue it with "
            "lean-align compare, or choose another --run-dir."
        )


def picked(recipe: Recipe, keys: tuple[str, ...]) -> dict[str, Any]:
    """The values of dotted keys of a recipe, those that came later only where they are not the default."""
    tree, found = recipe_tree(recipe), dict[str, Any]()
    for section, values in tree.items():
        if dataclasses.is_dataclass(part := getattr(recipe, section)):
            for field in dataclasses.fields(part):
                if "later" in field.metadata and getattr(part, field.name) == field.default:
                    del values[field.name]
    for key in keys:
        value: Any = tree
        for part in key.split("."):
            value = value[part]
        found[key] = value
    return found


def model_hash(name: str) -> str:
    """One hash for the files of a local model; `hub` for one that lies elsewhere."""
    folder = DEMO_MODEL if name == "demo" else Path(name)
    return folder_hash(folder) if folder.is_dir() else "hub"
