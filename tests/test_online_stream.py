"""`PromptStream` in trl's own GRPOTrainer: what is drawn, fed back, and continued after a kill."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from small_models import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
from trl import GRPOConfig, GRPOTrainer

from lean_align.errors import DataError
from lean_align.online import OnlineSettings, PromptStream
from lean_align.online.state_files import ARRAYS, BELONGS
from lean_align.online.stream import DRAW, PLACE, STATE

pytestmark = pytest.mark.usefixtures("one_thread")
ROOT = Path(__file__).parent.parent
POOL = [{"prompt": f"What is {i} + {i % 7}?", "answer": str(i + i % 7)} for i in range(12)]
WAYS = {
    "a generation a step": {"gradient_accumulation_steps": 2, "save_steps": 2},
    "a generation for four steps": {
        "gradient_accumulation_steps": 1,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "save_steps": 4,
    },
    "two generations a step": {"gradient_accumulation_steps": 4, "steps_per_generation": 2, "save_steps": 1},
}
STEPS = {"a generation a step": 6, "a generation for four steps": 12, "two generations a step": 3}


class Killed(BaseException):
    """What ends a process: nothing catches it."""


class Log:
    """Prompts as the reward function meets them, by draw; kills a training at a call, or in a callback."""

    def __init__(self, kill_at: int | None = None) -> None:
        self.met: list[tuple[str, ...]] = []
        self.kill_at = kill_at

    def __call__(self, prompts, completions, answer, **columns):
        if self.kill_at == len(self.met):
            raise Killed
        assert DRAW not in columns
        self.met.append(tuple(prompts))
        return [float(len(text) % 2) for text in completions]

    __name__ = "odd"


class KillIn(TrainerCallback):
    """Ends a training at a callback of a step; behind the stream's own, or before it."""

    def __init__(self, step: int, event: str) -> None:
        self.step, self.event = step, event

    def _kill(self, event, state):
        if (event, state.global_step) == (self.event, self.step):
            raise Killed

    def on_step_end(self, args, state, control, **kw):
        self._kill("step_end", state)

    def on_save(self, args, state, control, **kw):
        self._kill("save", state)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    return save_model("llama", tmp_path_factory.mktemp("model") / "llama")


def config_of(folder: Path, way: str = "a generation a step", **changes) -> GRPOConfig:
    own = {"max_steps": STEPS[way], "per_device_train_batch_size": 4, "num_generations": 4, **WAYS[way]}
    plain = {"shuffle_dataset": False, "use_cpu": True, "bf16": False, "report_to": "none", "disable_tqdm": True}
    how = {"max_completion_length": 6, "learning_rate": 1e-3, "save_total_limit": 2, "gradient_checkpointing": False}
    return GRPOConfig(output_dir=str(folder), **{**own, **plain, **how, **changes})


def stream_of(rows=POOL, **changes) -> PromptStream:
    return PromptStream(rows, **{"prompts_per_step": 2, "seed": 5, "run": "tests", **changes})


def trainer_of(model: Path, stream: PromptStream, log, config: GRPOConfig, callbacks=None) -> GRPOTrainer:
    tokenizer = AutoTokenizer.from_pretrained(model)
    policy = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    callbacks = [stream.callback] if callbacks is None else callbacks
    return GRPOTrainer(policy, stream.reward(log), config, stream, processing_class=tokenizer, callbacks=callbacks)


def train(model: Path, folder: Path, way: str, log: Log, killer=None, first=False, **changes):
    """A training that goes on from a checkpoint where there is one; the stream, and the weights it ends with."""
    stream = stream_of()
    callbacks = (
        [stream.callback] if killer is None else [killer, stream.callback] if first else [stream.callback, killer]
    )
    trainer = trainer_of(model, stream, log, config_of(folder, way, **changes), callbacks)
    trainer.train(resume_from_checkpoint=any(folder.glob("checkpoint-*")))
    return stream, torch.cat([p.detach().reshape(-1) for p in trainer.model.parameters()])


def state_files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / STATE / name).read_bytes() for name in (ARRAYS, BELONGS)}


@pytest.mark.parametrize("way", WAYS)
def test_each_prompt_that_is_drawn_is_trained_on_once(model, tmp_path, way):
    """In the order of the draws, in groups; a draw that is read ahead is the only one left over."""
    log = Log()
    stream, _ = train(model, tmp_path, way, log)
    assert stream.rewarded == len(log.met) == {"a generation a step": 6, "a generation for four steps": 3}.get(way, 6)
    assert len(stream.draws) - stream.rewarded in (0, 1, 2)
    for draw, met in zip(stream.draws, log.met):
        assert met == tuple(POOL[place]["prompt"] for place in draw for _ in range(4))
        assert len(set(draw.tolist())) == 2
    assert stream.selector.n_met == len({place for draw in stream.draws[: stream.rewarded] for place in draw.tolist()})
    last = stream.draws[stream.rewarded - 1].tolist()
    assert all(stream.selector.posterior.last[place] == stream.rewarded - 1 for place in last)


@pytest.mark.parametrize(("way", "behind"), [("a generation a step", 1), ("a generation for four steps", 0)])
def test_how_far_rewards_are_behind_a_draw(model, tmp_path, monkeypatch, way, behind):
    known = []
    order = PromptStream._draw

    def noted(stream, draw):
        known.extend([draw - stream.rewarded] if draw == len(stream.draws) else [])
        return order(stream, draw)

    monkeypatch.setattr(PromptStream, "_draw", noted)
    train(model, tmp_path, way, Log())
    assert known[1:] == [behind] * (len(known) - 1)


@pytest.mark.parametrize("way", WAYS)
def test_a_training_that_is_killed_and_continued_has_the_prompts_of_an_uninterrupted_one(model, tmp_path, way):
    whole = Log()
    stream, weights = train(model, tmp_path / "whole", way, whole)
    killed, went_on = Log(kill_at=len(whole.met) - 1), Log()
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", way, killed)
    again, same_weights = train(model, tmp_path / "cut", way, went_on)
    kept = len(whole.met) - len(went_on.met)
    assert 0 < kept < len(whole.met)
    assert [*killed.met[:kept], *went_on.met] == whole.met
    assert np.array_equal(again.draws, stream.draws)
    assert torch.equal(weights, same_weights)
    last = f"checkpoint-{STEPS[way]}"
    assert state_files(tmp_path / "cut" / last) == state_files(tmp_path / "whole" / last)


@pytest.mark.parametrize(("event", "first"), [("step_end", True), ("step_end", False), ("save", True), ("save", False)])
def test_whichever_checkpoint_a_kill_leaves_has_its_state(model, tmp_path, event, first):
    """Killed at step 4 around the two places where the state is written."""
    way, whole = "a generation a step", Log()
    train(model, tmp_path / "whole", way, whole)
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", way, Log(), KillIn(4, event), first)
    went_on = Log()
    train(model, tmp_path / "cut", way, went_on)
    assert went_on.met == whole.met[4 if event == "save" else 2 :]
    assert state_files(tmp_path / "cut" / "checkpoint-6") == state_files(tmp_path / "whole" / "checkpoint-6")
    assert not list((tmp_path / "cut").glob(f"{STATE}-*"))


def test_the_comparison_of_continued_trainings_sees_a_state_that_is_lost(model, tmp_path, monkeypatch):
    """Planted: the record of the draws is kept, what is believed is not."""
    way, whole = "a generation a step", Log()
    train(model, tmp_path / "whole", way, whole, max_steps=10, save_steps=4)
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", way, Log(kill_at=9), max_steps=10, save_steps=4)
    monkeypatch.setattr("lean_align.online.selector.OnlineSelector.load_state_dict", lambda *arguments: None)
    went_on = Log()
    train(model, tmp_path / "cut", way, went_on, max_steps=10, save_steps=4)
    assert len(went_on.met) == 2
    assert went_on.met[-1] != whole.met[-1]


def test_without_reading_again_what_was_read_prompts_are_the_same(model, tmp_path):
    """ignore_data_skip: the trainer does not read the data set up to where it goes on."""
    way, whole, went_on = "a generation a step", Log(), Log()
    train(model, tmp_path / "whole", way, whole)
    with pytest.raises(Killed):
        train(model, tmp_path / "cut", way, Log(kill_at=5))
    train(model, tmp_path / "cut", way, went_on, ignore_data_skip=True)
    assert went_on.met == whole.met[4:]


def test_a_state_that_lies_elsewhere_is_loaded_by_hand(model, tmp_path):
    way, whole, went_on = "a generation a step", Log(), Log()
    train(model, tmp_path / "whole", way, whole)
    moved = tmp_path / "moved" / "checkpoint-4"
    shutil.copytree(tmp_path / "whole" / "checkpoint-4", moved)
    stream = stream_of()
    stream.load(moved / STATE)
    trainer_of(model, stream, went_on, config_of(tmp_path / "other", way)).train(resume_from_checkpoint=str(moved))
    assert went_on.met == whole.met[4:]


def test_a_checkpoint_without_its_state_or_with_another_steps_is_refused(model, tmp_path):
    way, folder = "a generation a step", tmp_path / "run"
    train(model, folder, way, Log(), max_steps=4)
    stream = stream_of()
    stream.load(folder / "checkpoint-2" / STATE)
    with pytest.raises(DataError, match="after 4 generations, and the stream's state is of 2"):
        trainer_of(model, stream, Log(), config_of(folder, way)).train(resume_from_checkpoint=True)
    shutil.rmtree(folder / "checkpoint-4" / STATE)
    with pytest.raises(DataError, match=r"goes on at step 4, and .*prompt_stream is not there"):
        train(model, folder, way, Log())


@pytest.mark.parametrize(
    ("change", "key"),
    [
        ({"run": "another"}, "run"),
        ({"seed": 6}, "seed"),
        ({"rows": POOL[::-1]}, "pool"),
        ({"prompts_per_step": 3}, "prompts_per_step"),
        ({"settings": OnlineSettings(discount=0.5)}, "discount"),
    ],
)
def test_a_state_of_another_stream_is_refused(tmp_path, change, key):
    stream = stream_of()
    next(iter(stream))
    stream.save(tmp_path / "state")
    with pytest.raises(DataError, match=f"its {key} is"):
        stream_of(**change).load(tmp_path / "state")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shuffle_dataset": True}, "shuffle_dataset is True"),
        ({"remove_unused_columns": True}, "remove_unused_columns is True"),
        ({"gradient_accumulation_steps": 3}, r"3 prompts and the stream draws 2.*prompts_per_step=3"),
        ({"num_iterations": 2, "save_steps": 3}, "save_steps is 3; expected a multiple of 2"),
    ],
)
def test_arguments_under_which_prompts_would_be_lost_are_refused(model, tmp_path, changes, message):
    with pytest.raises(DataError, match=message):
        train(model, tmp_path, "a generation a step", Log(), **changes)
    assert not list(tmp_path.glob("checkpoint-*"))


def test_a_stream_serves_one_training(model, tmp_path):
    stream = stream_of()
    trainer = trainer_of(model, stream, Log(), config_of(tmp_path, max_steps=1))
    trainer.train()
    with pytest.raises(DataError, match="Make a PromptStream for each training"):
        trainer.train()


def rewards_of(stream: PromptStream, reward, draws: int) -> None:
    """What trl asks of a reward function for the next draws: two completions a prompt."""
    rows = iter(stream)
    for _ in range(draws):
        step = [next(rows) for _ in range(stream.prompts_per_step)]
        columns = {key: [row[key] for row in step for _ in range(2)] for key in step[0]}
        reward(prompts=columns.pop("prompt"), completions=["", "x"] * len(step), **columns)


def test_a_success_that_is_not_known_is_left_out():
    stream = stream_of()
    rewards_of(stream, stream.reward(lambda completions, **columns: [None, 1.0] * 2), 1)
    posterior, (first, second) = stream.selector.posterior, stream.draws[0]
    assert (posterior.right[first], posterior.wrong[first]) == (1.0, 0.0)
    assert posterior.rate[second] == 1.0


def test_an_evaluation_leaves_the_stream_as_it_is():
    stream = stream_of()
    reward = stream.reward(lambda completions, **columns: [0.5] * len(completions))
    assert reward(prompts=["?"], completions=["a"], answer=["b"]) == [0.5]
    assert stream.rewarded == 0


def test_rewards_of_what_was_not_drawn_are_refused():
    stream, other = stream_of(), stream_of(seed=6)
    with pytest.raises(DataError, match="not the ones drawn"):
        rewards_of(other, stream.reward(lambda completions, **columns: [1.0] * 4), 1)


@pytest.mark.parametrize("reward", [2.0, -1.0])
def test_a_reward_that_is_no_share_of_success_is_refused(reward):
    stream = stream_of()
    with pytest.raises(DataError, match=r"in \[0, 1\]"):
        rewards_of(stream, stream.reward(lambda completions, **columns: [reward] * 4), 1)


def test_one_plain_function_is_wrapped():
    async def late(**columns):
        return []

    stream = stream_of()
    with pytest.raises(DataError, match="asynchronous"):
        stream.reward(late)
    assert stream.reward(Log()).__name__ == "odd"
    with pytest.raises(DataError, match="has a reward function already"):
        stream.reward(Log())


@pytest.mark.parametrize(
    ("rows", "per_step", "message"),
    [
        (POOL, 13, "expected 1 to 12"),
        (POOL, 0, "expected 1 to 12"),
        ([{"answer": "3"}], 1, "row 0 of the pool has the columns answer"),
        ([{"prompt": "?", PLACE: 1}], 1, "neither"),
        ([{"prompt": "?", "prompt_id": "a"}] * 2, 1, "expected each once"),
    ],
)
def test_a_pool_that_cannot_be_drawn_from_is_refused(rows, per_step, message):
    with pytest.raises(DataError, match=message):
        PromptStream(rows, per_step)


def test_prompts_may_be_messages():
    rows = [{"prompt": [{"role": "user", "content": f"{i}?"}]} for i in range(4)]
    stream = PromptStream(rows, 4)
    drawn = [row["prompt"][0]["content"] for _, row in zip(range(8), stream)]
    assert Counter(drawn) == {f"{i}?": 2 for i in range(4)}


def test_the_example_of_online_md_runs_and_goes_on(model, tmp_path, monkeypatch):
    """With a small model, on a CPU, in a few steps."""
    monkeypatch.chdir(tmp_path)
    Path("prompts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in POOL))
    (block,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "online.md").read_text(), re.DOTALL)
    changes = {
        '"Qwen/Qwen2.5-1.5B-Instruct"': repr(str(model)),
        "max_steps=100": "max_steps=2",
        "save_steps=10": "save_steps=1",
        "max_completion_length=256": "max_completion_length=4, use_cpu=True, bf16=False, report_to='none'",
    }
    for theirs, ours in changes.items():
        assert block.count(theirs) == 1
        block = block.replace(theirs, ours)
    assert len(block.splitlines()) <= 45
    names: dict = {"__name__": "example"}
    exec(compile(block, "online.md", "exec"), names)
    assert names["stream"].rewarded == 2
    again: dict = {"__name__": "example"}
    exec(compile(block.replace("max_steps=2", "max_steps=3"), "online.md", "exec"), again)
    assert np.array_equal(again["stream"].draws[:2], names["stream"].draws[:2])
    assert again["stream"].rewarded == 3
