"""`compare`: cells, sharing, faults and figures, on stages that are made up (tests/fake_stages.py)."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_stages as module
import numpy as np
import pytest

from lean_align.artifacts import StageFolder, file_hash, read_json, read_jsonl, write_json, write_jsonl
from lean_align.compare import Variant, compare, read_variant, read_variants, runner
from lean_align.compare.base_model import base_key
from lean_align.compare.cells import in_one_line, shared_key
from lean_align.compare.pace import Pace
from lean_align.compare.results import Design
from lean_align.errors import RecipeError, StageError, StaleStageError
from lean_align.evaluation.problem_sets import _held_out
from lean_align.evaluation.solving import sample_sets
from lean_align.pipeline.children import run_in_child
from lean_align.pipeline.stage import StageRun
from lean_align.recipe import Recipe, changed_recipe, load_recipe
from lean_align.scoring import rank_scores
from lean_align.scoring.tables import read_scores, read_table
from lean_align.stages import GRAPH, run, run_stage
from lean_align.stages.rounds import round_recipe, stretches
from lean_align.types import Completion, Prompt

METHODS = ("learnalign", "random", "full")
Ran = list[tuple[str, str]]


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe(
        "demo", {"selection.n": 10, "training.steps": 3, "warmup.steps": 2, "gradients.second_seed": False}
    )


@pytest.fixture(autouse=True)
def no_page(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page takes seconds: only the test that asks for it has it."""
    if "page" not in request.keywords:
        monkeypatch.setattr(runner, "write_comparison", lambda folder, results, page: None)


def test_a_variant_is_read_as_it_is_written(recipe: Recipe) -> None:
    variant = read_variant("learnalign@5+warmup.steps=0+training.learning_rate=1e-4", recipe)
    assert (variant.method, variant.n) == ("learnalign", 5)
    assert variant.settings == (("warmup.steps", "0"), ("training.learning_rate", "1e-4"))
    assert variant.label == "learnalign@5+warmup.steps=0+training.learning_rate=1e-4"
    own = variant.recipe(recipe, seed=7)
    assert (own.seed, own.selection.n, own.warmup.steps, own.training.learning_rate) == (7, 5, 0, 1e-4)


def test_sizes_multiply_methods_without_one_of_their_own(recipe: Recipe) -> None:
    found = read_variants(("learnalign", "random@7", "full", "learnalign@5"), (5, 9), recipe)
    assert [v.label for v in found] == ["learnalign@5", "learnalign@9", "random@7", "full"]


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("learnalgin", "did you mean 'learnalign'"),
        ("random@x", "expected a whole number"),
        ("random@0", "expected a whole number"),
        ("random+warmup.steps", "without '='"),
        ("random+warmup.stepz=1", "did you mean 'warmup.steps'"),
        ("random+training.steps=none", "expected int"),
        ("random+selection.method=full", "the method comes first"),
        ("random+selection.n=5", "the size is written METHOD@N"),
        ("random+seed=3", "seeds belong to the whole comparison"),
    ],
)
def test_a_wrong_variant_is_refused(text: str, word: str, recipe: Recipe) -> None:
    with pytest.raises(RecipeError, match=word):
        read_variant(text, recipe)


def test_stages_are_shared_as_far_as_recipes_agree(recipe: Recipe) -> None:
    """Rollouts depend on the warm-up's steps and on the seed, and not on the size of the choice."""
    plain, small, cold, other = (
        read_variant(text, recipe).recipe(recipe, seed)
        for text, seed in (
            ("learnalign", 0),
            ("learnability@5", 0),
            ("learnalign+warmup.steps=0", 0),
            ("learnalign", 1),
        )
    )
    rollouts, data = GRAPH.by_folder["rollouts"], GRAPH.by_folder["data"]
    assert shared_key(rollouts, plain) == shared_key(rollouts, small)
    assert shared_key(rollouts, plain) != shared_key(rollouts, cold)
    assert shared_key(rollouts, plain) != shared_key(rollouts, other)
    assert shared_key(data, plain) == shared_key(data, cold)


def test_shared_stages_run_once_a_seed(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    found = compare(recipe, tmp_path, ("learnalign", "learnability", "random", "learnalign@5"), 2)
    assert (found["n_done"], found["n_cells"], found["faults"]) == (8, 8, [])
    times = {
        name: sum(stage == name for stage, _ in fake_stages) for name in ("data", "rollouts", "gradients", "training")
    }
    assert times == {"data": 2, "rollouts": 2, "gradients": 2, "training": 8}


def test_a_method_may_choose_from_more_completions(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Its own rollouts and gradients; the trainings draw as many as all others."""
    more = "learnalign+selection.num_generations=16"
    found = compare(recipe, tmp_path, ("learnalign", more), 1)
    assert (found["n_done"], found["faults"]) == (2, [])
    times = Counter(stage for stage, _ in fake_stages)
    assert (times["warmup"], times["rollouts"], times["gradients"], times["training"]) == (1, 2, 2, 2)
    rows = read_jsonl(tmp_path / "seed-0" / more.replace("+", "@10+") / "rollouts" / "rollouts.jsonl")
    assert len(rows) == 16 * module.POOL


def test_the_same_call_continues(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    first = compare(recipe, tmp_path, METHODS, 1)
    n = len(fake_stages)
    shutil.rmtree(tmp_path / "seed-0" / "random@10" / "evaluation")
    again = compare(recipe, tmp_path, METHODS, 1)
    assert fake_stages[n:] == [("evaluation", "random@10")]
    assert first == again


@pytest.mark.page
def test_results_are_those_of_the_files(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    found = compare(recipe, tmp_path, METHODS, 2)
    rows = read_jsonl(tmp_path / "seed-1" / "random@10" / "evaluation" / "trained" / "demo.jsonl")
    row = next(row for row in found["methods"] if row["label"] == "random@10")
    assert row["by_seed"]["1"] == pytest.approx(np.mean([r["reward"] for r in rows]))
    assert row["accuracy"] == pytest.approx(np.mean(list(row["by_seed"].values())))
    assert row["cost"]["selection_seconds"] < 5
    assert row["cost"]["training_tokens"] == 3 * 7
    learnalign = found["methods"][0]
    assert learnalign["cost"]["generated_tokens"] == 1000 + 2 * 7  # rollouts and warm-up
    assert sum(learnalign["kinds"].values()) == pytest.approx(10)
    assert sum(learnalign["lengths"]["counts"]) == pytest.approx(10)
    other = next(c for c in found["comparisons"] if c["label"] == "random@10")
    assert other["difference"] == pytest.approx(row["accuracy"] - learnalign["accuracy"])
    assert other["family"] == "primary"
    assert {c["label"]: c["family"] for c in found["comparisons"]}["full"] == "others"
    assert found["overlap"]["share"][0][0] == 1.0
    assert found["overlap"]["share"][0][2] == 1.0  # `full` holds every choice
    assert json.loads((tmp_path / "compare" / "results.json").read_text()) == found
    assert (tmp_path / "compare" / "index.html").exists()


def test_the_table_fills_in(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    seen: list[str] = []
    compare(recipe, tmp_path, METHODS, 1, show=seen.append)
    assert len(seen) == 3
    assert all("random@10" in text for text in seen)


def test_the_base_is_evaluated_once(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """Greedy answers do not depend on the seed; the files are those of a comparison in which each cell makes them."""
    lent, write, methods = [], module.WRITERS["evaluation"], ("learnalign", "random")

    def evaluation(recipe: Recipe, run_dir: Path, folder: Path) -> None:
        lent.append((folder / "base").exists())
        write(recipe, run_dir, folder)

    monkeypatch.setitem(module.WRITERS, "evaluation", evaluation)
    found = compare(recipe, tmp_path / "lent", methods, 2)
    assert lent == [False, True, True, True]
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("compare: ")]
    assert len(lines) == 8  # and no table
    assert lines[0] == "compare: learnalign@10, seed 0 (0 of 4 done)"
    assert re.fullmatch(r"compare: learnalign@10, seed 0: \d+\.\d % right, the base \d+\.\d %", lines[1])
    assert re.fullmatch(r"compare: random@10, seed 1 \(3 of 4 done, about \d+ s to go\)", lines[6])
    monkeypatch.setattr("lean_align.compare.cells.lend_base", lambda *given: None)
    apart = compare(recipe, tmp_path / "apart", methods, 2)
    assert lent[4:] == [False] * 4
    assert without_seconds(found) == without_seconds(apart)
    names = sorted(p.relative_to(tmp_path / "apart") for p in (tmp_path / "apart").glob("seed-*/*/evaluation/*/*"))
    assert len(names) == 8
    assert all(file_hash(tmp_path / "lent" / name) == file_hash(tmp_path / "apart" / name) for name in names)


def without_seconds(found: dict[str, Any]) -> dict[str, Any]:
    methods = [{key: value for key, value in row.items() if key != "cost"} for row in found["methods"]]
    return found | {"methods": methods}


def test_answers_of_other_problems_or_another_model_are_not_lent(recipe: Recipe, tmp_path: Path) -> None:
    """Of a sampled benchmark those of another seed neither."""
    test = tmp_path / "data" / "test.jsonl"
    test.parent.mkdir()
    test.write_text("three\n")
    inputs = {"recipe": {"seed": 0, "evaluation": {}}, "model_files": "a", "stages": {"training": "b"}}
    key = base_key(recipe, tmp_path, inputs)
    other_seed = inputs | {"recipe": {"seed": 5, "evaluation": {}}, "stages": {"training": "c"}}
    assert base_key(recipe, tmp_path, other_seed) == key
    sampled = changed_recipe(recipe, {"evaluation.benchmarks": ["amc2023"]})
    assert base_key(sampled, tmp_path, other_seed) != base_key(sampled, tmp_path, inputs)
    assert base_key(recipe, tmp_path, inputs | {"model_files": "others"}) != key
    test.write_text("four\n")
    assert base_key(recipe, tmp_path, inputs) != key


def test_a_model_whose_answers_are_all_there_is_not_loaded(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 2 problems the base has both, or one and a torn line."""
    loaded, prompts = [], tuple(Prompt(f"p-{i}", "1+1?", "2") for i in range(2))
    problems = _held_out(recipe, "demo", list(prompts))
    folder = StageFolder(tmp_path, tmp_path / "final", {}, 0.0)

    @contextmanager
    def engine(recipe: Recipe, folder: StageFolder, adapter: Path | None, *given: Any) -> Any:
        loaded.append(adapter)
        yield SimpleNamespace(with_encoder=lambda encoder: None, encoder=SimpleNamespace(end_names=["<eos>"]))

    monkeypatch.setattr("lean_align.evaluation.solving.sampling_engine", engine)

    def complete(engine: Any, prompts: Any, path: Path, *given: Any) -> None:
        write_jsonl(path, rows)

    monkeypatch.setattr("lean_align.rollouts.complete", complete)
    (tmp_path / "base").mkdir()
    path, rows = (
        tmp_path / "base" / "demo.jsonl",
        [asdict(Completion(p.prompt_id, 0, "2", (1,), 1, 1.0, True)) for p in prompts],
    )
    write_jsonl(path, rows)
    models = {"base": None, "trained": tmp_path / "adapter"}
    sample_sets(recipe, [problems], models, folder)
    assert loaded == [tmp_path / "adapter"]
    path.write_text(path.read_text()[:-5])
    sample_sets(recipe, [problems], models, folder)
    assert loaded[1:] == [None, tmp_path / "adapter"]


def test_the_time_to_go_counts_the_first_cell_of_a_seed_apart() -> None:
    """10 min for a first one, 2 and 4 for others: 10 + 3 + 3 min are left."""
    pace = Pace([600.0], [120.0, 240.0])
    assert pace.to_go([True, False, False]) == ", about 16 min to go"
    assert Pace().to_go([True]) == ""


def rewrite_manifest(folder: Path) -> None:
    """What somebody does who makes a changed file look like the stage's own."""
    manifest = read_json(folder / "manifest.json")
    manifest["outputs"] = {name: file_hash(folder / name) for name in manifest["outputs"]}
    write_json(folder / "manifest.json", manifest)


def faults_after(recipe: Recipe, folder: Path, methods: tuple[str, ...] = METHODS) -> str:
    found = compare(recipe, folder, methods, 1)
    assert found["n_done"] < found["n_cells"]
    return "\n".join(found["faults"])


def shuffled_scores(cell: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    path = cell / "scores" / "scores.parquet"
    table = read_table(path)
    for name in ("alignment", "score", "rank", "leave_one_out"):
        table[name] = np.roll(table[name], 1)
    pyarrow.parquet.write_table(pyarrow.table(table), path)


def test_a_shuffled_score_file_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    shuffled_scores(tmp_path / "seed-0" / "learnalign@10")
    assert "was changed after it was written" in faults_after(recipe, tmp_path)


def test_a_shuffled_score_file_is_refused_with_a_manifest_that_fits(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    """The selection would be made again from it; scores, rewards and gradients no longer fit together."""
    compare(recipe, tmp_path, METHODS, 1)
    cell = tmp_path / "seed-0" / "learnalign@10"
    before = read_scores(cell / "scores" / "scores.parquet").score.copy()
    shuffled_scores(cell)
    rewrite_manifest(cell / "scores")
    assert not np.array_equal(before, read_scores(cell / "scores" / "scores.parquet").score)
    for name in ("selection", "training", "evaluation"):
        shutil.rmtree(cell / name)
    assert "of other completions, or were changed" in faults_after(recipe, tmp_path)


def test_scores_that_do_not_follow_from_the_gradients_are_refused(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    """Planted: alignments, and the scores and ranks that follow from them, of another order."""
    import pyarrow
    import pyarrow.parquet

    compare(recipe, tmp_path, METHODS, 1)
    cell = tmp_path / "seed-0" / "learnalign@10"
    path = cell / "scores" / "scores.parquet"
    table = read_table(path)
    table["alignment"] = np.roll(table["alignment"], 1)
    table["score"] = table["learnability"] * table["alignment"]
    table["rank"] = rank_scores(table["score"], table["prompt_id"])
    pyarrow.parquet.write_table(pyarrow.table(table), path)
    rewrite_manifest(cell / "scores")
    for name in ("selection", "training", "evaluation"):
        shutil.rmtree(cell / name)
    assert "does not follow from their gradients" in faults_after(recipe, tmp_path)


def plant(folder: Path, name: str, change: Any) -> None:
    """Change rows of a file in a finished stage, and make its manifest fit."""
    write_jsonl(folder / name, change(read_jsonl(folder / name)))
    rewrite_manifest(folder)


def test_a_chosen_prompt_that_is_not_in_the_pool_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    cell = tmp_path / "seed-0" / "random@10"
    problem = read_jsonl(cell / "data" / "test.jsonl")[0]
    plant(cell / "selection", "selected.jsonl", lambda rows: [rows[0] | problem, *rows[1:]])
    for name in ("training", "evaluation"):
        shutil.rmtree(cell / name)
    assert "not in the pool" in faults_after(recipe, tmp_path)


def test_a_pool_that_holds_evaluation_problems_is_refused(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module.WRITERS["data"]

    def leaking(recipe: Recipe, run_dir: Path, folder: Path) -> None:
        data(recipe, run_dir, folder)
        problem = read_jsonl(folder / "test.jsonl")[0]
        rows = read_jsonl(folder / "train.jsonl")
        write_jsonl(folder / "train.jsonl", [rows[0] | {"prompt": problem["prompt"]}, *rows[1:]])

    monkeypatch.setitem(module.WRITERS, "data", leaking)
    assert "word for word" in faults_after(recipe, tmp_path)


@pytest.mark.parametrize("setting", ["training.steps=4", "training.prompts_per_step=24", "rollouts.max_new_tokens=32"])
def test_settings_that_make_trainings_unequal_are_refused_before_anything_runs(
    setting: str, recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    with pytest.raises(RecipeError, match="would not be comparable with learnalign@10"):
        compare(recipe, tmp_path, ("learnalign", f"random+{setting}"), 1)
    assert fake_stages == []


def test_unequal_steps_are_refused(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Planted: one cell's recipe, and its training, with a step more, whatever the comparison asked for."""
    plain, plan = Variant.recipe, Design.of(recipe, read_variants(METHODS, (), recipe), 1)

    def one_more(self: Variant, base: Recipe, seed: int) -> Recipe:
        found = plain(self, base, seed)
        return changed_recipe(found, {"training.steps": 4}) if self.method == "random" else found

    monkeypatch.setattr(Design, "of", lambda *given: plan)
    monkeypatch.setattr(Variant, "recipe", one_more)
    assert "unequal steps: 4, the reference 3" in faults_after(recipe, tmp_path)


def test_a_training_that_stopped_early_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    cell = tmp_path / "seed-0" / "random@10"
    plant(cell / "training", "log.jsonl", lambda rows: rows[:-1])
    shutil.rmtree(cell / "evaluation")
    assert "the training's log has 2 steps; expected 1 to 3" in faults_after(recipe, tmp_path)


def test_other_problems_are_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    methods = ("learnalign", "random+data.demo_test=30")
    compare(recipe, tmp_path, methods, 1)
    cell = tmp_path / "seed-0" / "random@10+data.demo_test=30"
    data = cell / "data"
    plant(data, "test.jsonl", lambda rows: rows[:-1])
    for name in ("selection", "training", "evaluation"):
        shutil.rmtree(cell / name)
    assert "different problems from the reference" in faults_after(recipe, tmp_path, methods)


def test_a_choice_exchanged_after_it_was_made_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Planted: LearnAlign's prompts in the random choice's file, its manifest made to fit, trained on again."""
    compare(recipe, tmp_path, METHODS, 1)
    cells = {name: tmp_path / "seed-0" / f"{name}@10" for name in ("random", "learnalign")}
    better = read_jsonl(cells["learnalign"] / "selection" / "selected.jsonl")
    plant(cells["random"] / "selection", "selected.jsonl", lambda rows: better)
    for name in ("training", "evaluation"):
        shutil.rmtree(cells["random"] / name)
    assert "do not name the same prompts" in faults_after(recipe, tmp_path)


def test_a_training_on_other_prompts_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    cell = tmp_path / "seed-0" / "random@10"
    plant(cell / "training", "rewards.jsonl", lambda rows: [row | {"prompt_ids": ["test-000"]} for row in rows])
    shutil.rmtree(cell / "evaluation")
    assert "1 prompts that were not chosen (first: test-000)" in faults_after(recipe, tmp_path)


def test_seeds_that_answer_other_problems_are_refused(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = module.WRITERS["data"]

    def own_problems(recipe: Recipe, run_dir: Path, folder: Path) -> None:
        data(recipe, run_dir, folder)
        rows = read_jsonl(folder / "test.jsonl")
        write_jsonl(folder / "test.jsonl", rows[recipe.seed : recipe.seed + 50])

    monkeypatch.setitem(module.WRITERS, "data", own_problems)
    found = compare(recipe, tmp_path, ("learnalign", "random"), 2)
    assert found["n_done"] == 2
    assert "different problems from seed 0 (seed 1)" in found["faults"][0]


def test_each_size_is_compared_with_the_reference_of_that_size(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    methods = ("learnalign", "random", "learnalign@5", "random@5", "full", "random@7")
    found = compare(recipe, tmp_path, methods, 1)
    assert {c["label"]: (c["reference"], c["family"]) for c in found["comparisons"]} == {
        "random@10": ("learnalign@10", "primary"),
        "random@5": ("learnalign@5", "other sizes"),
        "learnalign@5": ("learnalign@10", "others"),
        "full": ("learnalign@10", "others"),
        "random@7": ("learnalign@10", "others"),
    }


class Killed(BaseException):
    """What ends a process between two lines."""


@pytest.mark.parametrize(("name", "times"), [("replace", 1), ("symlink_to", 1), ("symlink_to", 3)])
def test_a_kill_while_stages_are_shared_loses_nothing(
    name: str, times: int, recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of a shared stage, its move and its link; the next call has the methods in another order."""
    real, left = getattr(Path, name), [times]

    def kill(self: Path, *rest: Any) -> Any:
        if name == "symlink_to" or "stages" in str(rest[0]):
            left[0] -= 1
            if left[0] == 0:
                raise Killed
        return real(self, *rest)

    with monkeypatch.context() as planted:
        planted.setattr(Path, name, kill)
        with pytest.raises(Killed):
            compare(recipe, tmp_path, METHODS, 1)
    found = compare(recipe, tmp_path, tuple(reversed(METHODS)), 1)
    assert (found["n_done"], found["faults"]) == (3, [])
    again = compare(recipe, tmp_path, METHODS, 1)
    assert (again["n_done"], again["faults"]) == (3, [])


def test_a_damaged_shared_stage_names_what_to_delete_and_is_made_again(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    home = next((tmp_path / "stages").glob("rollouts-*"))
    (home / "rollouts.jsonl").write_text("")
    assert f"delete {home}" in faults_after(recipe, tmp_path)
    shutil.rmtree(home)
    assert compare(recipe, tmp_path, METHODS, 1)["n_done"] == 3


def test_a_shared_stage_that_fails_is_not_begun_by_every_cell(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def failing(recipe: Recipe, run_dir: Path, folder: Path) -> None:
        calls.append(run_dir)
        raise StageError("no memory")

    monkeypatch.setitem(module.WRITERS, "rollouts", failing)
    found = compare(recipe, tmp_path, ("learnalign", "learnability", "random"), 1)
    assert (len(calls), found["n_done"]) == (1, 1)
    assert "did not end in another run" in found["faults"][1]


def test_a_fault_says_what_the_process_of_the_stage_said(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="the prepare stage failed") as caught:
        run_in_child(GRAPH.by_folder["data"], tmp_path)
    assert caught.value.reason is not None
    assert f"{tmp_path} is not a run folder" in caught.value.reason
    assert in_one_line(caught.value) == f"{caught.value.reason} ({caught.value})"


def peeking(pool: Any, n: int) -> list[int]:
    """Takes the prompts of the smallest answers."""
    return sorted(range(len(pool.prompt_ids)), key=lambda i: int(pool.answers[i]))[:n]


def test_a_method_that_peeks_at_the_gold_is_refused(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lean_align.selection import find_method, recipe_method
    from lean_align.stages import selection

    def choose(pool: Any, n: int) -> Any:
        return peeking(pool, n)

    honest = find_method("random")
    dishonest = type(honest)(**{**vars(honest), "choose": choose})
    monkeypatch.setattr(
        selection,
        "recipe_method",
        lambda recipe: dishonest if recipe.selection.method == "random" else recipe_method(recipe),
    )
    assert "gold" in faults_after(recipe, tmp_path)


@pytest.mark.parametrize(
    "name", ["data/kinds.json", "rollouts/rollouts.jsonl", "../random@10/evaluation/trained/demo.jsonl"]
)
def test_a_method_that_opens_a_file_of_the_comparison_is_refused(
    name: str, recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of shared stages lie outside the run's folder, behind links; other runs' beside it."""
    from lean_align.selection import find_method, recipe_method
    from lean_align.stages import selection

    compare(recipe, tmp_path, ("learnalign", "random"), 1)
    cell = tmp_path / "seed-0" / "learnability@10"

    def choose(pool: Any, n: int) -> Any:
        (cell / name).read_text()
        return honest.choose(pool, n)

    honest = find_method("learnability")
    dishonest = type(honest)(**{**vars(honest), "choose": choose})
    chosen = {"learnability": dishonest}
    monkeypatch.setattr(
        selection, "recipe_method", lambda recipe: chosen.get(recipe.selection.method) or recipe_method(recipe)
    )
    faults = faults_after(recipe, tmp_path, ("learnalign", "random", "learnability"))
    assert "closed to" in faults


def test_a_method_that_fails_does_not_end_the_others(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """A size that the pool does not have, first of all: the data are everybody's."""
    found = compare(recipe, tmp_path, ("learnalign@4000", "random", "full"), 1)
    assert found["n_done"] == 2
    assert "learnalign@4000: selection.n is 4000 and the pool has 40 prompts" in found["faults"][0]


def test_another_recipe_in_the_folder_is_refused_and_the_results_stay(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    before = (tmp_path / "compare" / "results.json").read_bytes()
    with pytest.raises(StaleStageError, match=r"training.steps: 3 -> 4"):
        compare(changed_recipe(recipe, {"training.steps": 4}), tmp_path, METHODS, 1)
    assert (tmp_path / "compare" / "results.json").read_bytes() == before
    other_methods = changed_recipe(recipe, {"compare.methods": "[full]", "compare.reference": "random"})
    assert compare(other_methods, tmp_path, (), 1)["n_done"] == 2


def test_a_run_in_the_folder_of_a_comparison_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, ("random",), 1)
    with pytest.raises(StageError, match="is a comparison, not a run"):
        run(recipe, tmp_path)
    with pytest.raises(StageError, match="is a comparison, not a run"):
        run_stage("report", tmp_path)


def test_a_method_of_another_package_runs_again_when_its_file_changes(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lean_align.stages import selection

    source = tmp_path / "mine.py"
    source.write_text("first")
    monkeypatch.setattr(selection, "method_file", lambda name: source if name == "random" else None)
    compare(recipe, tmp_path / "run", METHODS, 1)
    source.write_text("second")
    assert "made from other inputs" in faults_after(recipe, tmp_path / "run")


def test_rounds_share_the_steps() -> None:
    assert stretches(20, 3) == [7, 7, 6]
    assert stretches(20, 1) == [20]


def test_each_round_has_noise_of_its_own_and_goes_on_from_the_adapter(recipe: Recipe) -> None:
    first, second, third = (round_recipe(recipe, number, 2) for number in (1, 2, 3))
    assert (first.seed, first.training.init) == (recipe.seed, "base")
    assert len({first.seed, second.seed, third.seed}) == 3
    assert second.training.init == "warmup"


def test_a_training_in_rounds_chooses_again(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Planted: another round whose rollouts were not taken again would have the same selection."""
    from lean_align.artifacts import StageFolder
    from lean_align.stages.rounds import train_in_rounds

    compare(recipe, tmp_path, ("learnalign",), 1)
    cell = tmp_path / "seed-0" / "learnalign@10"
    shutil.rmtree(cell / "evaluation")
    (cell / "training").rename(tmp_path / "one-shot")
    folder = StageFolder(cell / "training.partial", cell / "training", {}, 0.0)
    folder.path.mkdir()
    train_in_rounds(StageRun(changed_recipe(recipe, {"selection.rounds": 2}), cell, folder, GRAPH))
    chosen = [
        [row["prompt_id"] for row in read_jsonl(folder.path / "rounds" / r / "selection" / "selected.jsonl")]
        for r in ("1", "2")
    ]
    assert chosen[0] == [row["prompt_id"] for row in read_jsonl(cell / "selection" / "selected.jsonl")]
    assert chosen[0] != chosen[1]
    assert [row["step"] for row in read_jsonl(folder.path / "log.jsonl")] == [1, 2, 3]
    assert folder.counts["steps"] == 3
    assert folder.counts["selection_tokens"] == 1000
    assert (folder.path / "adapter" / "adapter_model.safetensors").read_bytes() == b"weights"


def test_what_the_kinds_of_a_pool_have_in_common_by_hand(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    from bench.bench_kinds import rows_of

    compare(recipe, tmp_path, ("learnalign",), 1)
    cell = tmp_path / "seed-0" / "learnalign@10"
    scores = read_scores(cell / "scores" / "scores.parquet")
    kinds = {name: {"kind": ("target", "unlike")[i // 20]} for i, name in enumerate(sorted(scores.prompt_ids))}
    write_json(cell / "data" / "kinds.json", kinds)
    gradients = np.load(cell / "gradients" / "projected.npy").astype(float)
    units = {
        i: row / np.linalg.norm(row) for i, row in zip(scores.prompt_ids, gradients, strict=True) if np.any(row != 0)
    }
    of = {name: [units[i] for i in units if kinds[i]["kind"] == name] for name in ("target", "unlike")}
    of_v = dict(zip(scores.prompt_ids, scores.learnability, strict=True))
    mean = np.sum([of_v[i] * units[i] for i in units], axis=0)
    found = {row["kind"]: row for row in rows_of(cell)}
    assert set(found) == set(of)
    assert sum(row["share_of_v"] for row in found.values()) == pytest.approx(1)
    assert sum(row["chosen"] for row in found.values()) == recipe.selection.n
    with_target = {
        i: of_v[i] * sum(of_v[j] * units[i] @ units[j] for j in units if j != i and kinds[j]["kind"] == "target")
        for i in units
    }
    best = sorted(units, key=lambda i: -with_target[i])[: recipe.selection.n]
    for name, own in of.items():
        assert found[name]["chosen_by_target"] == sum(kinds[i]["kind"] == name for i in best)
        pairs = [a @ b for i, a in enumerate(own) for b in own[:i]]
        assert found[name]["prompts"] == len(own)
        assert found[name]["alike"] == pytest.approx(np.mean(pairs))
        assert found[name]["with_pool"] == pytest.approx(np.mean([a @ mean for a in own]) / np.linalg.norm(mean))
        others = pairs if name == "target" else [a @ b for a in own for b in of["target"]]
        assert found[name]["with_target"] == pytest.approx(np.mean(others))


def test_the_null_is_taken_from_the_outcomes_of_one_method(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    from bench import bench_null

    monkeypatch.setattr(bench_null, "TESTS", bench_null.TESTS[:2])
    compare(recipe, tmp_path, ("random",), 3)
    rows = list(bench_null.rows_of([tmp_path / f"seed-{seed}" / "random@10" for seed in range(3)]))
    assert {(row["seeds"], row["problems"]) for row in rows} == {(3, module.PROBLEMS)}
    assert [(row["test"], row["rejects"]) for row in rows] == [("seed", 0), ("seed", 0)]  # 2 / 2^3 is above 5 %


# --- targets


def test_what_a_target_costs_is_shared_by_all_that_aim_at_it(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Two methods at one target, one at another; rollouts and gradients of the pool are everybody's."""
    other = "learnalign-target+selection.target=testbed:16"
    found = compare(recipe, tmp_path, ("learnalign-target", "alignment-target", other, "learnalign", "random"), 1)
    assert (found["n_done"], found["faults"]) == (5, [])
    times = Counter(stage for stage, _ in fake_stages)
    assert [times[name] for name in ("target", "target_rollouts", "target_gradients")] == [2, 2, 2]
    assert [times[name] for name in ("data", "warmup", "rollouts", "gradients")] == [1, 1, 1, 1]
    tokens = {row["label"]: row["cost"]["generated_tokens"] for row in found["methods"]}
    assert tokens == {
        "learnalign-target@10": 1000 + 2 * 7 + 200,
        "alignment-target@10": 1000 + 2 * 7 + 200,
        "learnalign-target@10+selection.target=testbed:16": 1000 + 2 * 7 + 200,
        "learnalign@10": 1000 + 2 * 7,
        "random@10": 0,
    }


def test_a_method_without_its_target_is_refused_before_anything_runs(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    without = changed_recipe(recipe, {"selection.target": None})
    with pytest.raises(RecipeError, match=r"selection\.target is null"):
        compare(without, tmp_path, ("random", "learnalign-target"), 1)
    assert fake_stages == []
    assert read_variant("learnalign-target+selection.target=testbed:16", without).settings
    with pytest.raises(RecipeError, match=r"selection\.target is 'testbed:x'"):
        read_variant("learnalign-target+selection.target=testbed:x", without)


def test_a_target_that_holds_evaluation_problems_does_not_count(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = module.WRITERS["target"]

    def leaking(recipe: Recipe, run_dir: Path, folder: Path) -> None:
        target(recipe, run_dir, folder)
        problem, rows = read_jsonl(run_dir / "data" / "test.jsonl")[0], read_jsonl(folder / "target.jsonl")
        write_jsonl(folder / "target.jsonl", [rows[0] | {"prompt": problem["prompt"]}, *rows[1:]])

    monkeypatch.setitem(module.WRITERS, "target", leaking)
    fault = faults_after(recipe, tmp_path, ("learnalign-target", "learnalign"))
    assert "1 problems of the target are evaluation problems, word for word (first: target-000)" in fault


def test_a_bad_target_is_the_fault_of_those_that_aim_at_it(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """A row of another projection: refused as the selection reads it, and no other method is held up."""
    compare(recipe, tmp_path, ("learnalign-target", "learnalign"), 1)
    cell = tmp_path / "seed-0" / "learnalign-target@10"
    for folder, seed in (("gradients", 0), ("target_gradients", 1)):
        write_json(cell / folder / "projection.json", {"projection": {"kind": "sjlt", "seed": seed}})
        rewrite_manifest(cell / folder)
    for name in ("selection", "training", "evaluation"):
        shutil.rmtree(cell / name)
    found = compare(recipe, tmp_path, ("learnalign-target", "random"), 1)
    assert "projection.seed: 1 -> 0" in "\n".join(found["faults"])
