"""Which stages a recipe needs, what each depends on, and when a finished one may be taken over."""

from __future__ import annotations

import dataclasses
import os
import time
from pathlib import Path
from typing import IO, Any

import pytest

from lean_align import files
from lean_align.artifacts import stage_folder, write_text
from lean_align.errors import RecipeError, StageError, StaleStageError
from lean_align.pipeline.graph import picked, stored_recipe
from lean_align.recipe import Recipe, all_keys, dump_recipe, load_recipe
from lean_align.stages import GRAPH

ALL = ["data", "warmup", "rollouts", "gradients", "scores", "selection", "training", "evaluation", "report"]


def recipe_of(folder: Path, **settings: Any) -> Recipe:
    """The demo recipe with a small model folder and small data files of its own."""
    for name, text in (("model", "weights"), ("train.jsonl", "rows"), ("test.jsonl", "rows")):
        path = folder / name / "config.json" if name == "model" else folder / name
        path.parent.mkdir(exist_ok=True)
        if not path.exists():
            path.write_text(text)
    own = {f"data.{split}_path": str(folder / f"{split}.jsonl") for split in ("train", "test")}
    changed = {key.replace("__", "."): value for key, value in settings.items()}
    return load_recipe("demo", {"model.name": str(folder / "model"), **own, **changed})


def finish(recipe: Recipe, run_dir: Path, *names: str) -> None:
    for name in names:
        with stage_folder(run_dir, name, GRAPH.stage_inputs(GRAPH.by_folder[name], recipe, run_dir)) as folder:
            write_text(folder.path / "result.txt", name)


def needed(**settings: Any) -> list[str]:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    return [stage.folder for stage in GRAPH.needed_stages(load_recipe("demo", overrides))]


def test_learnalign_needs_every_stage() -> None:
    target = ["target", "target_rollouts", "target_gradients", "target_features"]
    optional = [*target, "prompt_states", "perplexity", "ratings", "features", "reward_curves"]
    assert needed() == ALL == [stage.folder for stage in GRAPH.stages if stage.folder not in optional]


@pytest.mark.parametrize(
    ("method", "stages"),
    [
        ("token-length", {"rollouts"}),
        ("learnability", {"rollouts"}),
        ("top-ppl", {"rollouts", "perplexity"}),
        ("selectit", {"rollouts", "ratings"}),
        ("feature-similarity", {"rollouts", "features"}),
        ("alignment", {"rollouts", "gradients"}),
        ("limr", {"reward_curves"}),
        ("learnalign-target", {"rollouts", "gradients", "target", "target_rollouts", "target_gradients"}),
        ("feature-similarity-target", {"rollouts", "features", "target", "target_rollouts", "target_features"}),
    ],
)
def test_a_method_has_the_stages_that_it_asks_for(method: str, stages: set[str]) -> None:
    always = {"data", "selection", "training", "evaluation", "report"}
    assert set(needed(selection__method=method)) - always - {"warmup"} == stages
    assert ("warmup" in needed(selection__method=method)) == ("rollouts" in stages)


def test_predicted_rollouts_read_states_and_what_they_are_to_be_chosen_by() -> None:
    def before(**settings: Any) -> list[str]:
        recipe = load_recipe("demo", {key.replace("__", "."): value for key, value in settings.items()})
        return [stage.folder for stage in GRAPH.upstream(GRAPH.by_folder["rollouts"], recipe)]

    aimed = {"selection__method": "learnalign-target", "selection__target": "held-out:8"}
    assert before() == before(**aimed) == ["data", "warmup"]
    assert before(rollouts__allocation="predicted") == ["data", "warmup", "prompt_states"]
    assert before(rollouts__allocation="predicted", rollouts__share=1) == ["data", "warmup"]
    read = ["data", "warmup", "target_rollouts", "target_gradients", "prompt_states"]
    assert before(rollouts__allocation="predicted", **aimed) == read
    keys = {
        method: GRAPH.by_folder["rollouts"].all_keys(
            load_recipe("demo", {"rollouts.allocation": "predicted", "selection.method": method})
        )
        for method in ("learnalign", "random")
    }
    assert {"gradients", "selection.method", "selection.n"} <= set(keys["learnalign"])
    assert "gradients" not in keys["random"]


def test_more_completions_to_choose_from_bear_on_what_reads_them_alone() -> None:
    """Without the key nothing names it: runs made before it was there go on."""
    before, after = load_recipe("demo"), load_recipe("demo", {"selection.num_generations": 16})
    changed = [stage.folder for stage in GRAPH.stages if stage.all_keys(before) != stage.all_keys(after)]
    assert changed == ["target_rollouts", "target_gradients", "rollouts", "gradients", "scores"]


def test_an_unknown_method_is_refused_before_anything_runs() -> None:
    with pytest.raises(RecipeError, match="did you mean 'learnalign'"):
        needed(selection__method="lernalign")


@pytest.mark.parametrize("method", ["random", "full"])
def test_methods_without_scores_need_no_rollouts(method: str) -> None:
    assert needed(selection__method=method) == ["data", "selection", "training", "evaluation", "report"]


@pytest.mark.parametrize("method", ["random", "full"])
def test_training_from_the_warmup_needs_the_warmup(method: str) -> None:
    stages = ["data", "warmup", "selection", "training", "evaluation", "report"]
    assert needed(selection__method=method, training__init="warmup") == stages


def test_no_warmup_steps_leave_the_warmup_out() -> None:
    assert needed(warmup__steps=0) == [name for name in ALL if name != "warmup"]
    assert needed(warmup__steps=0, selection__method="random") == needed(selection__method="random")


def upstream_of(name: str, **settings: Any) -> list[str]:
    overrides = {key.replace("__", "."): value for key, value in settings.items()}
    return [stage.folder for stage in GRAPH.upstream(GRAPH.by_folder[name], load_recipe("demo", overrides))]


def test_training_reads_the_warmup_only_when_it_starts_there() -> None:
    assert upstream_of("training") == ["selection"]
    assert upstream_of("training", training__init="warmup") == ["selection", "warmup"]


def test_stages_that_are_left_out_are_not_read() -> None:
    assert upstream_of("gradients") == ["data", "warmup", "rollouts"]
    assert upstream_of("gradients", warmup__steps=0) == ["data", "rollouts"]
    assert upstream_of("selection") == ["data", "rollouts", "gradients", "scores"]
    assert upstream_of("selection", selection__method="random") == ["data"]


def test_each_stage_reads_only_stages_before_it() -> None:
    folders = [stage.folder for stage in GRAPH.stages]
    for place, stage in enumerate(GRAPH.stages):
        assert set(stage.after) <= set(folders[:place])
        assert GRAPH.by_folder[stage.folder] is GRAPH.by_command[stage.command] is stage


def test_every_key_of_the_recipe_bears_on_some_stage() -> None:
    """But for a text that nothing depends on, the number of threads, which must not change a result, and `compare`."""
    everything = load_recipe("demo", {"selection.num_generations": 16, "selection.rounds": 2})
    changed = {"online": True, "online_score": "learnability", "online_discount": 0.9}
    changed |= {"online_exploration": 0.2, "online_prior_strength": 1.0}
    online = load_recipe("demo", {f"selection.{key}": value for key, value in changed.items()})  # in place of rounds
    whitened = load_recipe("demo", {"selection.method": "learnalign-whitened", "selection.whiten_ridge": 0.01})
    recipes = (everything, online, whitened)
    named = {key for stage in GRAPH.stages for recipe in recipes for key in stage.all_keys(recipe)}
    free = {key for key in all_keys() if key not in named and key.split(".")[0] not in named}
    assert {key for key in free if not key.startswith("compare.")} == {
        "description",
        "threads",
    }
    assert {key for key in named if key not in all_keys()} <= {key.split(".")[0] for key in all_keys()}


def test_inputs_name_keys_files_and_stages(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    finish(recipe, tmp_path / "run", "data")
    data = GRAPH.stage_inputs(GRAPH.by_folder["data"], recipe, tmp_path / "run")
    assert set(data) == {"recipe", "model_files", "data_files", "stages"}
    assert set(data["data_files"]) == {str(tmp_path / "train.jsonl"), str(tmp_path / "test.jsonl")}
    warmup = GRAPH.stage_inputs(GRAPH.by_folder["warmup"], recipe, tmp_path / "run")
    assert set(warmup["stages"]) == {"data"}
    assert warmup["recipe"]["rollouts.num_generations"] == recipe.rollouts.num_generations
    assert "data_files" not in warmup


def test_a_stage_whose_upstream_has_not_finished_is_refused_with_the_command(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=rf"warmup needs data, .*Run: lean-align prepare {tmp_path}"):
        GRAPH.stage_inputs(GRAPH.by_folder["warmup"], load_recipe("demo"), tmp_path)


def test_a_finished_stage_is_taken_over(tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    assert not GRAPH.is_finished(GRAPH.by_folder["data"], recipe, run_dir)
    finish(recipe, run_dir, "data", "warmup")
    assert GRAPH.is_finished(GRAPH.by_folder["data"], recipe, run_dir)
    assert GRAPH.is_finished(GRAPH.by_folder["warmup"], recipe, run_dir)
    assert not GRAPH.is_finished(GRAPH.by_folder["rollouts"], recipe, run_dir)
    GRAPH.check_run(recipe, run_dir)


def test_a_changed_key_is_refused_by_the_first_stage_that_reads_it(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    finish(recipe_of(tmp_path), run_dir, "data", "warmup", "rollouts")
    changed = recipe_of(tmp_path, rollouts__temperature=0.8)
    assert GRAPH.is_finished(GRAPH.by_folder["data"], changed, run_dir)
    with pytest.raises(StaleStageError, match=r"warmup was made from.*\n  recipe.rollouts.temperature: 1.0 -> 0.8"):
        GRAPH.check_run(changed, run_dir)


def test_another_engine_leaves_the_trainings_alone() -> None:
    for command in ("warmup", "train"):
        assert not any(key.startswith("rollouts.engine") or key == "rollouts" for key in GRAPH.by_command[command].keys)
    assert "rollouts" in GRAPH.by_command["rollout"].keys
    assert "rollouts.engine" in GRAPH.by_command["evaluate"].keys


def test_a_key_of_a_later_stage_leaves_finished_ones_alone(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    finish(recipe_of(tmp_path), run_dir, "data", "warmup", "rollouts")
    GRAPH.check_run(
        recipe_of(tmp_path, gradients__proj_dim=512, evaluation__batch_size=3, selection__n=5, threads=1), run_dir
    )


def test_another_result_upstream_makes_a_stage_stale(tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data", "warmup")
    for path in (run_dir / "data").iterdir():
        path.unlink()
    (run_dir / "data").rmdir()
    with stage_folder(run_dir, "data", GRAPH.stage_inputs(GRAPH.by_folder["data"], recipe, run_dir)) as folder:
        write_text(folder.path / "result.txt", "something else")
    with pytest.raises(StaleStageError, match=r"stages\.data: '\w+' -> '\w+'"):
        GRAPH.is_finished(GRAPH.by_folder["warmup"], recipe, run_dir)


def test_a_file_changed_by_hand_is_refused(tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data")
    (run_dir / "data" / "result.txt").write_text("edited")
    with pytest.raises(StaleStageError, match=r"result\.txt was changed"):
        GRAPH.check_run(recipe, run_dir)


def test_unfinished_work_of_another_recipe_is_refused_before_anything_runs(tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data")
    with (
        pytest.raises(KeyboardInterrupt),
        stage_folder(run_dir, "warmup", GRAPH.stage_inputs(GRAPH.by_folder["warmup"], recipe, run_dir)),
    ):
        raise KeyboardInterrupt
    GRAPH.check_run(recipe, run_dir)
    other = dataclasses.replace(recipe, warmup=dataclasses.replace(recipe.warmup, steps=99))
    with pytest.raises(StaleStageError, match=r"recipe\.warmup\.steps: \d+ -> 99"):
        GRAPH.check_run(other, run_dir)


def test_what_a_quick_stage_left_unfinished_is_made_again(tmp_path: Path) -> None:
    """A data file that was refused and then corrected must not be held against the user."""
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    data = GRAPH.by_folder["data"]
    with (
        pytest.raises(KeyboardInterrupt),
        stage_folder(run_dir, "data", GRAPH.stage_inputs(data, recipe, run_dir), False),
    ):
        raise KeyboardInterrupt
    (tmp_path / "train.jsonl").write_text("corrected")
    GRAPH.check_run(recipe, run_dir)
    with stage_folder(run_dir, "data", GRAPH.stage_inputs(data, recipe, run_dir), data.resumable) as folder:
        assert not list(folder.path.glob("*.jsonl"))
    assert (run_dir / "data" / "manifest.json").exists()


def test_the_refusal_names_every_folder_to_delete(tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data")
    for folder in ("rollouts", "training.partial"):
        (run_dir / folder).mkdir()
    with pytest.raises(StaleStageError) as refusal:
        GRAPH.check_run(recipe_of(tmp_path, seed=1), run_dir)
    last = str(refusal.value).splitlines()[-1]
    assert [Path(word).name for word in last.split()[2:]] == ["data", "rollouts", "training.partial"]


@pytest.mark.parametrize("name", ["train.jsonl", "model/config.json"])
def test_a_source_edited_between_two_runs_of_one_process_is_seen(tmp_path: Path, name: str) -> None:
    """A notebook calls `la.run` twice, and between the calls a row of the data was corrected."""
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data")
    (tmp_path / name).write_text("corrected")
    with pytest.raises(StaleStageError):
        GRAPH.check_run(recipe, run_dir)


def test_the_recipe_of_a_run_is_read_back(tmp_path: Path) -> None:
    recipe = load_recipe("demo", {"seed": 5})
    (tmp_path / "recipe.yaml").write_text(dump_recipe(recipe))
    assert stored_recipe(tmp_path) == recipe


def test_a_damaged_recipe_of_a_run_says_who_writes_it_again(tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: [")
    with pytest.raises(StageError, match=r"(?s)recipe\.yaml was damaged.*lean-align run"):
        stored_recipe(tmp_path)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StageError, match=r"no recipe\.yaml\. Start one with: lean-align run RECIPE"):
        stored_recipe(tmp_path)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files whose bytes are read for a hash."""
    found: list[str] = []
    digest = files._digest

    def counted(file: IO[bytes]) -> str:
        found.append(file.name)
        return digest(file)

    monkeypatch.setattr(files, "_digest", counted)
    return found


def test_each_file_is_hashed_once_a_process(tmp_path: Path, hashed: list[str]) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data", "warmup", "rollouts", "gradients", "scores")
    time.sleep(0.2)  # more than a tick of the clock
    hashed.clear()
    for _ in range(2):
        GRAPH.check_run(recipe, run_dir)
        assert all(GRAPH.is_finished(stage, recipe, run_dir) for stage in GRAPH.needed_stages(recipe)[:5])
    assert len(hashed) == len({*hashed}) == 5 + 3  # outputs, data files, model


@pytest.mark.parametrize("aged", [True, False], ids=["of before", "of this moment"])
def test_a_change_that_keeps_size_and_time_is_seen(aged: bool, tmp_path: Path) -> None:
    recipe, run_dir = recipe_of(tmp_path), tmp_path / "run"
    finish(recipe, run_dir, "data")
    path = run_dir / "data" / "result.txt"
    if aged:
        time.sleep(0.2)
    GRAPH.check_run(recipe, run_dir)
    before = path.stat()
    path.write_text("atad")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(StaleStageError, match=r"result\.txt was changed"):
        GRAPH.check_run(recipe, run_dir)


def test_a_key_that_came_later_counts_only_where_it_is_not_the_default():
    """A stage that was finished before the key was there is one that has its default."""
    plain, changed = load_recipe("demo"), load_recipe("demo", {"training.loss": "dapo", "warmup.token_budget": 9})
    later = {f.name for f in dataclasses.fields(plain.training) if "later" in f.metadata}
    assert {"loss", "refill", "keep_rows", "token_budget"} <= later
    before = picked(plain, ("training", "warmup"))
    assert not later & {*before["training"], *before["warmup"]}
    after = picked(changed, ("training", "warmup"))
    assert after["training"] == before["training"] | {"loss": "dapo"}
    assert after["warmup"] == before["warmup"] | {"token_budget": 9}


def test_steps_that_are_evaluated_bear_on_the_training_that_keeps_them():
    """Without them nothing names the keys; of a training from the warm-up its adapter is the start."""
    plain, asked = load_recipe("demo"), load_recipe("demo", {"evaluation.at_steps": "5,10"})
    training, evaluation = (GRAPH.by_folder[name] for name in ("training", "evaluation"))
    assert not {"at_steps", "at_limit"} & {*picked(plain, ("evaluation",))["evaluation"]}
    assert "evaluation.at_steps" not in training.all_keys(plain)
    assert picked(asked, training.all_keys(asked))["evaluation.at_steps"] == [5, 10]
    changed = [s.folder for s in GRAPH.stages if picked(plain, s.all_keys(plain)) != picked(asked, s.all_keys(asked))]
    assert changed == ["training", "evaluation"]
    ends = load_recipe("demo", {"evaluation.at_steps": [0, plain.training.steps]})
    assert "evaluation.at_steps" not in training.all_keys(ends)
    assert ends.evaluated_steps == (0, plain.training.steps)
    assert asked.evaluated_steps == (0, 5, 10, plain.training.steps)
    assert asked.kept_steps == (5, 10)
    assert plain.evaluated_steps == plain.kept_steps == ends.kept_steps == ()
    assert upstream_of("evaluation", training__init="warmup") == ["data", "training"]
    asked_of_warmup = {"evaluation__at_steps": [5], "training__init": "warmup"}
    assert upstream_of("evaluation", **asked_of_warmup) == ["data", "warmup", "training"]
    assert upstream_of("evaluation", evaluation__at_steps=[5]) == ["data", "training"]
    assert evaluation.unread(asked) == ("warmup",)


def test_a_training_depends_on_the_projection_where_it_keeps_rows():
    for name in ("warmup", "training"):
        stage, key = GRAPH.by_folder[name], "gradients.proj_dim"
        assert key not in stage.all_keys(load_recipe("demo"))
        assert key in stage.all_keys(load_recipe("demo", {f"{name}.keep_rows": True}))
