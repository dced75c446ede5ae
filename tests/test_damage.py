"""A finished run of which any file is deleted, cut or changed: refused before anything runs, with a way out."""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from fake_stages import put_in_place

from lean_align.errors import LeanAlignError, StaleStageError
from lean_align.evaluation import joint_table
from lean_align.pipeline.stage import StageRun
from lean_align.recipe import Recipe, load_recipe
from lean_align.stages import GRAPH, run, run_stage

MEASURED = ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes", "beside", "seal", "stages", "total_wall_seconds")
STAGES = ("data", "warmup", "rollouts", "gradients", "scores", "selection", "training", "evaluation", "report")
HEALED = ("recipe.yaml", ".lock", ".run.lock", ".turn")
"""What the same command writes in any case, and what holds nothing."""


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    return load_recipe("demo", {"selection.n": 6, "training.steps": 3})


@pytest.fixture(scope="module", autouse=True)
def plain_page() -> Iterator[None]:
    """Plots take seconds, and are drawn in other tests."""
    with pytest.MonkeyPatch.context() as patch:
        results = sys.modules["lean_align.stages.report"]
        patch.setattr(results, "write_report", lambda path, *found: path.write_text("a page"))
        yield


@pytest.fixture(scope="module")
def whole(recipe: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    with pytest.MonkeyPatch.context() as patch:
        put_in_place(patch)
        run(recipe, run_dir)
    return run_dir


def copy_of(whole: Path, tmp_path: Path) -> Path:
    """A finished run in a folder whose name a shell would take apart."""
    return Path(shutil.copytree(whole, tmp_path / "runs of mine" / "it's one", symlinks=True))


def contents(run_dir: Path) -> dict[str, Any]:
    """Every file of a run, without what was measured."""
    found: dict[str, Any] = {}
    for path in sorted(p for p in run_dir.rglob("*") if p.is_file()):
        name = path.relative_to(run_dir).as_posix()
        if path.name == "manifest.json" or name == "summary.json":
            tree = {key: value for key, value in json.loads(path.read_text()).items() if key not in MEASURED}
            (tree.get("outputs") or {}).pop("index.html", None)
            found[name] = tree
        elif name not in (*HEALED, "report/index.html"):
            found[name] = path.read_bytes()
    return found


def cut(data: bytes) -> bytes:
    return data[: len(data) // 2]


def changed(data: bytes) -> bytes:
    """The letter or digit nearest after the middle becomes another one."""
    at = next((i for i in range(len(data) // 2, len(data)) if chr(data[i]).isalnum()), len(data) // 2)
    return data[:at] + (b"7" if data[at : at + 1] != b"7" else b"8") + data[at + 1 :]


def damages(path: Path) -> Iterator[tuple[str, Any]]:
    yield "deleted", lambda: path.unlink()
    data = path.read_bytes()
    if data:
        yield "cut", lambda: path.write_bytes(cut(data))
        yield "changed", lambda: path.write_bytes(changed(data))


def follow(advice: str) -> list[Path]:
    """Do what the last line of a message says, as a shell would; returns what was deleted."""
    program, option, *paths = shlex.split(advice.splitlines()[-1])
    assert (program, option) == ("rm", "-r"), advice
    for path in map(Path, paths):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return [Path(path) for path in paths]


def until_it_runs(recipe: Recipe, run_dir: Path, ran: list[Any]) -> tuple[int, list[Path]]:
    """The same command and its advice, in turn, until it runs through: number of refusals, and what was deleted."""
    deleted: list[Path] = []
    for n_refusals in range(4):
        refusal = None
        try:
            run(recipe, run_dir)
        except LeanAlignError as error:
            refusal = str(error)
        if refusal is None:
            return n_refusals, deleted
        assert ran == [], refusal  # before anything was computed
        deleted += follow(refusal)
    pytest.fail("the advice leads nowhere")


@pytest.mark.parametrize("folder", ["", *STAGES])
def test_any_file_deleted_cut_or_changed_is_found_and_the_advice_leads_to_the_same_files(
    folder: str, recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]
) -> None:
    expected, run_dir = contents(whole), copy_of(whole, tmp_path)
    files = sorted(p for p in (run_dir / folder).glob("**/*" if folder else "*") if p.is_file())
    for path in files:
        for kind, damage in [*damages(path)]:
            fake_stages.clear()
            damage()
            n_refusals, deleted = until_it_runs(recipe, run_dir, fake_stages[:])
            name = path.relative_to(run_dir).as_posix()
            assert n_refusals == (0 if name in HEALED else 1), (kind, name)
            assert all(p.parent == run_dir for p in deleted), deleted
            assert contents(run_dir) == expected, (kind, name)


@pytest.mark.parametrize("stage", STAGES)
def test_two_damaged_stages_are_both_found_before_anything_is_computed(
    stage: str, recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]
) -> None:
    """The first is gone and would be made again, for hours, before the second was met."""
    run_dir = copy_of(whole, tmp_path)
    shutil.rmtree(run_dir / "data")
    if stage != "data":
        (run_dir / stage / "manifest.json").unlink()
        with pytest.raises(StaleStageError, match=rf"{stage} has no manifest\.json"):
            run(recipe, run_dir)
        assert fake_stages == []
    until_it_runs(recipe, run_dir, [])
    assert contents(run_dir) == contents(whole)


def test_a_stage_by_itself_is_refused_before_it_computes(
    recipe: Recipe, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`lean-align score RUN` over a damaged manifest of its own, and of a stage that it reads."""
    run_dir = copy_of(whole, tmp_path)

    def computes(stage: StageRun) -> None:
        raise AssertionError(stage.folder)

    monkeypatch.setitem(GRAPH.by_command, "score", replace(GRAPH.by_command["score"], run=computes))
    for folder in ("scores", "gradients"):
        path = run_dir / folder / "manifest.json"
        text = path.read_text()
        path.write_text("{")
        with pytest.raises(StaleStageError, match=rf"(?s){folder}/manifest\.json is not valid JSON.*rm -r .*{folder}"):
            run_stage("score", run_dir)
        path.write_text(text)


def test_the_report_is_not_said_to_be_finished_without_its_summary(whole: Path, tmp_path: Path) -> None:
    run_dir = copy_of(whole, tmp_path)
    (run_dir / "summary.json").unlink()
    with pytest.raises(StaleStageError, match=r"summary\.json is missing\. The stage report writes it") as refusal:
        run_stage("report", run_dir)
    follow(str(refusal.value))
    run_stage("report", run_dir)
    assert contents(run_dir) == contents(whole)


def test_unfinished_work_of_which_nobody_knows_the_inputs_is_named(
    recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]
) -> None:
    for text in ("{", "[]", "{}", '{"inputs": 3, "wall_seconds": 1}', '{"inputs": {}, "wall_seconds": "x"}'):
        run_dir = copy_of(whole, tmp_path)
        shutil.rmtree(run_dir / "warmup")
        (run_dir / "warmup.partial").mkdir()
        (run_dir / "warmup.partial" / "inputs.json").write_text(text)
        n_refusals, deleted = until_it_runs(recipe, run_dir, [])
        assert (n_refusals, deleted) == (1, [run_dir / "warmup.partial"])
        assert contents(run_dir) == contents(whole)
        shutil.rmtree(run_dir)


def test_a_file_where_a_stage_works_is_named(
    recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]
) -> None:
    run_dir = copy_of(whole, tmp_path)
    for name in ("rollouts", "rollouts.partial"):
        shutil.rmtree(run_dir / "rollouts")
        (run_dir / name).write_text("not a folder")
        until_it_runs(recipe, run_dir, [])
        assert contents(run_dir) == contents(whole)


def test_a_damaged_stage_behind_a_link_goes_with_the_link(
    recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]
) -> None:
    """As in a comparison, whose runs share stages by links; a link to nothing is named too."""
    run_dir, home = copy_of(whole, tmp_path), tmp_path / "stages of all"
    (run_dir / "gradients").rename(home)
    (run_dir / "gradients").symlink_to(home)
    assert until_it_runs(recipe, run_dir, fake_stages) == (0, [])
    (home / "norms.npy").unlink()
    assert until_it_runs(recipe, run_dir, fake_stages[:]) == (1, [run_dir / "gradients", home])
    assert contents(run_dir) == contents(whole)
    shutil.rmtree(run_dir / "gradients")
    (run_dir / "gradients").symlink_to(home)
    assert until_it_runs(recipe, run_dir, []) == (1, [run_dir / "gradients"])
    assert contents(run_dir) == contents(whole)


def test_a_run_of_the_version_before_opens(recipe: Recipe, whole: Path, tmp_path: Path, fake_stages: list[Any]) -> None:
    """Its manifests have no seal and name no files beside; a lost summary is missed all the same."""
    run_dir = copy_of(whole, tmp_path)
    for path in run_dir.glob("*/manifest.json"):
        manifest = json.loads(path.read_text())
        path.write_text(json.dumps({key: manifest[key] for key in manifest if key not in ("seal", "beside")}))
    assert run(recipe, run_dir)["selection"]["n"] == 6
    (run_dir / "plan.json").unlink()  # the earliest had none
    assert until_it_runs(recipe, run_dir, fake_stages) == (0, [])
    (run_dir / "summary.json").unlink()
    assert until_it_runs(recipe, run_dir, fake_stages[:]) == (1, [run_dir / "report"])
    assert run(recipe, run_dir)["selection"]["n"] == 6


def test_a_table_of_runs_shows_no_changed_figure(recipe: Recipe, whole: Path, tmp_path: Path) -> None:
    run_dir = copy_of(whole, tmp_path)
    path = run_dir / "summary.json"
    path.write_text(path.read_text().replace('"seed": 0', '"seed": 1'))
    with pytest.raises(StaleStageError, match=r"summary\.json was changed after it was written"):
        joint_table([run_dir])


def test_no_stage_is_written_over_one_that_is_there(whole: Path, tmp_path: Path) -> None:
    from lean_align.artifacts import open_stage_folder

    run_dir = copy_of(whole, tmp_path)
    with pytest.raises(StaleStageError, match="scores is finished"):
        open_stage_folder(run_dir, "scores", {})
    assert not (run_dir / "scores.partial").exists()
