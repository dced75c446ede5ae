"""Trainings by lean on a random model of two layers: a step takes a few hundredths of a second."""

from __future__ import annotations

import dataclasses
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from small_models import fill, load

from lean_align.artifacts import write_jsonl
from lean_align.grpo import TrainerSettings, train_lean
from lean_align.policy import Policy
from lean_align.recipe import TrainerRecipe, load_recipe
from lean_align.stages.training_rows import training_rows
from lean_align.types import Prompt
from tests.conftest import QUESTIONS

PROMPTS = [Prompt(f"p-{i}", question, answer) for i, (question, answer) in enumerate(QUESTIONS)]
RECIPE = load_recipe("demo", {"gradients.proj_dim": 64})


def reward(gold: str, completion: str) -> float:
    """Differs inside a group; that of one prompt never does."""
    return 0.0 if gold == "15" else float(len(completion) % 2)


def settings_of(share_prompt: bool = True, **trainer: Any) -> TrainerSettings:
    """A step of three prompts with four completions each."""
    step = {"steps": 3, "prompts_per_step": 3, "micro_batch": 6, "learning_rate": 3e-3, "save_steps": 100}
    sampled = {"num_generations": 4, "max_new_tokens": 12, "temperature": 0.9, "seed": 7, "stage": "tests"}
    how = {"batch_size": 5, "logprob_chunk": 7, "share_prompt": share_prompt}
    return TrainerSettings(TrainerRecipe(**{**step, **trainer}), **sampled, **how)


def policy_of(model: Path, moved: bool = True) -> Policy:
    """With an adapter that is zero, or moved; a tenth of the vocabulary ends a completion, so that some end."""
    policy = load(model, fresh=True)
    if moved:
        fill(policy.model, 0.05)
    return dataclasses.replace(policy, eos_token_ids=(0, *range(3, 512, 10)))


def flat(policy: Policy, gradients: bool = False) -> torch.Tensor:
    """The trainable weights, or their gradients, as one vector."""
    parameters = policy.lora_parameters.values()
    return torch.cat([(p.grad if gradients else p.detach()).reshape(-1).clone() for p in parameters])


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def train_as_a_stage(
    model: Path, folder: Path, settings: TrainerSettings, reward: Callable[[str, str], float] = reward, **options: Any
) -> Policy:
    """What a stage's training leaves in its folder, with the rows that it keeps and its log."""
    torch.set_num_threads(1)
    policy = policy_of(model)
    with training_rows(RECIPE, settings, policy, SimpleNamespace(path=folder, counts={})) as rows:  # type: ignore[arg-type]
        log = train_lean(policy, PROMPTS, settings, reward, folder, rows=rows, **options)
    write_jsonl(folder / "log.jsonl", log)
    return policy


def train_and_die(model: Path, folder: Path, settings: TrainerSettings, after: int) -> None:
    """A training whose process is killed when a reward is asked for the n-th time."""
    asked = [0]

    def deadly(gold: str, completion: str) -> float:
        asked[0] += 1
        if asked[0] == after:
            os.kill(os.getpid(), signal.SIGKILL)
        return reward(gold, completion)

    train_as_a_stage(model, folder, settings, deadly)
