"""A stage is one record: a toy one runs, goes on and is refused by the same code, which names no stage."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

import pytest

import lean_align.pipeline
from lean_align.artifacts import read_json, read_manifest
from lean_align.errors import RecipeError, StageError, StaleStageError
from lean_align.pipeline import execution
from lean_align.pipeline.graph import Graph
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.recipe import Recipe, load_recipe
from lean_align.stages import GRAPH

COUNT = "count.txt"


def _first(stage: StageRun) -> None:
    (stage.folder.path / COUNT).write_text(str(stage.recipe.data.demo_train))


def _toy(stage: StageRun) -> None:
    """Double what the first one left; an attempt that was cut off leaves half of it."""
    begun = stage.folder.path / "begun"
    if not begun.exists():
        begun.touch()
        raise KeyboardInterrupt
    number = int((stage.run_dir / "first" / COUNT).read_text())
    (stage.folder.path / COUNT).write_text(str(2 * number))
    stage.folder.counts["number"] = 2 * number


def _last(stage: StageRun) -> None:
    number = (stage.run_dir / "toy" / COUNT).read_text()
    (stage.run_dir / "toys.json").write_text(f'{{"number": {number}}}')


FIRST = Stage("first", "begin", "Count.", _first, ("data.demo_train",), resumable=False, uses_torch=False)
TOY = Stage(
    "toy",
    "play",
    "Double it.",
    _toy,
    ("seed",),
    ("first",),
    more_inputs=lambda recipe: {"toys": ["ball"]},
    needed=lambda recipe: recipe.selection.method != "full",
    uses_torch=False,
)
LAST = Stage("last", "end", "Tell.", _last, (), ("toy",), beside=("toys.json",), result="toys.json", uses_torch=False)
TOYS = Graph((FIRST, TOY, LAST))


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Run stages in this process; the commands of those that began."""
    found: list[str] = []

    def in_process(stage: Stage, run_dir: Path) -> None:
        found.append(stage.command)
        execution.run_stage(TOYS, stage.command, run_dir)

    monkeypatch.setattr(execution, "run_in_child", in_process)
    return found


def recipe(**settings: Any) -> Recipe:
    return load_recipe("demo", {key.replace("__", "."): value for key, value in settings.items()})


def test_a_toy_stage_runs_goes_on_and_is_refused_when_its_inputs_change(tmp_path: Path, ran: list[str]) -> None:
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        execution.run_stages(TOYS, recipe(data__demo_train=21), run_dir)
    assert (run_dir / "toy.partial" / "begun").exists()
    assert execution.run_stages(TOYS, recipe(data__demo_train=21), run_dir) == {"number": 42}
    assert ran == ["begin", "play", "play", "end"]
    manifest = read_manifest(run_dir / "toy")
    assert manifest is not None
    assert manifest["counts"] == {"number": 42}
    assert manifest["inputs"]["recipe"] == {"seed": 0}
    assert manifest["inputs"]["toys"] == ["ball"]
    assert set(manifest["inputs"]["stages"]) == {"first"}
    assert execution.run_stages(TOYS, recipe(data__demo_train=21), run_dir) == read_json(run_dir / "toys.json")
    assert len(ran) == 4
    with pytest.raises(StaleStageError, match=r"recipe\.data\.demo_train: 21 -> 22"):
        execution.run_stages(TOYS, recipe(data__demo_train=22), run_dir)
    with pytest.raises(StaleStageError, match=r"recipe\.seed: 0 -> 1"):
        execution.run_stages(TOYS, recipe(data__demo_train=21, seed=1), run_dir)


def test_a_stage_that_a_recipe_does_without_is_no_stage_of_its_run(tmp_path: Path, ran: list[str]) -> None:
    without = recipe(selection__method="full")
    assert execution.run_stages(TOYS, without, tmp_path / "run", "begin")["finished"] == ["first"]
    with pytest.raises(StageError, match="does without play"):
        execution.run_stage(TOYS, "play", tmp_path / "run")
    with pytest.raises(RecipeError, match="expected one of this recipe's stages: begin, end"):
        execution.run_stages(TOYS, without, tmp_path / "run", "play")


def test_rows_are_refused_where_a_stage_has_none(tmp_path: Path, ran: list[str]) -> None:
    execution.run_stages(TOYS, recipe(), tmp_path / "run", "begin")
    with pytest.raises(StageError, match="play is made in one piece"):
        execution.run_stage(TOYS, "play", tmp_path / "run", (0, 1))


def test_the_records_are_in_order_and_each_name_is_of_one_stage() -> None:
    folders, commands = ([getattr(s, key) for s in GRAPH.stages] for key in ("folder", "command"))
    assert len({*folders}) == len({*commands}) == len(GRAPH.stages)
    for place, stage in enumerate(GRAPH.stages):
        assert {*stage.after} <= {*folders[:place]}
        assert stage.help.endswith(".")
        assert Path(__import__(f"lean_align.stages.{stage.folder}", fromlist=["run"]).__file__).stem == stage.folder


def literals(source: str) -> set[str]:
    """Texts of a module, what stands between the slashes of paths by itself; docstrings are none."""
    tree = ast.parse(source)
    docs = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    texts = (n.value for n in ast.walk(tree) if isinstance(n, ast.Constant) and id(n) not in docs)
    return {part for text in texts if isinstance(text, str) for part in text.split("/")}


def test_the_pipeline_names_no_stage() -> None:
    names = {name for stage in GRAPH.stages for name in (stage.folder, stage.command)}
    folder = Path(lean_align.pipeline.__file__).parent
    for path in folder.glob("*.py"):
        assert literals(path.read_text(encoding="utf-8")) & names == set(), path


def test_the_check_sees_a_name() -> None:
    assert "warmup" in literals('def f(x):\n    """warmup"""\n    return x / "warmup/adapter"')
    assert "warmup" not in literals('def f(x):\n    """warmup"""')
