from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

from lean_align.errors import OutOfMemoryError, StageError
from lean_align.grpo import (
    COMPLETE,
    REWARDS,
    SECOND_MOMENTS,
    RewardLog,
    TrainerSettings,
    last_checkpoint,
    log_rows,
    read_rewards,
    read_second_moments,
    recorded,
    second_moments,
    train_grpo,
    trained_tokens,
    trainer_fields,
    training_order,
)
from lean_align.grpo.training import what_moves
from lean_align.memory import Shortage
from lean_align.pipeline.halving import smaller_trainer
from lean_align.recipe import TrainerRecipe
from lean_align.types import Prompt
from tests.conftest import QUESTIONS

PROMPTS = [Prompt(f"p-{i}", question, answer) for i, (question, answer) in enumerate(QUESTIONS)]
TRAINER = TrainerRecipe(steps=3, prompts_per_step=2, micro_batch=4, learning_rate=1e-2, save_steps=1)


def settings_of(trainer: TrainerRecipe) -> TrainerSettings:
    return TrainerSettings(trainer, num_generations=4, max_new_tokens=8, temperature=1.0, seed=7, stage="tests")


SETTINGS = settings_of(TRAINER)
ADAPTER = "adapter/adapter_model.safetensors"

# fields of GRPOConfig that are left alone: they do nothing while the fields passed are what they are
INERT = (  # prefixes
    "vllm_ sapo_ vespo_ hub_ trackio_ ddp_ entropy_ fsdp deepspeed eval_ per_device_eval dataloader_ log_ sync "
    "ref_model liger torch_compile_ transformers_ metric greater prediction batch_eval include_ project run_name"
).split()
REVIEWED = {
    "accelerator_config",
    "average_tokens_across_devices",
    "bf16_full_eval",
    "cache_implementation",
    "chat_template_kwargs",
    "data_seed",
    "debug",
    "do_eval",
    "do_predict",
    "do_train",
    "ds3_gather_for_generation",
    "enable_jit_checkpoint",
    "fp16_full_eval",
    "ignore_data_skip",
    "label_names",
    "length_column_name",
    "local_rank",
    "max_tool_calling_iterations",
    "model_init_kwargs",
    "num_completions_to_print",
    "num_generations_eval",
    "optim_target_modules",
    "pad_to_multiple_of",
    "parallelism_config",
    "restore_callback_states_from_checkpoint",
    "resume_from_checkpoint",
    "router_aux_loss_coef",
    "save_on_each_node",
    "skip_memory_metrics",
    "torch_empty_cache_steps",
    "train_sampling_strategy",
    "trust_remote_code",
    "use_cache",
    "use_transformers_paged",
}


def reward(gold: str, completion: str) -> float:
    return float(len(completion) % 2)  # something that differs inside a group


def test_every_field_is_passed_or_known_to_be_inert(tmp_path):
    from trl import GRPOConfig

    passed = trainer_fields(SETTINGS, tmp_path, "cpu", False)
    fields = {f.name for f in dataclasses.fields(GRPOConfig) if f.init}
    assert passed.keys() <= fields
    left = {f for f in fields - passed.keys() if not f.startswith(tuple(INERT))}
    assert left <= REVIEWED | {"liger_kernel_config"}


def test_the_trainer_computes_the_loss_of_the_method(tmp_path):
    fields = trainer_fields(SETTINGS, tmp_path, "cpu", False)
    assert (fields["loss_type"], fields["scale_rewards"], fields["num_iterations"]) == ("grpo", "group", 1)
    assert fields["per_device_train_batch_size"] * fields["gradient_accumulation_steps"] == 2 * 4
    assert fields["steps_per_generation"] == fields["gradient_accumulation_steps"]


def test_training_order_passes_over_all_prompts_before_any_comes_again():
    order = training_order(PROMPTS, 10, seed=1, stage="s")
    assert len(order) == 10
    assert set(order[:4]) == set(order[4:8]) == set(PROMPTS)
    assert order == training_order(PROMPTS, 10, seed=1, stage="s")
    assert order != training_order(PROMPTS, 10, seed=2, stage="s")


def test_checkpoints_that_were_not_written_whole_are_dropped(tmp_path):
    for step, whole in ((2, True), (10, True), (12, False)):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        if whole:
            (folder / COMPLETE).touch()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-10"
    assert not (tmp_path / "checkpoint-12").exists()
    assert last_checkpoint(tmp_path / "nowhere") is None


def test_log_rows_hold_no_timings():
    history = [{"step": 1, "reward": 0.5, "step_time": 3.0, "loss": 0.1}, {"train_runtime": 9.0, "step": 1}]
    assert log_rows(history) == [{"step": 1, "reward": 0.5, "loss": 0.1}]


def test_a_step_on_the_completions_of_the_one_before_is_logged_with_their_rewards():
    history = [{"step": 1, "reward": 0.5, "loss": 0.1, "kl": 0.2}, {"step": 2, "loss": 0.3}, {"step": 3, "reward": 0.7}]
    assert log_rows(history) == [
        {"step": 1, "reward": 0.5, "loss": 0.1, "kl": 0.2},
        {"step": 2, "reward": 0.5, "loss": 0.3},
        {"step": 3, "reward": 0.7},
    ]


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("quantization", "beta", "num_iterations"), [("none", 0.0, 1), ("nf4", 0.0, 1), ("nf4", 0.04, 1), ("none", 0.04, 2)]
)
def test_a_resumed_training_is_bit_for_bit_an_uninterrupted_one(
    make_policy, tmp_path, quantization, beta, num_iterations
):
    """With beta > 0 too, where a checkpoint holds the reference adapter beside the trained one."""
    trainer = dataclasses.replace(TRAINER, beta=beta, num_iterations=num_iterations)

    def train(folder, stop_at=None):
        policy, calls = make_policy(quantization), [0]

        def counted(gold, completion):
            calls[0] += 1
            if stop_at is not None and calls[0] > stop_at:
                raise _Killed
            return reward(gold, completion)

        settings = dataclasses.replace(settings_of(trainer), kept_steps=(1, 2))
        return train_grpo(policy, PROMPTS, settings, counted, folder)

    log = train(tmp_path / "whole")
    with pytest.raises(_Killed):
        train(tmp_path / "cut", stop_at=2 * 8 // num_iterations + 3)  # in the third step
    assert last_checkpoint(tmp_path / "cut" / "checkpoints").name == "checkpoint-2"
    assert train(tmp_path / "cut") == log
    kept = [f"at_steps/step-{step}/adapter_model.safetensors" for step in (1, 2)]
    assert len({(tmp_path / "whole" / name).read_bytes() for name in (kept[0], kept[1], ADAPTER)}) == 3
    for name in (ADAPTER, "adapter/adapter_config.json", *kept, SECOND_MOMENTS, REWARDS):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert not (tmp_path / "cut" / "checkpoints").exists()
    assert [row["step"] for row in log] == [1, 2, 3]
    sampled = [np.sum(row["n_tokens"]) for row in read_rewards(tmp_path / "whole")]
    passed = [sampled[i - i % num_iterations] for i in range(3)]  # trl passes over all completions at every step
    assert [row["trained_tokens"] for row in log] == passed
    assert trained_tokens(log) == sum(passed)
    assert trained_tokens([{"step": 1}]) is None


def test_training_moves_the_adapter_in_float32_over_a_4_bit_base(make_policy, tmp_path):
    policy = make_policy("nf4")
    before = {name: p.detach().clone() for name, p in policy.lora_parameters.items()}
    train_grpo(policy, PROMPTS, SETTINGS.with_trainer(steps=1), reward, tmp_path)
    after = policy.lora_parameters
    assert {p.dtype for p in after.values()} == {torch.float32}
    assert all(not torch.equal(before[name], after[name]) for name in before)
    moments = read_second_moments(tmp_path)
    assert {name: m.shape for name, m in moments.items()} == {name: p.shape for name, p in after.items()}
    assert all(m.dtype == torch.float32 and m.max() > 0 for m in moments.values())


def test_second_moments_by_hand(make_policy):
    """Gradients 1 then 3 with beta2 = 0.5: v = 0.5 * (0.5 * 1) + 0.5 * 9 = 4.75, over 1 - 0.5^2 is 6.3333.

    Each parameter's gradients are its own number times that, so a mix-up of names shows.
    """
    policy = make_policy()
    parameters = policy.lora_parameters
    optimizer = torch.optim.AdamW(list(parameters.values()), betas=(0.9, 0.5))
    for gradient in (1.0, 3.0):
        for i, parameter in enumerate(parameters.values()):
            parameter.grad = torch.full_like(parameter, (i + 1) * gradient)
        optimizer.step()
    found = second_moments(policy, optimizer)
    assert list(found) == list(parameters)
    for i, moment in enumerate(found.values()):
        assert torch.allclose(moment, torch.full_like(moment, (i + 1) ** 2 * 4.75 / 0.75))


def test_an_optimiser_without_second_moments_gives_none_and_adam_is_then_refused(make_policy, tmp_path):
    policy = make_policy()
    assert second_moments(policy, torch.optim.SGD(list(policy.lora_parameters.values()))) == {}
    with pytest.raises(StageError, match=r"warmup\.optimizer=adamw_torch"):
        read_second_moments(tmp_path)


def test_a_training_that_runs_out_of_memory_goes_on_from_its_checkpoint_in_smaller_pieces(make_policy, tmp_path):
    calls = [0]

    def full(gold, completion):
        calls[0] += 1
        if calls[0] == 2 * 8 + 3:  # in the third step
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return reward(gold, completion)

    shortage = train_grpo(make_policy(), PROMPTS, SETTINGS, full, tmp_path)
    assert shortage == Shortage(3 * 2**30, None)
    assert last_checkpoint(tmp_path / "checkpoints").name == "checkpoint-2"
    smaller, halvings = smaller_trainer(SETTINGS, "training", shortage)
    assert (smaller.trainer.micro_batch, smaller.trainer.sampling_batch) == (2, 4)
    assert [(h.key, h.value) for h in halvings] == [("micro_batch", 2), ("sampling_batch", 4)]
    log = train_grpo(make_policy(), PROMPTS, smaller, reward, tmp_path)
    assert [row["step"] for row in log] == list(range(1, TRAINER.steps + 1))
    met = [prompt_id for row in read_rewards(tmp_path) for prompt_id in row["prompt_ids"]]
    assert met == [prompt.prompt_id for prompt in training_order(PROMPTS, 6, 7, "tests")]
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


def test_a_training_that_takes_one_completion_and_samples_one_group_cannot_be_smaller():
    least = SETTINGS.with_trainer(micro_batch=1, sampling_batch=4)
    with pytest.raises(
        OutOfMemoryError, match=r"warmup, even with one completion.*5\.0 GiB.*warmup\.gradient_checkpointing"
    ):
        smaller_trainer(least, "warmup", Shortage(5 * 2**30, 0))


@pytest.mark.parametrize(
    ("micro_batch", "sampling_batch", "expected"),
    [(15, None, (5, 60)), (8, None, (4, 60)), (1, 24, (1, 12)), (8, 8, (4, 4)), (1, 60, (1, 24))],
)
def test_what_is_sampled_at_once_stays_whole_groups_and_divides_the_step(micro_batch, sampling_batch, expected):
    """30 prompts x 4 completions; with micro-batches of 15 at first, 60 is the half that 5 and 4 divide."""
    settings = SETTINGS.with_trainer(prompts_per_step=30, micro_batch=micro_batch, sampling_batch=sampling_batch)
    smaller, _ = smaller_trainer(settings, "warmup", Shortage(1, 0))
    assert (smaller.trainer.micro_batch, smaller.trainer.sampling_batch) == expected


@pytest.mark.parametrize(("micro_batch", "sampling_batch"), [(10, None), (2, 4)])
def test_rewards_are_kept_by_prompt_in_the_order_of_training(make_policy, tmp_path, micro_batch, sampling_batch):
    """Five prompts a step of a pool of four: one is met twice.  A step may be sampled at once or in pieces."""
    batches = {"prompts_per_step": 5, "micro_batch": micro_batch, "sampling_batch": sampling_batch}
    settings = SETTINGS.with_trainer(steps=2, learning_rate=0.0, **batches)
    seen = []

    def noted(gold, completion):
        seen.append((gold, reward(gold, completion)))
        return seen[-1][1]

    log = train_grpo(make_policy(), PROMPTS, settings, noted, tmp_path)
    rows = read_rewards(tmp_path)
    order = training_order(PROMPTS, 10, 7, "tests")
    assert [row["step"] for row in rows] == [1, 2]
    assert [row["prompt_ids"] for row in rows] == [[p.prompt_id for p in order[i : i + 5]] for i in (0, 5)]
    golds = [p.answer for p in order for _ in range(4)]
    assert list(zip(golds, (r for row in rows for group in row["rewards"] for r in group), strict=True)) == seen
    for row, logged in zip(rows, log):
        assert np.mean(row["rewards"]) == pytest.approx(logged["reward"])
        assert np.mean(row["n_tokens"]) == pytest.approx(logged["mean_tokens"])
        assert np.shape(row["rewards"]) == np.shape(row["n_tokens"]) == (5, 4)


def test_lines_after_the_checkpoint_and_torn_ones_are_dropped(tmp_path):
    path = tmp_path / "made" / REWARDS
    log = RewardLog(path, 2, 0)
    for step in (1, 2, 3):
        log.begin_step()
        log.add(["a", "a"], [step, 0], [3, 4])
        log.end_step(step)
    whole = path.read_text().splitlines(keepends=True)
    assert json.loads(whole[1]) == {"step": 2, "prompt_ids": ["a"], "rewards": [[2.0, 0.0]], "n_tokens": [[3, 4]]}
    path.write_text("".join(whole) + whole[0][:9])
    RewardLog(path, 2, 3)
    assert path.read_text() == "".join(whole)
    RewardLog(path, 2, 2)
    assert path.read_text() == "".join(whole[:2])
    with pytest.raises(StageError, match=r"rewards of 2 steps, but the checkpoint.*after 3.*Delete"):
        RewardLog(path, 2, 3)
    RewardLog(path, 2, 0)
    assert path.read_text() == ""


def test_a_step_that_did_not_end_leaves_nothing(tmp_path):
    log = RewardLog(tmp_path / REWARDS, 2, 0)
    log.add(["a", "a"], [1.0, 0.0], [1, 1])
    log.begin_step()
    log.add(["b", "b"], [1.0, 1.0], [1, 1])
    log.end_step(1)
    assert read_rewards(tmp_path)[0]["prompt_ids"] == ["b"]


@pytest.mark.parametrize("ids", [["a", "b", "b", "a"], ["a", "a", "b"]])
def test_completions_that_do_not_stand_in_groups_are_refused(tmp_path, ids):
    """The planted fault: a trainer that shuffles completions before it asks for rewards."""
    asked = recorded(lambda gold, text: 1.0, lambda tokens: "x", RewardLog(tmp_path / REWARDS, 2, 0))
    with pytest.raises(StageError, match="expected those of one prompt"):
        asked(answer=["1"] * len(ids), prompt_id=ids, completion_ids=[[1]] * len(ids))


@pytest.mark.parametrize(
    ("row", "line"),
    [
        (
            {"reward": 0.304, "loss": -1e-9, "share_zero_spread": 0.25, "mean_tokens": 41.6},
            "reward 0.30, with signal 75%, tokens 42",
        ),
        ({"reward": 0.5, "loss": 0.0, "kl": 0.00123}, "reward 0.50, KL 0.0012"),
    ],
)
def test_a_training_line_shows_what_moves(row, line):
    assert what_moves(row) == line
