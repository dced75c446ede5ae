"""What `selection.target` may name, where its problems come from, and what is refused before anything is sampled."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lean_align.artifacts import read_json, read_jsonl, read_manifest, write_json, write_text
from lean_align.contamination import find_contamination
from lean_align.data import PromptRules, load_rows, prepare_prompts, target_rows
from lean_align.data.raw_rows import testbed_pool as pool_of
from lean_align.demo.pool import is_held_out, make_held_out, make_labelled, signature
from lean_align.errors import DataError, RecipeError, StaleStageError
from lean_align.recipe import Recipe, TargetSource, dump_recipe, load_recipe, read_target
from lean_align.selection import (
    SelectionPool,
    TargetProblems,
    find_method,
    recipe_method,
    rows_set_apart,
    select_prompts,
)
from lean_align.stages import GRAPH, data, run_stage
from lean_align.stages.inputs import POOL, TARGET
from lean_align.store import GradientStore, StoreWriter, open_store
from lean_align.types import Prompt
from lean_align.verify import parse_gold

AIMED = {"selection.method": "learnalign-target"}
FEW = {"data.demo_train": 40, "data.demo_test": 30, "selection.n": 5}


# --- what may be named


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("held-out:64", TargetSource("held-out", 64)),
        ("testbed:4", TargetSource("testbed", 4)),
        ("openai/gsm8k", TargetSource("openai/gsm8k")),
        ("folder/problems.jsonl", TargetSource("folder/problems.jsonl")),
    ],
)
def test_a_target_is_read(text: str, found: TargetSource) -> None:
    assert read_target(text) == found
    assert load_recipe("demo", {"selection.target": text}).selection.target == text


@pytest.mark.parametrize(
    "text",
    [
        "held-out",
        "held-out:",
        "held-out:x",
        "held-out:0",
        "held-out:3",
        "held-out:-8",
        "held-out: 8",
        "held-out:8.0",
        "held-out:٨٨",
        "testbed",
        "testbed:1e2",
        "demo",
        "demo:64",
        "  ",
    ],
)
def test_a_malformed_target_is_refused_with_what_is_expected(text: str) -> None:
    with pytest.raises(RecipeError, match=r"selection\.target is .*expected a file, a hub id, held-out:N or testbed:N"):
        load_recipe("demo", {"selection.target": text})


def test_a_misspelt_target_is_offered_the_nearest() -> None:
    with pytest.raises(RecipeError, match=r"Did you mean held-out:64\?"):
        read_target("heldout:64")


def test_a_file_may_have_a_colon_in_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine:64").write_text("")
    assert read_target("mine:64").is_rows


def test_a_method_that_aims_wants_a_target() -> None:
    plain, aimed = (load_recipe("demo", {"selection.target": None, **more}) for more in ({}, AIMED))
    assert recipe_method(plain).name == "learnalign"
    with pytest.raises(RecipeError, match=r"learnalign-target, which aims at a target, and selection\.target is null"):
        recipe_method(aimed)
    with pytest.raises(RecipeError, match=r"selection\.target is null"):
        GRAPH.needed_stages(aimed)


def test_stages_of_a_target_are_there_for_methods_that_aim_alone() -> None:
    def aimed_at(method: str) -> list[str]:
        stages = GRAPH.needed_stages(load_recipe("demo", {"selection.method": method}))
        return [stage.folder for stage in stages if stage.folder.startswith("target")]

    gradients = ["target", "target_rollouts", "target_gradients"]
    assert aimed_at("learnalign") == aimed_at("alignment") == aimed_at("random") == []
    assert aimed_at("learnalign-target") == aimed_at("alignment-target") == gradients
    assert aimed_at("feature-similarity-target") == ["target", "target_rollouts", "target_features"]


def test_naming_a_target_changes_no_stage_of_a_method_that_does_not_aim() -> None:
    """Also of a training in rounds, which depends on how it selects."""
    for more in ({}, {"selection.rounds": 2}):
        named, none = (load_recipe("gsm8k", {"selection.target": t, **more}) for t in ("held-out:64", None))
        for stage in GRAPH.needed_stages(named):
            assert stage.all_keys(named) == stage.all_keys(none)
    aimed = load_recipe("gsm8k", {**AIMED, "selection.rounds": 2})
    assert "selection.target" in GRAPH.by_folder["training"].all_keys(aimed)


# --- rows that are set apart


def numbered(n: int) -> list[dict[str, str]]:
    return [{"prompt": f"What is {i} plus {i}?", "answer": str(2 * i)} for i in range(n)]


def split(n: int, apart: int, limit: int | None = None, seed: int = 0) -> tuple[set[str], set[str]]:
    rules = PromptRules(contamination="off", limit=limit, seed=seed, set_apart=apart)
    found = prepare_prompts(numbered(n), "train", "rows.jsonl", parse_gold, lambda prompt: True, rules)
    return {p.prompt_id for p in found.prompts}, {p.prompt_id for p in found.set_apart}


def test_rows_are_set_apart_by_seed_and_are_not_in_the_pool() -> None:
    pool, apart = split(50, 8)
    assert (len(pool), len(apart)) == (42, 8)
    assert not pool & apart
    assert split(50, 8) == (pool, apart)
    assert split(50, 8, seed=1)[1] != apart
    assert split(50, 4)[1] < apart < split(50, 16)[1]


def test_rows_that_a_limit_leaves_out_are_set_apart_first() -> None:
    """40 of 50 leave 10: 10 change nothing in the pool, 12 take two of it."""
    whole, none = split(50, 0, limit=40)
    assert none == set()
    assert split(50, 10, limit=40)[0] == whole
    assert split(50, 12, limit=40)[0] < whole
    assert len(split(50, 12, limit=40)[0]) == 38


def test_more_rows_apart_than_there_are_is_refused() -> None:
    with pytest.raises(DataError, match=r"sets 50 rows apart, and rows.jsonl has 50 that can be used; expected fewer"):
        split(50, 50)


def test_the_demo_generates_more_and_keeps_its_pool() -> None:
    recipe = load_recipe("demo", FEW | AIMED | {"selection.target": "held-out:16"})
    questions = [row["prompt"] for row in target_rows(recipe, read_target("held-out:16"))]
    pool, test = ([row["prompt"] for row in load_rows(recipe.data, split)] for split in ("train", "test"))
    assert rows_set_apart(recipe) == 0
    assert len(set(questions)) == 16
    assert not set(questions) & {*pool, *test}
    longer = replace(recipe.data, demo_train=56)
    assert [row["prompt"] for row in load_rows(longer, "train")] == [*pool, *questions]


def test_files_lose_the_rows_to_the_target_only_where_a_method_aims() -> None:
    held_out = {"selection.target": "held-out:64", "data.train_path": "rows.jsonl"}
    assert rows_set_apart(load_recipe("demo", held_out)) == 0
    assert rows_set_apart(load_recipe("demo", held_out | AIMED)) == 64
    assert rows_set_apart(load_recipe("demo", held_out | AIMED | {"selection.target": "testbed:64"})) == 0


# --- problems of the test bed


def test_labelled_problems_of_the_test_bed_are_in_neither_pool_nor_evaluation() -> None:
    """Under no name: no signature of theirs is one of the pool's, or one that an evaluation of any size may ask."""
    recipe = load_recipe("testbed")
    pool, make_up = pool_of(recipe.pool), (recipe.pool.target_families, recipe.pool.target_grades)
    found = make_labelled(128, pool, *make_up)
    signatures = {signature(question) for question, _ in found}
    assert len(signatures) == 128
    assert not signatures & {signature(prompt.question) for prompt in pool}
    assert not signatures & {signature(question) for question, _ in make_held_out(500, *make_up)}
    assert not any(is_held_out(question) for question, _ in found)
    assert make_labelled(16, pool, *make_up) == found[:16]
    sets = {
        "pool": [Prompt(f"p-{i}", prompt.question, "1") for i, prompt in enumerate(pool)],
        "test": [Prompt(f"t-{i}", question, "1") for i, (question, _) in enumerate(make_held_out(500, *make_up))],
    }
    pairs = find_contamination([Prompt(str(i), question, "1") for i, (question, _) in enumerate(found)], sets).pairs
    assert [pair for pair in pairs if pair.benchmark == "test" or pair.kind == "exact"] == []


def test_the_recipe_of_the_test_bed_names_such_problems() -> None:
    recipe = load_recipe("testbed", AIMED)
    rows = target_rows(recipe, read_target(str(recipe.selection.target)))
    assert len(rows) == 64
    assert {"boxes", "share", "rides"} <= {word for row in rows for word in row["prompt"].split()}


def test_a_used_up_target_says_what_to_do() -> None:
    recipe = load_recipe("testbed", {"pool.target_families": ["share"], "pool.target_grades": [1], "pool.target": 8})
    with pytest.raises(DataError, match=r"different labelled prompts and 200 were asked for.*selection\.target"):
        target_rows(recipe, TargetSource("testbed", 200))


# --- the stage


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """Runs the stages data and target; the plan between them takes seconds."""
    monkeypatch.setattr(
        data, "write_plan", lambda stage, encoder, train, sets: write_json(stage.run_dir / "plan.json", {})
    )

    def prepare(**settings: Any) -> Path:
        run_dir = tmp_path / f"run-{len(list(tmp_path.glob('run-*')))}"
        given = {key.replace("__", "."): value for key, value in settings.items()}
        write_recipe(run_dir, load_recipe("demo", FEW | AIMED | given))
        run_stage("prepare", run_dir)
        run_stage("target", run_dir)
        return run_dir

    return prepare


def write_recipe(run_dir: Path, recipe: Recipe) -> None:
    run_dir.mkdir(exist_ok=True)
    write_text(run_dir / "recipe.yaml", dump_recipe(recipe))


def jsonl(path: Path, rows: Sequence[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counts_of(run_dir: Path) -> dict[str, Any]:
    return (read_manifest(run_dir / "target") or {})["counts"]


def test_a_file_is_read_as_training_data_are(prepared: Callable[..., Path], tmp_path: Path) -> None:
    rows = [{"question": f"Ann has {i} pens. Ben has 3. How many?", "solution": f"#### {i + 3}"} for i in range(6)]
    path = jsonl(tmp_path / "wanted.jsonl", [*rows, {"question": "How many?", "solution": ""}])
    run_dir = prepared(selection__target=str(path))
    found = TARGET.prompts(run_dir)
    assert [prompt.prompt_id for prompt in found] == [f"target-{i:06d}" for i in range(6)]
    assert [prompt.answer for prompt in found] == [str(i + 3) for i in range(6)]
    assert [row["prompt_id"] for row in read_jsonl(run_dir / "target" / "dropped.jsonl")] == ["target-000006"]
    assert counts_of(run_dir) == {
        "n_problems": 6,
        "n_dropped": 1,
        "n_in_pool": 0,
        "n_near": 0,
        "compared_with": {"demo": 30},
    }


def test_rows_of_the_training_data_are_set_apart(prepared: Callable[..., Path], tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "rows.jsonl", numbered(40)))
    plain = prepared(data__train_path=path, selection__target="testbed:8")
    aimed = prepared(data__train_path=path, selection__target="held-out:8")
    every, pool, apart = (side.prompts(run) for side, run in ((POOL, plain), (POOL, aimed), (TARGET, aimed)))
    assert (len(pool), len(apart)) == (32, 8)
    assert sorted([*pool, *apart], key=lambda prompt: prompt.prompt_id) == every


def evaluated(n: int) -> list[str]:
    return [row["prompt"] for row in load_rows(load_recipe("demo", FEW).data, "test")[:n]]


def test_a_target_that_holds_evaluation_problems_is_refused(prepared: Callable[..., Path], tmp_path: Path) -> None:
    """Planted: one of them, set in capitals."""
    own = [{"prompt": f"Ann has {i} pens. Ben has 3. How many?", "answer": str(i)} for i in range(6)]
    path = jsonl(tmp_path / "wanted.jsonl", [*own, {"prompt": evaluated(1)[0].upper(), "answer": "1"}])
    with pytest.raises(
        DataError,
        match=r"wanted.jsonl, and 1 of its 7 problems are evaluation problems, word for word \(target-000006 is "
        r"test-000000 of demo\); expected problems that are not evaluated",
    ):
        prepared(selection__target=str(path))
    assert not (tmp_path / "run-0" / "target").exists()


def test_the_test_set_is_no_target(prepared: Callable[..., Path], tmp_path: Path) -> None:
    path = str(jsonl(tmp_path / "test.jsonl", [{"prompt": q, "answer": "1"} for q in evaluated(30)]))
    with pytest.raises(DataError, match=r"30 of its 30 problems are evaluation problems.* and 27 more"):
        prepared(selection__target=path)


def test_near_matches_are_kept_listed_and_counted(prepared: Callable[..., Path], tmp_path: Path) -> None:
    near = [f"Read this with care, please. {question} Think before you answer." for question in evaluated(5)]
    path = jsonl(tmp_path / "wanted.jsonl", [{"prompt": question, "answer": "1"} for question in near])
    run_dir = prepared(selection__target=str(path))
    pairs = read_jsonl(run_dir / "target" / "near_matches.jsonl")
    assert counts_of(run_dir)["n_near"] == len({pair["prompt_id"] for pair in pairs}) > 0
    assert {pair["kind"] for pair in pairs} == {"near"}
    assert len(TARGET.prompts(run_dir)) == 5


def test_prompts_that_are_in_both_are_found(prepared: Callable[..., Path], tmp_path: Path) -> None:
    pool = [row["prompt"] for row in load_rows(load_recipe("demo", FEW).data, "train")]
    rows = [{"prompt": f"  {question.replace(' ', '  ')}", "answer": "1"} for question in (pool[7], pool[0])]
    path = jsonl(tmp_path / "wanted.jsonl", [*rows, *numbered(4)])
    run_dir = prepared(selection__target=str(path))
    assert read_json(run_dir / "target" / "in_both.json") == {
        "train-000000": ["target-000001"],
        "train-000007": ["target-000000"],
    }
    assert counts_of(run_dir)["n_in_pool"] == 2


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, "there is no file"),
        ([], "wanted.jsonl has no rows"),
        (numbered(3), "has 3 usable problems; expected at least 4"),
        ([{"prompt": f"What is {i}?"} for i in range(9)], "has no answer"),
        ([{"prompt": "word " * 600 + str(i), "answer": "2"} for i in range(9)], "none of its 9 rows can be used"),
    ],
)
def test_a_file_that_is_missing_empty_or_too_small_is_refused(
    prepared: Callable[..., Path], tmp_path: Path, rows: list[dict[str, Any]] | None, message: str
) -> None:
    path = tmp_path / "wanted.jsonl"
    if rows is not None:
        jsonl(path, rows)
    with pytest.raises(DataError, match=message):
        prepared(selection__target=str(path))


def test_another_file_under_the_same_name_is_refused(prepared: Callable[..., Path], tmp_path: Path) -> None:
    path = jsonl(tmp_path / "wanted.jsonl", numbered(6))
    run_dir = prepared(selection__target=str(path))
    jsonl(path, numbered(7))
    with pytest.raises(StaleStageError, match=r"wanted\.jsonl"):
        run_stage("target", run_dir)


# --- the target as a method sees it


def store_of(folder: Path, n: int, k: int, name: str, seed: int | None = None) -> GradientStore:
    rng = np.random.default_rng(len(name) + n)
    with StoreWriter.open(folder, [f"{name}-{i}" for i in range(n)], k) as writer:
        for row in range(n):
            writer.write(row, rng.normal(size=k))
    if seed is not None:
        write_json(folder / "projection.json", {"projection": {"kind": "sjlt", "seed": seed}})
    return open_store(folder)


def pool_with(gradients: GradientStore, aim: TargetProblems | None) -> SelectionPool:
    ids = gradients.prompt_ids
    rewards = ((1.0, 0.0),) * len(ids)
    return SelectionPool(ids, ids, 0, gradients=gradients, rewards=rewards, n_tokens=np.ones(len(ids)), target=aim)


def aim_of(gradients: GradientStore, v: float = 0.25, **more: Any) -> TargetProblems:
    n = len(gradients)
    return TargetProblems(gradients.prompt_ids, np.full(n, 0.5), np.full(n, v), gradients, **more)


def test_rows_of_another_projection_are_refused(tmp_path: Path) -> None:
    pool = store_of(tmp_path / "pool", 6, 8, "train", seed=0)
    same, other, short = (
        aim_of(store_of(tmp_path / name, 4, k, "target", seed))
        for name, k, seed in (("same", 8, 0), ("other", 8, 1), ("short", 7, 0))
    )
    assert len(pool_with(pool, same)) == 6
    with pytest.raises(DataError, match=r"another projection than .*pool:\n  projection.seed: 1 -> 0\nDelete"):
        pool_with(pool, other)
    with pytest.raises(DataError, match="gradients of the target have 7 numbers a row, the pool's 8"):
        pool_with(pool, short)


def test_a_target_of_which_nothing_can_be_learned_is_refused(tmp_path: Path) -> None:
    gradients = store_of(tmp_path / "target", 4, 8, "target")
    with pytest.raises(DataError, match="no problem of the target can teach: all 4 are always or never solved"):
        aim_of(gradients, v=0.0)


def test_fields_of_other_problems_are_refused(tmp_path: Path) -> None:
    pool, own = (store_of(tmp_path / name, 4, 8, name) for name in ("train", "target"))
    with pytest.raises(DataError, match="gradients of the target are of other problems"):
        replace(aim_of(own), prompt_ids=("a", "b", "c", "d"))
    with pytest.raises(DataError, match="the target has 4 problems and learnability of shape"):
        replace(aim_of(own), learnability=np.ones(3))
    for places in ({4: (0,)}, {0: (4,)}):
        with pytest.raises(DataError, match="is one of its problems"):
            pool_with(pool, aim_of(own, in_both=places))


def test_a_method_names_the_rows_that_it_compares(tmp_path: Path) -> None:
    pool, own = (store_of(tmp_path / name, 4, 8, name) for name in ("train", "target"))
    bare = replace(aim_of(own), gradients=None)
    with pytest.raises(DataError, match="the target has no gradients; name gradients beside `target`"):
        select_prompts(find_method("learnalign-target"), pool_with(pool, bare), 2)
