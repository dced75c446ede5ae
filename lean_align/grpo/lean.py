"""GRPO by the project's own engine: the pass that scores a prompt is the pass that trains on it.

A step samples its groups with the run's engine, verifies them, and takes each group's gradient as the gradient stage
does: the prompt once for its completions, which lie packed behind it, logits of some positions at a time.  The sum is
clipped and given to AdamW.  Groups whose gradient is 0 are not run.

Differs from trl's GRPOTrainer in: 1. completions come from the decode loop (or vLLM), each with noise of its own, in
place of `generate`, so that they are others of the same distribution; 2. no padding, and no logits of whole rows;
3. adapter weights and their gradients in float32, without autocast; 4. a step may refill (`training.refill`);
5. a training that is killed and resumed is an uninterrupted one, byte for byte; 6. entropy and KL are means over the
tokens that are run; 7. prompts may be drawn while it runs (`lean_align.online`).

Losses, advantages, clipping, weight decay and schedules are trl's (`losses`, `optimiser`).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.errors import StageError
from lean_align.gradients import (
    Budget,
    GradientSettings,
    backward_completions,
    check_model,
    checkpoint_layers,
    completion_log_probs,
)
from lean_align.grpo.checkpoints import drop_checkpoints, last_checkpoint, read_checkpoint, save_checkpoint, steps_of
from lean_align.grpo.drawing import StepGroups, StepSampler
from lean_align.grpo.drawn_series import DrawnSeries
from lean_align.grpo.kept_adapters import keep_adapter
from lean_align.grpo.losses import GroupLoss, group_loss, token_shares
from lean_align.grpo.moments import write_second_moments
from lean_align.grpo.optimiser import make_optimizer
from lean_align.grpo.order import PromptSeries
from lean_align.grpo.reference import InitialPolicy
from lean_align.grpo.rewards import REWARDS, TRAINED_TOKENS, RewardLog
from lean_align.grpo.settings import TrainerSettings
from lean_align.grpo.training import what_moves
from lean_align.memory import Halving
from lean_align.online import OnlineSelector
from lean_align.policy import Policy, save_adapter
from lean_align.progress import Progress, say
from lean_align.rollouts import Engine, Reward, TransformersEngine
from lean_align.types import Group, Prompt

LogRow = dict[str, float]
ONLINE = "online"
"""Folder of the state that an online selection ends with."""


class RowKeeper(Protocol):
    """Takes each group's gradient as it passes."""

    def keep(self, step: int, place: int, gradients: dict[str, torch.Tensor]) -> int:
        """Keep the gradient of the group at `place` of a step, counted from 0; returns the number of its row."""
        ...

    def unit_row(self, number: int) -> NDArray[np.float16]:
        """A row that was kept, of length 1."""
        ...

    def end_step(self, step: int) -> None:
        """The step has no further groups."""
        ...


@dataclass(frozen=True)
class Sampler:
    """What completions are drawn with, and whose they are.

    Attributes
    ----------
    engine : Engine or None
        The decode loop on the policy itself where there is none.
    follow : callable
        Told the step, counted from 0, before its completions are drawn: the engine then has the policy's weights.
    online : OnlineSelector or None
        Of the training's prompts in their order; draws each step's, and is told how they went.  Changed in place.
        Prompts are cycled through where there is none.
    """

    engine: Engine | None = None
    follow: Callable[[int], None] = lambda step: None
    online: OnlineSelector | None = None


def train_lean(
    policy: Policy,
    prompts: Sequence[Prompt],
    settings: TrainerSettings,
    reward: Reward,
    folder: Path,
    sampler: Sampler = Sampler(),
    on_halving: Callable[[Halving], None] = lambda halving: None,
    rows: RowKeeper | None = None,
) -> list[LogRow]:
    """Train the policy's adapter, continuing from the last whole checkpoint, and save it.

    Parameters
    ----------
    policy : Policy
        With trainable LoRA parameters; changed in place.
    prompts : sequence of Prompt
        Cycled through until the steps are done, or drawn from by `online`.
    settings : TrainerSettings
    reward : callable
        (gold, completion) -> 0.0 or 1.0.
    folder : Path
        Gets `adapter/`, `rewards.jsonl`, `second_moments.safetensors` from an Adam in full precision, `at_steps/` with
        the adapters of the settings' `kept_steps`, and `online/`, the state that an online selection ends with; holds
        `checkpoints/` meanwhile.
    sampler : Sampler
    on_halving : callable
        Told when memory ran out and `token_budget` or `sampling_batch` was halved, from there on.
    rows : RowKeeper, optional
        Given each group's gradient, as of a mean over its completions alone.

    Returns
    -------
    list of dict
        One row a step: step, reward, reward_std, share_zero_spread, share_truncated, mean_tokens, loss, grad_norm,
        ...

    Raises
    ------
    StageError
        When a gradient is NaN or infinite.
    DataError
        When the checkpoint's state of the online selection is of another run, pool or projection.
    ModelError
        When the model's completions cannot be decoded, or its gradients not be taken.
    OutOfMemoryError
        When a single completion does not fit.  Checkpoints are kept.
    """
    training = _Training(policy, prompts, settings, reward, folder, sampler, on_halving, rows)
    with training.progress:
        while training.steps_done < settings.trainer.steps:
            training.take_step()
    training.finish()
    return training.log


class _Training:
    """State of a training between its steps."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        settings: TrainerSettings,
        reward: Reward,
        folder: Path,
        sampler: Sampler,
        on_halving: Callable[[Halving], None],
        rows: RowKeeper | None,
    ) -> None:
        trainer = settings.trainer
        self.policy, self.settings, self.trainer, self.folder, self.rows = policy, settings, trainer, folder, rows
        self.sampler = sampler
        self.online = None if sampler.online is None else DrawnSeries(prompts, sampler.online)
        series = self.online or PromptSeries(prompts, settings.seed, settings.stage)
        engine = sampler.engine or TransformersEngine(policy)
        self.draws = StepSampler(engine, series, settings, reward, on_halving)
        self.parameters = policy.lora_parameters
        self.optimizer, self.scheduler = make_optimizer(policy, trainer)
        self.checkpoints = folder / "checkpoints"
        self.steps_done, self.drawn, self.log = 0, 0, list[LogRow]()
        initial = self._restore()
        self.initial = InitialPolicy(policy, initial) if trainer.beta > 0 else None
        self.rewards = RewardLog(folder / REWARDS, settings.num_generations, self.steps_done)
        path = check_model(policy, settings.share_prompt, f"set {settings.section}.backend=trl")
        if settings.share_prompt and not path.shares_prompt:
            say(f"{settings.stage}: the prompt is computed again for each completion; {path.reason}")
        passes = replace(settings.passes, share_prompt=path.shares_prompt)
        self.budget = Budget(passes, on_halving, settings.section)
        self.progress = Progress(settings.stage, trainer.steps, self.steps_done, 0.0)
        self.step_groups = StepGroups((), (), 0)
        self.losses: dict[int, GroupLoss] = {}
        self.kept_rows: dict[int, NDArray[np.float16]] = {}
        self.drawn_facts: LogRow = {}

    def take_step(self) -> None:
        """One step of the optimiser, on new completions or on those of the step before."""
        step, fresh = self.steps_done, self.steps_done % self.trainer.num_iterations == 0
        self.rewards.begin_step()
        if fresh:
            self._draw(step)
        gradient = self._gradient(step if fresh and self.rows is not None else None)
        row = self._metrics() | self._apply(gradient)
        if fresh and self.online is not None:
            self.online.observe(step, self.step_groups.groups, self.kept_rows)
        self.steps_done += 1
        self.log.append({"step": self.steps_done, **row})
        self.rewards.end_step(self.steps_done)
        keep_adapter(self.policy.model, self.folder, self.steps_done, self.settings.kept_steps)
        if self._checkpoint_is_due():
            self._save()
        self.progress.advance(1, what_moves(self.log[-1]))

    def finish(self) -> None:
        """Write what a training leaves, and drop its checkpoints."""
        save_adapter(self.policy.model, self.folder / "adapter")
        write_second_moments(self.policy, self.optimizer, self.folder)
        if self.online is not None:
            self.online.selector.save(self.folder / ONLINE)
        drop_checkpoints(self.checkpoints)

    def _draw(self, step: int) -> None:
        self.sampler.follow(step)
        if self.online is not None:
            self.online.begin(step)
        found = self.draws.draw(step, 0 if self.online is not None else self.drawn)
        self.drawn_facts = {} if self.online is None else self.online.facts(len(found.groups))
        self.drawn += len(found.groups)
        self.step_groups = found
        groups = [found.groups[i] for i in found.counted]
        for place, group in enumerate(found.groups):
            kept = place in found.counted if self.trainer.refill else None
            self.rewards.add_group(group, kept)
        self.losses, self.kept_rows = {}, {}
        for place, (group, shares) in enumerate(zip(groups, token_shares(groups, self.settings))):
            loss = group_loss(group, shares, self.settings, self.policy.device)
            if loss is not None:
                self.losses[place] = loss
                if self.initial is not None:
                    loss.reference = self._reference(group, loss)

    def _reference(self, group: Group, loss: GroupLoss) -> torch.Tensor:
        ids = self.policy.encoder.encode(group.prompt)
        assert self.initial is not None  # where there is a KL term

        def work(settings: GradientSettings) -> torch.Tensor:
            budget, shared = settings.token_budget, settings.share_prompt
            return completion_log_probs(
                self.policy, ids, loss.completions, settings.temperature, shared, settings.logprob_chunk, budget
            )[0]

        with self.initial.in_place():
            return self.budget.within(work, group.prompt.prompt_id, ids, loss.completions)

    def _gradient(self, step_of_rows: int | None) -> dict[str, torch.Tensor]:
        """The step's gradient by parameter: the sum over its groups, one after the other."""
        total: dict[str, torch.Tensor] = {}
        if self.trainer.gradient_checkpointing:
            checkpoint_layers(self.policy, self.settings.section)
        for place, loss in self.losses.items():
            gradient = self._group_gradient(self.step_groups.groups[self.step_groups.counted[place]], loss)
            if step_of_rows is not None and self.rows is not None:
                self._refuse_unless_finite(torch.nn.utils.get_total_norm(list(gradient.values())))
                n, nothing = len(self.step_groups.counted), torch.zeros((), device=self.policy.device)
                whole = {name: n * gradient.get(name, nothing.expand_as(p)) for name, p in self.parameters.items()}
                row = self.rows.keep(step_of_rows, place, whole)
                self.rewards.note_row(self.step_groups.counted[place], row)
                if self.online is not None and self.online.selector.direction is not None:
                    self.kept_rows[self.step_groups.counted[place]] = self.rows.unit_row(row)
            _add(total, gradient)
            loss.keep_as_old()
        if step_of_rows is not None and self.rows is not None:
            self.rows.end_step(step_of_rows)
        return total

    def _group_gradient(self, group: Group, loss: GroupLoss) -> dict[str, torch.Tensor]:
        ids = self.policy.encoder.encode(group.prompt)

        def work(settings: GradientSettings) -> None:
            loss.begin()
            self.optimizer.zero_grad()
            backward_completions(self.policy, ids, loss.completions, loss, settings, loss.add_entropies)

        self.budget.within(work, group.prompt.prompt_id, ids, loss.completions)
        found = {name: p.grad for name, p in self.parameters.items() if p.grad is not None}
        self.optimizer.zero_grad()
        return found

    def _apply(self, gradient: dict[str, torch.Tensor]) -> LogRow:
        for name, parameter in self.parameters.items():
            # what no completion of the step has reached, such as an expert, stays as it is; a step of which no group is
            # run is one of gradient 0
            parameter.grad = gradient.get(name) if gradient else torch.zeros_like(parameter)
        norm = torch.nn.utils.get_total_norm([p.grad for p in self.parameters.values() if p.grad is not None])
        self._refuse_unless_finite(norm)
        if self.trainer.max_grad_norm > 0:
            torch.nn.utils.clip_grads_with_norm_(self.parameters.values(), self.trainer.max_grad_norm, norm)
        rate = self.scheduler.get_last_lr()[0]
        self.optimizer.step()
        self.scheduler.step()
        self.optimizer.zero_grad()
        return {"grad_norm": float(norm), "learning_rate": float(rate)}

    def _refuse_unless_finite(self, norm: torch.Tensor) -> None:
        if not torch.isfinite(norm):
            raise StageError(
                f"{self.settings.stage}: the gradient of step {self.steps_done + 1} holds NaN or infinite numbers. "
                f"Checkpoints are kept. Lower {self.settings.section}.learning_rate, or set model.dtype=float32."
            )

    def _metrics(self) -> LogRow:
        found, losses = self.step_groups, list(self.losses.values())
        rewards = np.array([group.rewards for group in found.groups])
        trained = sum(len(loss.share) for loss in losses)
        tokens = max(1, trained)
        row = {
            "reward": float(rewards.mean()),
            "reward_std": float(rewards.std(ddof=1)),
            "share_zero_spread": float(np.mean([len(set(group.rewards)) == 1 for group in found.groups])),
            "share_truncated": float(np.mean([not c.finished for c in found.completions])),
            "mean_tokens": float(np.mean([c.n_tokens for c in found.completions])),
            "loss": math.fsum(float(loss.loss) for loss in losses),
            TRAINED_TOKENS: trained,
        }
        if losses:
            row["entropy"] = sum(float(loss.entropy) for loss in losses) / tokens
        if self.trainer.beta > 0:
            row["kl"] = sum(float(loss.kl) for loss in losses) / tokens
        if self.trainer.num_iterations > 1:
            row["share_clipped"] = sum(float(loss.clipped) for loss in losses) / tokens
        if self.trainer.refill:
            row["refilled"] = found.refilled
        return row | self.drawn_facts

    def _checkpoint_is_due(self) -> bool:
        """At each multiple of save_steps, or where the completions of that step are used up."""
        every, reuse, done = self.trainer.save_steps, self.trainer.num_iterations, self.steps_done
        return done % reuse == 0 and done < self.trainer.steps and done // every > (done - reuse) // every

    def _save(self) -> None:
        state: dict[str, Any] = {
            "drawn": self.drawn,
            "log": self.log,
            "adapter": {name: p.detach() for name, p in self.parameters.items()},
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
        }
        if self.initial is not None:
            state["initial"] = self.initial.weights
        if self.online is not None:
            state["online"] = self.online.state()
        save_checkpoint(self.checkpoints, self.steps_done, state)

    def _restore(self) -> dict[str, torch.Tensor] | None:
        """Go on from the last whole checkpoint; the adapter's weights at the start, where they are needed."""
        checkpoint = last_checkpoint(self.checkpoints)
        if checkpoint is None:
            return None
        state = read_checkpoint(checkpoint)
        with torch.no_grad():
            for name, parameter in self.parameters.items():
                parameter.copy_(state["adapter"][name])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.steps_done, self.drawn, self.log = steps_of(checkpoint), state["drawn"], state["log"]
        if self.online is not None:
            if "online" not in state:
                raise StageError(f"{checkpoint} has no state of an online selection. {made_anew(self.folder)}")
            self.online.restore(state["online"], str(checkpoint))
        found: dict[str, torch.Tensor] | None = state.get("initial")
        return found


def _add(total: dict[str, torch.Tensor], gradient: dict[str, torch.Tensor]) -> None:
    """Move a gradient into a sum.  It is left empty, so that it does not lie beside the sum in the next pass."""
    while gradient:
        name, part = gradient.popitem()
        total[name] = part if name not in total else total[name].add_(part)
