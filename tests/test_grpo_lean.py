"""Trainings by lean: killed and resumed, refilled, with rows kept, and out of memory."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from forked import _server
from lean_training import (
    PROMPTS,
    RECIPE,
    flat,
    policy_of,
    relative_error,
    reward,
    settings_of,
    train_and_die,
    train_as_a_stage,
)
from small_models import save_model
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lean_align.errors import OutOfMemoryError, StageError
from lean_align.gradients import GradientSettings, group, prompt_gradients
from lean_align.grpo import REWARDS, drawing, last_checkpoint, lean, optimiser, read_rewards, train_lean
from lean_align.grpo.checkpoints import COMPLETE, STATE, read_checkpoint
from lean_align.grpo.drawing import StepSampler
from lean_align.grpo.order import PromptSeries
from lean_align.projection import recipe_projector
from lean_align.recipe import load_recipe
from lean_align.rng import rng_for
from lean_align.rollouts import TransformersEngine
from lean_align.stages import reward_curves
from lean_align.stages.training_rows import ROWS, training_rows
from lean_align.store import open_store
from lean_align.types import Prompt

pytestmark = pytest.mark.usefixtures("one_thread")
PACKAGE = Path(drawing.__file__).parent.parent
TRACED = ("grpo", "gradients", "rollouts", "store", "online", "stages/training_rows.py", "policy/saving.py")
RESUMED = {"num_iterations": 2, "beta": 0.1, "refill": True, "keep_rows": True, "save_steps": 1}
KILLED_IN = (
    "StepSampler.draw",
    "DecodeLoop._step",
    "_Training._reference",
    "backward_tokens",
    "backward_completions",
    "StoreWriter.write",
    "TrainingRows.end_step",
    "_Training._apply",
    "RewardLog.end_step",
    "keep_adapter",
    "written_whole",
    "save_checkpoint",
    "_Training.take_step",
    "_Training.finish",
    "drop_checkpoints",
    "_drop",
)
TORN_IN = ("RewardLog.end_step", "keep_adapter", "save_checkpoint", "_drop")
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("model") / "llama")


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


class Lines:
    """Counts the lines of our code that a training runs, of each function and ("") of all, and stops at some."""

    def __init__(self, stop: Callable[[str, int], None] = lambda name, count: None) -> None:
        self.stop, self.counts = stop, Counter[str]()
        self.folders = tuple(str(PACKAGE / name) for name in TRACED)

    def run(self, work: Callable[[], object]) -> None:
        before = sys.gettrace()
        sys.settrace(self._call)
        try:
            work()
        finally:
            sys.settrace(before)

    def _call(self, frame, event, argument):
        return self._line if frame.f_code.co_filename.startswith(self.folders) else None

    def _line(self, frame, event, argument):
        if event == "line":
            for name in ("", frame.f_code.co_qualname):
                self.counts[name] += 1
                self.stop(name, self.counts[name])
        return self._line


class Killed:
    """A training, and its folder as it was at some of the lines that it ran: a process that is killed leaves that."""

    def __init__(self, model: Path, folder: Path, monkeypatch, steps: int) -> None:
        monkeypatch.setattr("lean_align.store.writing.FLUSH_SECONDS", 0.0)
        self.model, self.folder = model, folder
        self.settings = replace(settings_of(steps=steps, **RESUMED), kept_steps=(1, 3, 6))
        lines = Lines()
        lines.run(lambda: self.train(folder / "whole"))
        self.counts, self.whole = lines.counts, files(folder / "whole")

    def train(self, folder: Path) -> None:
        train_as_a_stage(self.model, folder, self.settings)

    def at(self, lines: set[tuple[str, int]]) -> dict[tuple[str, int], Path]:
        """Copies of the folder, by the line of a function before which they were made."""
        left = {line: self.folder / f"{line[0]}-{line[1]}" for line in lines}

        def copy(name: str, count: int) -> None:
            if (name, count) in left:
                shutil.copytree(self.folder / "again", left[name, count])

        Lines(copy).run(lambda: self.train(self.folder / "again"))
        assert files(self.folder / "again") == self.whole
        return left

    def resumed(self, folder: Path) -> dict[str, bytes]:
        self.train(folder)
        return files(folder)


def torn(folder: Path) -> Path:
    """A copy in which a file that was being written is half there, and one that was being deleted is gone."""
    copy = shutil.copytree(folder, folder.with_name(f"{folder.name}-torn"))
    for state in copy.glob(f"checkpoints/partial-*/{STATE}"):
        state.write_bytes(state.read_bytes()[: state.stat().st_size // 2])
    for weights in copy.glob("at_steps/partial-*/*.safetensors"):
        weights.write_bytes(weights.read_bytes()[:9])
    for checkpoint in copy.glob("checkpoints/checkpoint-*"):
        if not (checkpoint / COMPLETE).exists():
            (checkpoint / STATE).unlink(missing_ok=True)
    with (copy / "rewards.jsonl").open("a") as file:
        file.write('{"step": 7, "prompt')
    return copy


def test_a_training_resumed_from_wherever_it_was_killed_is_an_uninterrupted_one(model, tmp_path, monkeypatch):
    """In each of some functions, before a line drawn at random."""
    killed, rng = Killed(model, tmp_path, monkeypatch, steps=8), rng_for(0, "killed")
    kept = ("adapter/adapter_model.safetensors", "second_moments.safetensors", "rewards.jsonl", "rows/projected.npy")
    kept += tuple(f"at_steps/step-{step}/adapter_model.safetensors" for step in (1, 3, 6))
    assert {*kept, "log.jsonl"} <= killed.whole.keys()
    assert not any(name.startswith("checkpoints") for name in killed.whole)
    left = killed.at({(name, int(rng.integers(1, killed.counts[name] + 1))) for name in KILLED_IN})
    for (name, number), folder in left.items():
        copies = [folder, *([torn(folder)] if name in TORN_IN else [])]
        for copy in copies:
            assert killed.resumed(copy) == killed.whole, (name, number)


def test_the_adapter_that_is_kept_after_a_step_is_that_of_a_training_which_ends_there(model, tmp_path):
    for steps in (2, 3):
        settings = replace(settings_of(steps=steps), kept_steps=(1, 2) if steps == 3 else ())
        train_as_a_stage(model, tmp_path / str(steps), settings)
    long, short = files(tmp_path / "3"), files(tmp_path / "2")
    assert {name.split("/")[1] for name in long if name.startswith("at_steps")} == {"step-1", "step-2"}
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert long[f"at_steps/step-2/{name}"] == short[f"adapter/{name}"]
    weights = {long[f"{kept}/adapter_model.safetensors"] for kept in ("at_steps/step-1", "at_steps/step-2", "adapter")}
    assert len(weights) == 3
    assert not any(name.startswith("at_steps") for name in short)


@pytest.mark.parametrize("trainer", [{}, {"refill": True}, {"num_iterations": 2}, {"beta": 0.1}])
def test_the_tokens_whose_gradient_a_step_took_by_hand(model, tmp_path, trainer):
    """Those of groups with a spread that it counted; with a KL term of all; of completions used twice, twice."""
    log = train_lean(policy_of(model), PROMPTS, settings_of(steps=4, **trainer), reward, tmp_path)
    sampled = []
    for row in read_rewards(tmp_path):
        groups = zip(row["rewards"], row["n_tokens"], row.get("counted", [True] * 99))
        run = [sum(n) for rewards, n, counted in groups if counted and ("beta" in trainer or len(set(rewards)) > 1)]
        sampled.append(sum(run))
    if "num_iterations" in trainer:
        sampled = [sampled[0], sampled[0], sampled[2], sampled[2]]
    assert [row["trained_tokens"] for row in log] == sampled
    assert min(sampled) > 0


@pytest.mark.slow
def test_a_training_resumed_from_any_of_thirty_lines_is_an_uninterrupted_one(model, tmp_path, monkeypatch):
    killed, rng = Killed(model, tmp_path, monkeypatch, steps=20), rng_for(1, "killed")
    left = killed.at({("", 1 + int(n)) for n in rng.choice(killed.counts[""], 30, replace=False)})
    steps = [len(read_rewards(folder)) for folder in left.values() if (folder / REWARDS).exists()]
    assert len(set(steps)) > 7
    for line, folder in left.items():
        assert killed.resumed(folder) == killed.whole, line


def test_a_process_that_is_killed_is_replaced_by_another(model, tmp_path):
    settings = settings_of(steps=8, **RESUMED)
    train_as_a_stage(model, tmp_path / "whole", settings)
    process = _server().Process(target=train_and_die, args=(model, tmp_path / "killed", settings, 50))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert last_checkpoint(tmp_path / "killed" / "checkpoints") is not None
    train_as_a_stage(model, tmp_path / "killed", settings)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_the_comparison_of_resumed_trainings_sees_lost_moments(model, tmp_path, monkeypatch):
    """Planted: a checkpoint without the optimiser's state."""
    settings = settings_of(steps=4, save_steps=2)
    train_as_a_stage(model, tmp_path / "whole", settings)
    monkeypatch.setattr(lean, "drop_checkpoints", lambda folder: None)
    train_as_a_stage(model, tmp_path / "cut", settings)
    monkeypatch.setattr(torch.optim.AdamW, "load_state_dict", lambda self, state: None)
    train_as_a_stage(model, tmp_path / "cut", settings)
    name = "adapter/adapter_model.safetensors"
    assert files(tmp_path / "cut")[name] != files(tmp_path / "whole")[name]


def dtypes_of(state: object) -> set[torch.dtype]:
    if isinstance(state, dict):
        return set().union(*map(dtypes_of, state.values()))
    return {state.dtype} if isinstance(state, torch.Tensor) else set()


def test_moments_in_8_bits_are_resumed_too(model, tmp_path, monkeypatch):
    """Those of small parameters are kept in 32 bits unless asked for."""
    made = optimiser.adamw_8bit
    small = lambda groups, paged, **options: made(groups, paged, min_8bit_size=1, **options)  # noqa: E731
    monkeypatch.setattr(optimiser, "adamw_8bit", small)
    monkeypatch.setattr(lean, "drop_checkpoints", lambda folder: None)
    settings = settings_of(steps=4, save_steps=2, optimizer="adamw_8bit")
    train_as_a_stage(model, tmp_path, settings)
    whole = files(tmp_path)
    assert torch.uint8 in dtypes_of(read_checkpoint(last_checkpoint(tmp_path / "checkpoints"))["optimizer"])
    (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    train_as_a_stage(model, tmp_path, settings)
    assert files(tmp_path) == whole
    assert "second_moments.safetensors" not in whole


class Scripted:
    """An engine whose completion g of a prompt is the token g, then an end token; keeps what it is asked for."""

    eos_token_ids = (9,)
    encoder = SimpleNamespace(decode=lambda ids: str(ids[0]), encode=lambda prompt: [1])

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def sample(self, prompts, sampling, advance):
        self.asked.append([prompt.prompt_id for prompt in prompts])
        return [[(g, 9) for g in sampling.indices] for _ in prompts]


def pool_of(kinds: str) -> list[Prompt]:
    """A prompt a letter: the rewards of s(ame) are equal, those of d(iffers) are not."""
    return [Prompt(f"p-{i}", "?", kind) for i, kind in enumerate(kinds)]


class InOrder(PromptSeries):
    """The pool again and again as it is."""

    def take(self, first, n):
        return [self.prompts[i % len(self.prompts)] for i in range(first, first + n)]


def drawn(kinds: str, first: int = 0, **trainer):
    """What a step of three prompts with two completions each draws from a pool; places, ids and what was asked for."""
    settings = replace(settings_of(prompts_per_step=3, **trainer), num_generations=2)
    engine, series = Scripted(), InOrder(pool_of(kinds), 0, "tests")
    judge = lambda gold, text: float(gold == "d" and text == "1")  # noqa: E731
    found = StepSampler(engine, series, settings, judge, lambda halving: None).draw(0, first)
    return found, engine.asked


@pytest.mark.parametrize(
    ("kinds", "trainer", "asked", "counted", "refilled"),
    [
        ("sdsddd", {}, [3], (0, 1, 2), 0),
        ("dddsss", {"refill": True}, [3], (0, 1, 2), 0),
        # 2 are missing; of the next 2 one teaches; then 1 more is drawn
        ("sdssdd", {"refill": True}, [3, 2, 1], (1, 4, 5), 3),
        # a prompt's completions are 4 tokens; 12 at first, so that 24 are spent after 3 + 3
        ("ssssss", {"refill": True}, [3, 3, 3], (), 6),
        ("ssssss", {"refill": True, "refill_tokens": 1}, [3, 3], (), 3),
        ("ssssss", {"refill": True, "refill_tokens": 12}, [3, 3], (), 3),
        ("ssssss", {"refill": True, "refill_tokens": 13}, [3, 3, 3], (), 6),
        # a batch that was begun is finished, even beyond the budget
        ("sdsssd", {"refill": True, "refill_tokens": 4}, [3, 2], (1,), 2),
        ("sdsssd", {"refill": True, "refill_tokens": 9}, [3, 2, 2], (1, 5), 4),
        # the pool may be smaller than the step
        ("sd", {"refill": True}, [3, 2, 1], (1, 3, 5), 3),
        ("s", {"refill": True}, [3, 3, 3], (), 6),
    ],
)
def test_groups_whose_rewards_are_equal_are_replaced(kinds, trainer, asked, counted, refilled):
    found, engine = drawn(kinds, **trainer)
    assert [len(ids) for ids in engine] == asked
    assert (found.counted, found.refilled) == (counted, refilled)
    assert [group.prompt.prompt_id for group in found.groups] == [f"p-{i % len(kinds)}" for i in range(sum(asked))]


def test_a_prompt_met_twice_in_a_step_has_other_noise_and_keeps_its_name(model):
    found, asked = drawn("sd", refill=True)
    assert asked == [["p-0", "p-1", "p-0#2"], ["p-1#2", "p-0#3"], ["p-1#3"]]
    assert {c.prompt_id for c in found.groups[3].completions} == {"p-1"}
    policy = policy_of(model)
    series, settings = PromptSeries(PROMPTS[:1], 0, "tests"), settings_of(prompts_per_step=2)
    one, other = StepSampler(TransformersEngine(policy), series, settings, reward, lambda h: None).draw(0, 0).groups
    assert one.prompt == other.prompt
    assert [c.token_ids for c in one.completions] != [c.token_ids for c in other.completions]


def test_a_refilled_step_says_what_it_counted_and_the_next_goes_on_behind_it(model, tmp_path):
    settings = settings_of(steps=4, refill=True)
    log = train_lean(policy_of(model), PROMPTS, settings, reward, tmp_path)
    rows = read_rewards(tmp_path)
    met = [prompt_id for row in rows for prompt_id in row["prompt_ids"]]
    assert met == [
        prompt.prompt_id for prompt in PromptSeries(PROMPTS, settings.seed, settings.stage).take(0, len(met))
    ]
    for row, logged in zip(rows, log, strict=True):
        spread = [len(set(rewards)) > 1 for rewards in row["rewards"]]
        assert row["counted"] == spread
        assert logged["refilled"] == len(spread) - 3
        assert logged["share_zero_spread"] == 1 - np.mean(spread)
        assert logged["reward"] == np.mean(row["rewards"])
    assert max(row["refilled"] for row in log) > 0


def test_the_loss_of_a_refilled_step_is_the_mean_over_what_it_counted(model, tmp_path):
    """Its gradient is that of a step that draws just these groups."""

    def gradient(folder, pool, **trainer):
        policy, kept = policy_of(model), []
        hook = register_optimizer_step_pre_hook(lambda *arguments: kept.append(flat(policy, gradients=True)))
        try:
            train_lean(policy, pool, settings_of(steps=1, **trainer), reward, folder)
        finally:
            hook.remove()
        return kept[0]

    refilled = gradient(tmp_path / "refilled", PROMPTS, refill=True)
    row = read_rewards(tmp_path / "refilled")[0]
    ids = [prompt_id for prompt_id, counted in zip(row["prompt_ids"], row["counted"]) if counted]
    assert len(ids) == len(set(ids)) == 3 < len(row["counted"])
    pool = [prompt for prompt in PROMPTS if prompt.prompt_id in ids]
    assert relative_error(gradient(tmp_path / "same", pool), refilled) < 1e-5
    assert relative_error(gradient(tmp_path / "other", PROMPTS), refilled) > 0.1


def test_a_training_without_any_spread_ends_and_leaves_the_adapter_as_it_was(model, tmp_path):
    policy = policy_of(model)
    before = flat(policy)
    settings = settings_of(steps=2, refill=True)
    log = train_lean(policy, PROMPTS, settings, lambda gold, text: 1.0, tmp_path)
    assert [(row["loss"], row["grad_norm"], row["share_zero_spread"]) for row in log] == [(0.0, 0.0, 1.0)] * 2
    assert all(row["refilled"] >= 3 for row in log)
    assert not any(any(row["counted"]) for row in read_rewards(tmp_path))
    assert torch.equal(flat(policy), before)


@pytest.mark.parametrize("projection", ["sjlt", "rademacher"])
@pytest.mark.parametrize("trainer", [{}, {"num_iterations": 2, "refill": True, "token_budget": 9}])
def test_a_kept_row_is_the_one_that_the_gradient_stage_makes(model, tmp_path, monkeypatch, projection, trainer):
    """At the same weights: taken beside the training, before each step."""
    policy, settings = policy_of(model), settings_of(steps=4, keep_rows=True, **trainer)
    recipe = replace(RECIPE, gradients=replace(RECIPE.gradients, projection=projection, second_seed=False))
    projector, _ = recipe_projector(recipe.gradients, policy.lora_sizes, recipe.seed)
    expected: list[np.ndarray] = []
    draw = StepSampler.draw

    def noted(sampler, step, first):
        found = draw(sampler, step, first)
        groups = [found.groups[i] for i in found.counted]
        made = prompt_gradients(policy, groups, projector, GradientSettings(settings.temperature))
        rows = [row.numpy() for _, row in made]
        expected.extend(rows + [np.zeros(64)] * (3 - len(rows)))
        return found

    monkeypatch.setattr(StepSampler, "draw", noted)
    stage = SimpleNamespace(path=tmp_path, counts={})
    with training_rows(recipe, settings, policy, stage) as rows:
        train_lean(policy, PROMPTS, settings, reward, tmp_path, rows=rows)
    assert stage.counts["projection"]["kind"] == projection
    store = open_store(tmp_path / ROWS)
    steps = 4 // trainer.get("num_iterations", 1)
    assert len(store) == len(expected) == 3 * steps
    lengths = np.array([np.linalg.norm(row) for row in expected])
    assert np.array_equal(store.norms > 0, lengths > 0)
    assert 0 < (lengths > 0).sum() < len(lengths) or trainer
    for row, norm, other, length in zip(np.asarray(store.rows, np.float64), store.norms, expected, lengths):
        if length:
            assert row @ other / length / np.linalg.norm(row) == pytest.approx(1, abs=1e-5)
            assert norm == pytest.approx(length, rel=1e-5)
    lines = [line for line in read_rewards(tmp_path) if line["prompt_ids"]]
    for step, line in enumerate(lines):
        counted = line.get("counted", [True] * 3)
        spread = [len(set(rewards)) > 1 for rewards in line["rewards"]]
        places = [i for i, taken in enumerate(counted) if taken]
        assert [line["rows"][i] for i in places] == [
            3 * step + place if spread[i] else None for place, i in enumerate(places)
        ]
        assert all(row is None for i, row in enumerate(line["rows"]) if i not in places)


def without_memory_for(monkeypatch, tokens: int) -> None:
    """Passes over more tokens of completions run out of memory, behind what they have done before."""
    packed = group.packed_states

    def full(policy, prompt, last_state, completions):
        if completions[0].prompt_id != "check" and sum(c.n_tokens for c in completions) > tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return packed(policy, prompt, last_state, completions)

    monkeypatch.setattr(group, "packed_states", full)


@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_pass_that_runs_out_of_memory_is_made_again_in_smaller_ones(model, tmp_path, monkeypatch, beta):
    settings, halvings = settings_of(num_iterations=2, steps=4, token_budget=40, beta=beta, refill=True), []
    whole = train_as_a_stage(model, tmp_path / "whole", settings)
    without_memory_for(monkeypatch, 13)
    policy = train_as_a_stage(model, tmp_path / "small", settings, on_halving=halvings.append)
    assert [halving.key for halving in halvings] == ["token_budget"] * len(halvings)
    values = [halving.value for halving in halvings]
    assert 1 <= len(values) <= 3
    assert values == sorted(values, reverse=True)
    assert relative_error(flat(policy), flat(whole)) < TOLERANCE
    kept = [files(tmp_path / name) for name in ("whole", "small")]
    assert kept[0][REWARDS] == kept[1][REWARDS]
    for one, other in zip(*(found["log.jsonl"].splitlines() for found in kept), strict=True):
        assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-3, abs=1e-5)


def test_a_sampling_that_runs_out_of_memory_is_made_again_in_smaller_batches(model, tmp_path, monkeypatch):
    settings, halvings = replace(settings_of(refill=True), batch_size=12), []
    whole = train_as_a_stage(model, tmp_path / "whole", settings)
    sample = TransformersEngine.sample

    def full(engine, prompts, sampling, advance):
        if sampling.slots > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return sample(engine, prompts, sampling, advance)

    monkeypatch.setattr(TransformersEngine, "sample", full)
    policy = train_as_a_stage(model, tmp_path / "small", settings, on_halving=halvings.append)
    assert [(halving.key, halving.value) for halving in halvings] == [("sampling_batch", 6), ("sampling_batch", 4)]
    assert "sampling of the tests" in halvings[0].work
    assert relative_error(flat(policy), flat(whole)) < TOLERANCE
    assert (tmp_path / "small" / REWARDS).read_bytes() == (tmp_path / "whole" / REWARDS).read_bytes()


def test_where_nothing_is_left_to_halve_the_keys_to_lower_are_named(model, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        without_memory_for(patch, 0)
        with pytest.raises(OutOfMemoryError, match=r"one completion.*logprob_chunk.*training\.gradient_checkpointing"):
            train_as_a_stage(model, tmp_path, settings_of())
    with monkeypatch.context() as patch:
        patch.setattr(TransformersEngine, "sample", lambda *arguments: torch.empty(2**60))
        with pytest.raises(OutOfMemoryError, match=r"4 completions of one prompt.*max_new_tokens"):
            train_as_a_stage(model, tmp_path, settings_of())


def test_a_training_that_ran_out_of_memory_goes_on_from_its_checkpoint(model, tmp_path, monkeypatch):
    settings = settings_of(steps=6, **RESUMED)
    train_as_a_stage(model, tmp_path / "whole", settings)
    backward, calls = group.backward_tokens, [0]

    def full(*arguments):
        calls[0] += 1
        if calls[0] > 10:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return backward(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(group, "backward_tokens", full)
        with pytest.raises(OutOfMemoryError):
            train_as_a_stage(model, tmp_path / "cut", settings)
    assert last_checkpoint(tmp_path / "cut" / "checkpoints") is not None
    train_as_a_stage(model, tmp_path / "cut", settings)
    assert files(tmp_path / "cut") == files(tmp_path / "whole")


def test_a_gradient_that_is_not_finite_ends_the_training_with_what_to_lower(model, tmp_path):
    settings = settings_of(steps=2, num_iterations=2, learning_rate=1e30)
    with pytest.raises(StageError, match=r"step 2 holds NaN.*training\.learning_rate"):
        train_as_a_stage(model, tmp_path, settings)


def test_reward_curves_of_a_training_that_uses_completions_twice(model, tmp_path, monkeypatch):
    """It takes twice the steps to meet every prompt as often, and keeps no rows of its own."""

    def train(recipe, trainer, start, prompts, stage, folder):
        assert not trainer.keep_rows
        own = {"num_iterations": trainer.num_iterations, "steps": trainer.steps}
        return train_lean(policy_of(model), prompts, settings_of(**own), reward, folder.path)

    monkeypatch.setattr(reward_curves, "train_policy", train)
    monkeypatch.setattr(reward_curves, "read_prompts", lambda run_dir, name: PROMPTS)
    asked = {"num_iterations": 2, "prompts_per_step": 3, "micro_batch": 6, "keep_rows": True}
    changes = {f"training.{key}": value for key, value in asked.items()} | {"selection.curve_epochs": 2}
    stage = SimpleNamespace(path=tmp_path, counts={})
    reward_curves.run(SimpleNamespace(recipe=load_recipe("demo", changes), run_dir=tmp_path, folder=stage))
    assert stage.counts["steps"] == 6  # 8 meetings, 3 at a time, each for 2 steps
    assert np.load(tmp_path / reward_curves.CURVES).shape == (4, 2)
