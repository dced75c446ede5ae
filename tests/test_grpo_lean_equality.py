"""Lean against trl 1.14.2 on the same completions: losses, gradients, learning rates and weights, step by step.

Lean trains first; what its engine samples is then what trl's trainer finds sampled.  Both begin with the same weights.
"""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from lean_training import PROMPTS, flat, policy_of, relative_error, reward, settings_of
from small_models import save_model
from torch.optim.optimizer import register_optimizer_step_pre_hook

from lean_align.gradients import GradientSettings, advantages
from lean_align.grpo import Sampler, TrainerSettings, lean, losses, train_grpo, train_lean, training
from lean_align.grpo.optimiser import make_optimizer
from lean_align.grpo.reference import InitialPolicy
from lean_align.policy import Policy
from lean_align.rollouts import TransformersEngine

TOLERANCE = 1e-4
REUSE: dict[str, Any] = {"num_iterations": 3, "learning_rate": 1e-3, "epsilon": 0.02}
LOGGED = (*training.OF_SAMPLING, "loss", "grad_norm", "learning_rate")
OVER_TOKENS = ("entropy", "kl", "share_clipped")
"""Means over tokens: the same where trl has one micro-batch, and lean runs every completion for its KL term."""


@dataclass
class Trained:
    """A training's log, the gradients that its optimiser was given, and what became of the weights."""

    log: list[dict[str, float]]
    gradients: list[torch.Tensor]
    start: torch.Tensor
    weights: torch.Tensor


class Recorder(TransformersEngine):
    """Keeps what it samples: for each call the prompts' token ids and the completions'."""

    def sample(self, prompts, sampling, advance=lambda n: None):
        found = super().sample(prompts, sampling, advance)
        self.__dict__.setdefault("taken", []).append(([self.encoder.encode(p) for p in prompts], found))
        return found


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("model") / "llama")


@pytest.fixture(scope="module", autouse=True)
def quick():
    """One thread for matrices as small as these; and accelerate collects garbage after each training."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
    torch.set_num_threads(before)


def trained(policy: Policy, train) -> Trained:
    gradients, start = [], flat(policy)
    hook = register_optimizer_step_pre_hook(lambda *arguments: gradients.append(flat(policy, gradients=True)))
    try:
        log = train()
    finally:
        hook.remove()
    return Trained(log, gradients, start, flat(policy))


def both(model, settings: TrainerSettings, folder, monkeypatch, moved: bool = True) -> tuple[Trained, Trained]:
    """Lean's training, and trl's on its completions."""
    import trl

    monkeypatch.setitem(training.LOGGED, "clip_ratio/region_mean", "share_clipped")
    policy = policy_of(model, moved)
    engine = Recorder(policy)
    ours = trained(policy, lambda: train_lean(policy, PROMPTS, settings, reward, folder / "lean", Sampler(engine)))
    waiting = iter(engine.taken)

    def given(trainer, prompt_ids, images, fields, num_generations):
        prompts, completions = next(waiting)
        assert prompt_ids == [ids for ids in prompts for _ in range(num_generations)]
        return [list(ids) for group in completions for ids in group], None

    monkeypatch.setattr(trl.GRPOTrainer, "_generate_single_turn", given)
    monkeypatch.setattr("trl.trainer.grpo_trainer.shuffle_sequence_dict", lambda batch: batch)
    other = policy_of(model, moved)
    theirs = trained(other, lambda: train_grpo(other, PROMPTS, settings, reward, folder / "trl"))
    assert next(waiting, None) is None
    return ours, theirs


def differences(ours: Trained, theirs: Trained, over_tokens: bool = False) -> list[str]:
    """In what two trainings differ."""
    found = []
    if not torch.equal(ours.start, theirs.start):
        found.append("start")
    for step, (one, other) in enumerate(zip(ours.gradients, theirs.gradients, strict=True)):
        if relative_error(one, other) > TOLERANCE:
            found.append(f"gradient {step}: {relative_error(one, other):.2g}")
    if relative_error(ours.weights, theirs.weights) > TOLERANCE:
        found.append(f"weights: {relative_error(ours.weights, theirs.weights):.2g}")
    for step, (one, other) in enumerate(zip(ours.log, theirs.log, strict=True)):
        names = [*LOGGED, *(name for name in OVER_TOKENS if over_tokens and name in one)]
        found += [
            f"{name} {step}: {one[name]} {other[name]}"
            for name in names
            if one[name] != pytest.approx(other[name], rel=2e-4, abs=2e-6)
        ]
    return found


LOSSES = ("grpo", "dr_grpo", "dapo", "bnpo")
EQUAL: dict[str, dict[str, Any]] = {
    **{loss: {"loss": loss} for loss in LOSSES},
    **{f"{loss}, KL": {"loss": loss, "beta": 0.3} for loss in LOSSES},
    **{f"{loss}, masked": {"loss": loss, "mask_truncated": True} for loss in LOSSES},
    **{f"{loss}, reused": {"loss": loss} | REUSE for loss in LOSSES},
    **{f"{loss}, reused, KL, masked": {"loss": loss, "beta": 0.1, "mask_truncated": True} | REUSE for loss in LOSSES},
    "new adapter": {"moved": False},
    "new adapter, KL": {"moved": False, "beta": 0.3},
    "new adapter, reused, KL": {"moved": False, "beta": 0.1} | REUSE,
    "used twice": REUSE | {"num_iterations": 2},
    "used twice, not a multiple of the checkpoints": {"num_iterations": 2, "save_steps": 1},
    "one micro-batch, KL": {"beta": 0.3, "micro_batch": 12},
    "one micro-batch, reused, KL": {"beta": 0.1, "micro_batch": 12} | REUSE,
    "a completion at a time": {"micro_batch": 1, "token_budget": 1, "beta": 0.1, "loss": "bnpo"},
    "prompts not shared": {"share_prompt": False, "token_budget": 300, "beta": 0.1} | REUSE,
    "checkpointing": {"gradient_checkpointing": True, "beta": 0.1},
    "linear": {"lr_scheduler": "linear", "lr_warmup_steps": 1, "steps": 4},
    "cosine": {"lr_scheduler": "cosine", "lr_warmup_steps": 2, "steps": 4},
    "constant after a warm-up": {"lr_scheduler": "constant", "lr_warmup_steps": 2},
    "weight decay": {"weight_decay": 1.0},
    "clipped gradients": {"max_grad_norm": 0.1},
    "gradients not clipped": {"max_grad_norm": 0.0},
}
"""What a recipe asks for, and whether the adapter has been moved before the training."""


@pytest.mark.parametrize("name", EQUAL)
def test_lean_trains_as_trl_does(model, tmp_path, monkeypatch, name):
    case = {"moved": True, **EQUAL[name]}
    moved = case.pop("moved")
    ours, theirs = both(model, settings_of(**case), tmp_path, monkeypatch, moved)
    assert differences(ours, theirs, "one micro-batch" in name) == []
    assert any(0 < row["share_truncated"] < 1 for row in ours.log)
    assert any(0 < row["share_zero_spread"] < 1 for row in ours.log)
    if case.get("num_iterations", 1) > 1 and case.get("epsilon"):
        assert max(row["share_clipped"] for row in ours.log) > 0.05
    if name == "clipped gradients":
        assert all(row["grad_norm"] > 0.1 for row in ours.log)
        assert [part.norm().item() for part in ours.gradients] == pytest.approx([0.1] * 3, rel=1e-4)


def without_lengths(groups, settings):
    """A completion's loss is the sum over its tokens."""
    each = 1 / sum(len(group.completions) for group in groups)
    return [[each for _ in group.completions] for group in groups]


def with_other(key: str, value: Any):
    """Shares of a recipe with another value."""
    return lambda groups, settings: losses.token_shares(groups, settings.with_trainer(**{key: value}))


class AlwaysBase(InitialPolicy):
    """Takes the base for the initial policy, wherever the adapter began."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.is_base = True


class FromTheStepBefore(losses.GroupLoss):
    """Its ratios are to the policy of the step before, where they should be to the one that sampled."""

    def keep_as_old(self):
        self.old = torch.cat(self.seen)


class WithoutClipping(losses.GroupLoss):
    """Its ratios are not clipped."""

    def __call__(self, log_probs, places):
        self.epsilon = 1e9
        return super().__call__(log_probs, places)


class SpreadOverG(losses.GroupLoss):
    """Its spread of rewards is over G, where it should be over G - 1."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.advantage = self.advantage * (4 / 3) ** 0.5


class PlainKl(losses.GroupLoss):
    """Its KL term is not corrected by the ratio."""

    def __call__(self, log_probs, places):
        apart, ratio = self.reference[places] - log_probs, torch.exp(log_probs - log_probs.detach())
        term = self.beta * (1 - ratio) * (torch.exp(apart) - apart - 1) * self.share[places].float()
        return super().__call__(log_probs, places) + term.sum()


def without_decay(policy, trainer):
    return make_optimizer(policy, dataclasses.replace(trainer, weight_decay=0.0))


def longer_warmup(policy, trainer):
    return make_optimizer(policy, dataclasses.replace(trainer, lr_warmup_steps=trainer.lr_warmup_steps + 1))


FAULTS: dict[str, tuple[str, Any, str, Any]] = {
    # a case, the module, what is replaced in it, and by what
    "no lengths": ("grpo", lean, "token_shares", without_lengths),
    "dapo for bnpo": ("bnpo", lean, "token_shares", with_other("loss", "dapo")),
    "grpo for dapo": ("dapo", lean, "token_shares", with_other("loss", "grpo")),
    "masked ones count": ("dapo, masked", lean, "token_shares", with_other("mask_truncated", False)),
    "scaled by the spread": ("dr_grpo", losses, "advantages", lambda rewards, scale: advantages(rewards)),
    "spread over G": ("grpo", losses, "GroupLoss", SpreadOverG),
    "KL not corrected": ("grpo, KL", losses, "GroupLoss", PlainKl),
    "KL to the base": ("grpo, KL", lean, "InitialPolicy", AlwaysBase),
    "ratio to the step before": ("grpo, reused", losses, "GroupLoss", FromTheStepBefore),
    "not clipped": ("grpo, reused", losses, "GroupLoss", WithoutClipping),
    "no temperature": ("grpo", TrainerSettings, "passes", property(lambda settings: GradientSettings(logprob_chunk=7))),
    "no decay": ("weight decay", lean, "make_optimizer", without_decay),
    "gradients not clipped": ("clipped gradients", torch.nn.utils, "clip_grads_with_norm_", lambda *arguments: None),
    "schedule too late": ("linear", lean, "make_optimizer", longer_warmup),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_comparison_sees_a_fault(model, tmp_path, monkeypatch, fault):
    case, module, name, planted = FAULTS[fault]
    monkeypatch.setattr(module, name, planted)
    ours, theirs = both(model, settings_of(**EQUAL[case]), tmp_path, monkeypatch)
    assert differences(ours, theirs)
