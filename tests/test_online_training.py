"""`selection.online`: a training by lean that draws its prompts while it runs, and the recipe's words for it."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from forked import command
from lean_training import RECIPE, policy_of, reward, settings_of
from small_models import save_model
from test_end_to_end import arguments
from test_grpo_lean import Killed, files

from lean_align.artifacts import write_jsonl
from lean_align.compare.variants import read_variants
from lean_align.errors import DataError, RecipeError, StageError
from lean_align.grpo import Sampler, TrainerSettings, lean, read_rewards, train_lean
from lean_align.online import OnlineSelector, OnlineSettings
from lean_align.online.state_files import ARRAYS, read_state
from lean_align.pipeline.graph import picked
from lean_align.recipe import changed_recipe, dump_recipe, load_recipe
from lean_align.report.counts import SelectionCounts
from lean_align.report.run_wording import selection_notes
from lean_align.rng import rng_for
from lean_align.stages import GRAPH
from lean_align.stages.online import drawn_counts, online_selector
from lean_align.stages.training_rows import ROWS, training_rows
from lean_align.store import open_store
from lean_align.types import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")
POOL = [Prompt(f"p-{i}", f"Ann has {i} apples. How many apples has Ann?", "15" if i % 3 else str(i)) for i in range(9)]
"""Of which a third can differ in reward (`lean_training.reward`)."""
STEPS = {"steps": 8, "num_iterations": 2, "refill": True, "keep_rows": True, "save_steps": 1}
KILLED_IN = (
    "DrawnSeries.begin",
    "OnlineSelector.order",
    "StepSampler.draw",
    "TrainingRows.keep",
    "DrawnSeries.observe",
    "SuccessPosterior.observe",
    "MeanDirection.keep",
    "OnlineSelector.state_dict",
    "save_checkpoint",
    "_Training.take_step",
    "_Training.finish",
    "write_state",
    "drop_checkpoints",
)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("model") / "llama")


def selector_of(proj_dim: int | None = 64, pool=POOL, **identity: str) -> OnlineSelector:
    settings = OnlineSettings(exploration=0.2)
    return OnlineSelector([p.prompt_id for p in pool], 7, "tests", settings, {"run": "a", **identity}, proj_dim)


def train(model: Path, folder: Path, settings, online: OnlineSelector | None, pool=POOL, judge=reward):
    """What the training stage does, without a run around it."""
    policy = policy_of(model)
    with training_rows(RECIPE, settings, policy, SimpleNamespace(path=folder, counts={})) as rows:  # type: ignore[arg-type]
        log = train_lean(policy, pool, settings, judge, folder, Sampler(online=online), rows=rows)
    write_jsonl(folder / "log.jsonl", log)
    return log


class KilledOnline(Killed):
    """A training that draws its prompts."""

    def train(self, folder: Path) -> None:
        train(self.model, folder, settings_of(**STEPS), selector_of())


def test_a_training_resumed_from_wherever_it_was_killed_draws_the_same_prompts(model, tmp_path, monkeypatch):
    """In each of some functions, before a line drawn at random: the same bytes, state and weights."""
    killed, rng = KilledOnline(model, tmp_path, monkeypatch, steps=8), rng_for(0, "killed online")
    kept = {"online/state.npz", "online/state.json", "rewards.jsonl", "adapter/adapter_model.safetensors", "log.jsonl"}
    assert kept <= killed.whole.keys()
    left = killed.at({(name, int(rng.integers(1, killed.counts[name] + 1))) for name in KILLED_IN})
    assert len(left) == len(KILLED_IN)
    for (name, number), folder in left.items():
        assert killed.resumed(folder) == killed.whole, (name, number)


def test_the_comparison_of_resumed_trainings_sees_a_lost_state(model, tmp_path, monkeypatch):
    """Planted: what was believed of the prompts is not taken from the checkpoint."""
    settings = settings_of(**{**STEPS, "save_steps": 4})
    train(model, tmp_path / "whole", settings, selector_of())
    monkeypatch.setattr(lean, "drop_checkpoints", lambda folder: None)
    train(model, tmp_path / "cut", settings_of(**{**STEPS, "save_steps": 4}), selector_of())
    monkeypatch.setattr(OnlineSelector, "load_state_dict", lambda *arguments: None)
    train(model, tmp_path / "cut", settings, selector_of())
    assert files(tmp_path / "cut")["online/state.npz"] != files(tmp_path / "whole")["online/state.npz"]


@pytest.mark.parametrize("proj_dim", [None, 64])
@pytest.mark.parametrize("trainer", [{}, {"num_iterations": 2, "steps": 12}, {"refill": True}, {"beta": 0.1}])
def test_what_a_training_believes_is_what_its_files_tell(model, tmp_path, proj_dim, trainer):
    """Its draws and its state, made again from rewards and rows alone."""
    settings = settings_of(**{"steps": 6, "keep_rows": True, **trainer})
    log = train(model, tmp_path, settings, selector_of(proj_dim))
    again, store = selector_of(proj_dim), open_store(tmp_path / ROWS)
    every, rows = settings.trainer.num_iterations, read_rewards(tmp_path)
    assert any(number is not None for row in rows for number in row.get("rows", []))
    for step in range(0, settings.trainer.steps, every):
        ids, order = rows[step]["prompt_ids"], again.order(step)
        assert ids == [POOL[place].prompt_id for place in order.places[: len(ids)]]
        assert len(set(ids)) == len(ids) >= 3
        assert log[step]["explored"] == order.explored[: len(ids)].sum()
        assert log[step]["first_met"] == sum(again.posterior.last[place] < 0 for place in order.places[: len(ids)])
        numbers = rows[step].get("rows", [None] * len(ids))
        for place, rewards, number in zip(order.places, rows[step]["rewards"], numbers):
            row = store.rows[number] if number is not None and proj_dim and len(set(rewards)) > 1 else None
            again.observe(step, int(place), rewards, None if row is None else np.array(row))
    found = read_state(tmp_path / "online")["arrays"]
    for name, array in again.state_dict()["arrays"].items():
        assert np.array_equal(found[name], array), name
    assert ("rows" in found) == (proj_dim is not None)
    assert proj_dim is None or found["has_row"].any()


def test_a_step_that_refills_ends_where_the_pool_ends(model, tmp_path):
    """No group ever has a spread: the step meets each prompt once."""
    settings = settings_of(steps=2, refill=True, refill_tokens=10**6, keep_rows=True)
    log = train(model, tmp_path, settings, selector_of(), judge=lambda gold, text: 1.0)
    assert [sorted(row["prompt_ids"]) for row in read_rewards(tmp_path)] == [sorted(p.prompt_id for p in POOL)] * 2
    assert [(row["refilled"], row["first_met"]) for row in log] == [(6, 9), (6, 0)]
    state = read_state(tmp_path / "online")["arrays"]
    assert (state["rate"] == 1).all()
    assert not state["has_row"].any()


def test_most_groups_have_spread_where_a_third_of_the_pool_can(model, tmp_path):
    """Drawn at random 0.29 of them would: a third, at 7 of 8."""
    settings = settings_of(steps=24, prompts_per_step=2, learning_rate=0.0, keep_rows=True)
    train(model, tmp_path, settings, selector_of(proj_dim=None))
    share = [np.mean([len(set(group)) > 1 for group in row["rewards"]]) for row in read_rewards(tmp_path)]
    assert np.mean(share[-18:]) > 0.5


@pytest.mark.parametrize(
    ("change", "message"),
    [({"run": "b"}, "its run is a; expected b"), ({"projection": "other"}, "its projection is None; expected other")],
)
def test_a_checkpoint_of_another_selection_is_refused(model, tmp_path, monkeypatch, change, message):
    settings = settings_of(steps=4, save_steps=2, keep_rows=True)
    monkeypatch.setattr(lean, "drop_checkpoints", lambda folder: None)
    train(model, tmp_path, settings, selector_of())
    with pytest.raises(DataError, match=f"checkpoint-2 belongs to another online selection: {message}"):
        train(model, tmp_path, settings, selector_of(**change))


def test_a_checkpoint_of_a_training_that_drew_nothing_is_refused(model, tmp_path, monkeypatch):
    settings = settings_of(steps=4, save_steps=2, keep_rows=True)
    monkeypatch.setattr(lean, "drop_checkpoints", lambda folder: None)
    train(model, tmp_path, settings, None)
    with pytest.raises(StageError, match="has no state of an online selection"):
        train(model, tmp_path, settings, selector_of())


def stage_of(folder: Path, **counts) -> SimpleNamespace:
    return SimpleNamespace(path=folder, counts={"projection": {"kind": "sjlt", "seed": 0}, **counts})


def test_the_selector_of_a_run_knows_run_pool_and_projection(tmp_path):
    recipe = load_recipe("demo", {"selection.online": True})
    training = TrainerSettings.of(recipe, "training")
    (tmp_path / "inputs.json").write_text(json.dumps({"inputs": {"a": 1}, "wall_seconds": 0.0}))
    small = training.with_trainer(prompts_per_step=3)
    one = online_selector(recipe, small, POOL, stage_of(tmp_path))
    assert one is not None
    assert one.direction is not None
    assert one.direction.rows.shape == (9, recipe.gradients.proj_dim)
    others = [
        online_selector(recipe, small, [*POOL[:-1], Prompt("p-8", "?", "1")], stage_of(tmp_path)),
        online_selector(recipe, small, POOL, stage_of(tmp_path, projection={"kind": "sjlt", "seed": 1})),
    ]
    (tmp_path / "inputs.json").write_text(json.dumps({"inputs": {"a": 2}, "wall_seconds": 0.0}))
    others.append(online_selector(recipe, small, POOL, stage_of(tmp_path)))
    for other, key in zip(others, ("pool", "projection", "run"), strict=True):
        assert other is not None
        with pytest.raises(DataError, match=f"its {key} is"):
            other.load_state_dict(one.state_dict())
    alone = changed_recipe(recipe, {"selection.online_score": "learnability"})
    found = online_selector(alone, small, POOL, stage_of(tmp_path))
    assert found is not None
    assert found.direction is None
    assert online_selector(load_recipe("demo"), small, POOL, stage_of(tmp_path)) is None
    with pytest.raises(RecipeError, match=r"prompts_per_step is 10 and the pool has 9"):
        online_selector(recipe, training.with_trainer(prompts_per_step=10), POOL, stage_of(tmp_path))


def test_one_key_of_two_says_that_a_selection_is_online():
    for asked in ({"selection.online": "true"}, {"selection.method": "online"}):
        recipe = load_recipe("demo", asked)
        assert (recipe.selection.online, recipe.selection.method) == (True, "online")
        assert (recipe.training.keep_rows, recipe.training.refill) == (True, True)
        assert changed_recipe(recipe, {"seed": 3}).selection == recipe.selection
        back = changed_recipe(recipe, {"selection.method": "random"})
        assert (back.selection.online, back.selection.method) == (False, "random")
        assert (back.training.keep_rows, back.training.refill) == (False, False)
        assert changed_recipe(recipe, {"selection.online": False}) == load_recipe("demo")
    plain = load_recipe("demo", {"selection.online": True, "training.refill": False})
    assert not plain.training.refill
    assert not changed_recipe(plain, {"seed": 3}).training.refill


def test_a_recipe_may_say_it_in_its_file(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text("selection: {online: true}\ntraining: {refill: false}\n")
    recipe = load_recipe(path)
    assert (recipe.selection.method, recipe.training.keep_rows, recipe.training.refill) == ("online", True, False)
    (tmp_path / "resolved.yaml").write_text(dump_recipe(recipe))
    assert load_recipe(tmp_path / "resolved.yaml").training == recipe.training
    path.write_text("selection: {online: true, method: learnability}\n")
    with pytest.raises(RecipeError, match=r"selection\.online is true and selection\.method learnability\. Give one"):
        load_recipe(path)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"training.backend": "trl"}, r"training\.backend trl; only lean.*PromptStream"),
        ({"training.backend": "unsloth"}, r"training\.backend unsloth; only lean"),
        ({"selection.rounds": 2}, r"selection\.rounds 2; expected 1"),
        ({"selection.online_discount": 0}, r"selection\.online_discount is 0"),
        ({"selection.online_exploration": 1.5}, r"selection\.online_exploration is 1\.5"),
    ],
)
def test_what_cannot_be_done_online_is_refused(asked, message):
    with pytest.raises(RecipeError, match=message):
        load_recipe("demo", {"selection.online": True, **asked})


def test_an_online_run_has_no_stages_before_its_training():
    recipe = load_recipe("demo", {"selection.online": True})
    names = [stage.folder for stage in GRAPH.needed_stages(recipe)]
    assert not {"rollouts", "gradients", "scores"} & set(names)
    assert {"selection", "training"} <= set(names)
    keys = GRAPH.by_folder["training"].all_keys(recipe)
    assert {"selection.online", "gradients.proj_dim"} <= set(keys)
    assert picked(recipe, keys)["selection.online"] is True
    other = changed_recipe(recipe, {"selection.online_discount": 0.9})
    assert set(GRAPH.by_folder["training"].all_keys(other)) == {*keys, "selection.online_discount"}
    assert not any("online" in key for key in GRAPH.by_folder["training"].all_keys(load_recipe("demo")))
    assert "online" not in picked(load_recipe("demo"), ("selection",))["selection"]


def test_a_comparison_names_it_without_a_size():
    base = load_recipe("demo")
    variants = read_variants(["online", "random"], [32, 64], base)
    assert [variant.label for variant in variants] == ["online", "random@32", "random@64"]
    assert variants[0].recipe(base, 1).training.keep_rows
    assert not variants[1].recipe(base, 1).training.keep_rows


def test_a_report_says_what_was_drawn():
    rewards = [
        {"prompt_ids": ["a", "b", "c"], "rewards": [[0, 1], [1, 1], [0, 0]]},
        {"prompt_ids": [], "rewards": []},
        {"prompt_ids": ["a", "d"], "rewards": [[0, 1], [1, 0]]},
    ]
    log = [{"explored": 1}, {"explored": 1}, {"explored": 0}]
    counts = drawn_counts(rewards, log)
    assert counts == {"n_drawn": 5, "n_met": 4, "n_explored": 1, "n_with_spread": 3}
    chosen = SelectionCounts.from_json({"method": "online", "n": 9, "pool_size": 9, "online": counts})
    (note,) = selection_notes(chosen)
    assert "5 groups of 4 of the pool's 9 prompts, 1 of them to explore; 3 had rewards that differ" in note
    assert selection_notes(SelectionCounts.from_json({"method": "random", "n": 2, "pool_size": 9})) == []


@pytest.mark.slow
def test_an_online_run_from_its_prompts_to_its_report(tmp_path):
    asked = {"selection.online": "true", "training.steps": 4, "training.prompts_per_step": 3, "training.micro_batch": 8}
    run_dir = tmp_path / "run"
    done = command(*arguments(run_dir, settings=asked))
    assert done.returncode == 0, done.stderr
    assert not any((run_dir / name).exists() for name in ("rollouts", "gradients", "scores"))
    counts = json.loads((run_dir / "training" / "manifest.json").read_text())["counts"]
    assert counts["online"]["n_drawn"] >= 12
    assert counts["n_prompts"] == 24
    assert (run_dir / "training" / "online" / ARRAYS).is_file()
    assert json.loads((run_dir / "summary.json").read_text())["selection"]["online"] == counts["online"]
    assert "Prompts were drawn while the model was trained" in (run_dir / "report" / "index.html").read_text()
    assert f"groups of {counts['online']['n_met']} of the pool" in done.stderr
