"""Stage, bench and plan are handed the same settings, whatever the recipe says."""

from __future__ import annotations

import dataclasses
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from lean_align.errors import RecipeError
from lean_align.gradients import GradientSettings
from lean_align.grpo import TrainerSettings
from lean_align.machine import costs, pieces, rehearsals
from lean_align.machine.costs import cost_of
from lean_align.machine.place import Place, ProcessBytes, Speed
from lean_align.machine.pool_sizes import Pool
from lean_align.memory import Halving, Shortage
from lean_align.pipeline.stage import StageRun
from lean_align.recipe import load_recipe
from lean_align.rollouts import Sampling
from lean_align.stages import GRAPH, gradient_rows, rollouts, trainings

RECIPE = load_recipe(  # nothing of it is what a record has by itself
    "demo",
    {
        "seed": 5,
        "gradients.loss": "dr_grpo",
        "gradients.rollouts": "one_correct",
        "gradients.share_prompt": False,
        "gradients.precondition": "adam",
        "gradients.token_budget": 777,
        "gradients.logprob_chunk": 55,
        "rollouts.temperature": 0.7,
        "rollouts.max_new_tokens": 33,
        "rollouts.batch_size": 21,
        "rollouts.window": 99,
        "rollouts.num_generations": 4,
        "selection.num_generations": 6,
        "warmup.micro_batch": 4,
        "training.micro_batch": 4,
        "training.beta": 0.1,
        "training.gradient_checkpointing": True,
    },
)
PLACE = Place("cpu", 2**40, ProcessBytes(0, 0, 0, 0), Speed(1e9, 1e9, 1e-6, ""))
POOL = Pool(8, 8, 40, "made up")
WORK = rehearsals.Work(1, 1, 1, 1)


class Seen(Exception):
    """Raised with the settings that something was handed."""


def raising(place: int) -> Any:
    def spy(*given: Any, **named: Any) -> Any:
        raise Seen(given[place])

    return spy


def handed(work: Any, *given: Any) -> Any:
    with pytest.raises(Seen) as seen:
        work(*given)
    return seen.value.args[0]


@contextmanager
def nothing(*given: Any, **named: Any) -> Any:
    yield SimpleNamespace(encoder=None)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch, make_policy: Any, tmp_path: Any) -> Any:
    """The pieces of `lean-align bench` on a run folder without prompts."""
    policy = make_policy()
    for name, found in {
        "stored_recipe": lambda run_dir: RECIPE,
        "read_prompts": lambda run_dir, split: [],
        "policy_at": lambda *given: policy,
        "sampling_engine": nothing,
    }.items():
        monkeypatch.setattr(pieces, name, found)
    sampled = tmp_path / pieces.SAMPLED
    sampled.mkdir()
    (sampled / pieces.COMPLETIONS).touch()
    return tmp_path


def test_gradients(bench, monkeypatch):
    expected = GradientSettings(0.7, 777, 55, "dr_grpo", "one_correct", 33, False)
    assert GradientSettings.of(RECIPE) == expected
    monkeypatch.setattr("lean_align.gradients.prompt_gradients", raising(3))
    monkeypatch.setattr("lean_align.grpo.read_second_moments", lambda folder: {})
    stage = (RECIPE, bench, None, [], [], None, expected.share_prompt, print)
    assert handed(gradient_rows._gradients_of, *stage) == expected
    assert handed(pieces.gradients, bench, "") == expected
    monkeypatch.setattr(rehearsals, "rehearse_gradient", raising(4))
    assert handed(cost_of("gradients", "gradients"), RECIPE, POOL, PLACE, 0) == expected


def test_the_bench_projects_as_the_stage_does_and_divides_by_second_moments(bench, monkeypatch):
    seen = []
    monkeypatch.setattr("lean_align.gradients.prompt_gradients", lambda *given: seen.append(given) or iter(()))
    pieces.gradients(bench, "")
    policy, _, project, _, moments = seen[0]
    assert project.proj_dim == 2 * RECIPE.gradients.proj_dim  # both seeds
    assert {name: moment.numel() for name, moment in moments.items()} == policy.lora_sizes


def test_rollouts(bench, monkeypatch):
    expected = Sampling(6, 0.7, 33, 21, 5, "rollouts", 99)
    assert Sampling.of_rollouts(RECIPE) == expected
    monkeypatch.setattr("lean_align.rollouts.complete", raising(3))
    monkeypatch.setattr("lean_align.rollouts.generate_batch", lambda *given: [])
    monkeypatch.setattr(rollouts, "sampling_engine", nothing)
    monkeypatch.setattr("lean_align.stages.inputs.Sampled.prompts", lambda which, run_dir: [])
    assert handed(rollouts.run, StageRun(RECIPE, bench, SimpleNamespace(path=bench), GRAPH)) == expected
    assert handed(pieces.rollouts, bench, "transformers") == expected
    monkeypatch.setattr(rehearsals, "rehearse_decoding", raising(3))
    assert handed(cost_of("rollouts", "rollouts"), RECIPE, POOL, PLACE, 0) == expected


@pytest.fixture
def train(bench, monkeypatch):
    """The stage and the bench's piece, as functions of a backend, with nothing that a training loads."""

    @contextmanager
    def backend(recipe: Any, trainer: Any, *given: Any) -> Any:
        yield {"backend": trainer.backend}

    monkeypatch.setattr(trainings, "training_backend", backend)
    for name in ("policy_to_train", "policy_at", "keep_share"):
        monkeypatch.setattr(trainings, name, lambda *given, **named: None)
    monkeypatch.setattr(trainings, "live_engine", lambda *given: nullcontext((None, print)))
    monkeypatch.setattr("lean_align.stages.training_rows.training_rows", lambda *given: nullcontext())
    folder = SimpleNamespace(path=bench, final=bench / "training", counts={})

    def stage(name: str) -> Any:
        trainer = dataclasses.replace(RECIPE.training, backend=name)
        return handed(trainings.train_policy, RECIPE, trainer, None, [], "training", folder)

    return stage, lambda name: handed(pieces.training, bench, name, 3)


def test_trainings(train, monkeypatch):
    stage, timed = train
    expected = TrainerSettings(RECIPE.training, 4, 33, 0.7, 5, "training", 21, 55, False)
    assert TrainerSettings.of(RECIPE, "training") == expected
    assert TrainerSettings.of(RECIPE, "warmup") == dataclasses.replace(expected, trainer=RECIPE.warmup, stage="warmup")
    monkeypatch.setattr("lean_align.grpo.train_grpo", raising(2))
    monkeypatch.setattr("lean_align.grpo.train_lean", raising(2))
    for name in ("lean", "trl", "unsloth"):
        assert stage(name) == expected.with_trainer(backend=name)
        assert timed(name) == expected.with_trainer(backend=name, steps=3, save_steps=3)


def test_the_bench_refuses_what_only_lean_can_do(bench, monkeypatch):
    asking = dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, refill=True))
    monkeypatch.setattr(pieces, "stored_recipe", lambda run_dir: asking)
    with pytest.raises(RecipeError, match=r"training\.refill is True"):
        pieces.training(bench, "trl", 2)


def test_vllm_that_holds_fewer_completions_in_a_training_is_recorded_under_its_key(train, bench, monkeypatch):
    def fewer(recipe: Any, policy: Any, folder: Any, longest: Any, slots: int, on_halving: Any) -> Any:
        on_halving(Halving("loading vLLM", "batch_size", slots // 2, Shortage(None, None)))
        return nullcontext((None, print))

    monkeypatch.setattr(trainings, "live_engine", fewer)
    monkeypatch.setattr("lean_align.grpo.train_lean", lambda *given: [])
    folder = SimpleNamespace(path=bench, final=bench / "training", counts={})
    trainer = dataclasses.replace(RECIPE.training, backend="lean")
    trainings.train_policy(RECIPE, trainer, None, [], "training", folder)
    (row,) = folder.counts["out_of_memory"]
    assert (row["key"], row["value"]) == ("training.sampling_batch", 10)


@pytest.mark.parametrize("backend", ["lean", "trl"])
def test_a_planned_training(backend, monkeypatch):
    recipe = dataclasses.replace(RECIPE, training=dataclasses.replace(RECIPE.training, backend=backend))
    settings, planned = TrainerSettings.of(recipe, "training"), []
    for name, found in {
        "sampling_work": (WORK, WORK),
        "decoding_work": (WORK, WORK),
        "loss_work": WORK,
        "group_work": (WORK, WORK),
    }.items():
        monkeypatch.setattr(costs, name, lambda *given, found=found: planned.append(given) or found)
    cost_of("training", "training")(recipe, POOL, PLACE, 0)
    longest, model = POOL.longest_prompt, (recipe.model, recipe.lora)
    if backend == "lean":
        passes = GradientSettings(0.7, recipe.training.token_budget, 55, max_new_tokens=33, share_prompt=False)
        assert planned == [
            (*model, passes, 4, longest, 0.1, True, None),
            (*model, recipe.training.prompts_per_step, longest, Sampling(4, 0.7, 33, 21, 5, "training/0")),
        ]
    else:
        assert planned == [
            (*model, settings.sampled_at_once, longest, 33),
            (*model, 4, longest, 33, True, recipe.training.epsilon, False),
        ]
