"""The GRPO gradient of each prompt over the LoRA parameters.

For a prompt with completions o_1 .. o_G and rewards r_g, at the policy that sampled them:

    A_g = (r_g - mean r) / (std r + 1e-4)                                   std with Bessel's correction
    g   = gradient of  -(1/G) sum_g (1/|o_g|) sum_t A_g log pi(o_g,t | prompt, o_g,<t)

with log-probabilities at the sampling temperature.  This is trl's loss_type="grpo" with beta = 0 on
its first iteration: the probability ratio is 1 and no clipping acts.

Differs from LearnAlign in: 1. the gradient is over LoRA parameters, not over all weights.

The prompt is computed once and its completions lie packed behind it (`shared_prompt`), in micro-batches
of at most `token_budget` tokens; logits exist for `logprob_chunk` positions at a time (`log_probs`); each
parameter's gradient is projected and freed as soon as autograd has finished it (`row_hooks`).  Groups without
spread of reward have A = 0, hence g = 0, and are not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import torch

from lean_align.errors import ModelError
from lean_align.gradients.group import (
    Budget,
    BudgetedBackward,
    backward_completions,
    backward_group,
    completion_log_probs,
)
from lean_align.gradients.prompt_sharing import GradientPath, check_log_probs, check_model, gradient_path, path_of
from lean_align.gradients.row_hooks import GradientRow
from lean_align.gradients.settings import GradientSettings
from lean_align.gradients.weights import advantages, completion_weights
from lean_align.memory import Halving
from lean_align.policy import Policy
from lean_align.policy.forward import checkpoint_layers
from lean_align.progress import say
from lean_align.projection import Projector, StreamingProjector
from lean_align.types import Group

__all__ = [
    "Budget",
    "GradientPath",
    "GradientSettings",
    "advantages",
    "backward_completions",
    "backward_group",
    "check_log_probs",
    "check_model",
    "checkpoint_layers",
    "completion_log_probs",
    "completion_weights",
    "gradient_path",
    "path_of",
    "prompt_gradients",
]


def prompt_gradients(
    policy: Policy,
    groups: Iterable[Group],
    project: Projector | None = None,
    settings: GradientSettings = GradientSettings(),
    second_moments: Mapping[str, torch.Tensor] | None = None,
    ordinals: Sequence[int] | None = None,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each prompt's gradient, whole or projected.

    Parameters
    ----------
    policy : Policy
        The policy that sampled the completions, with trainable LoRA parameters.
    groups : iterable of Group
    project : Projector, optional
        When given, projected rows are yielded.
    settings : GradientSettings
    second_moments : mapping of str to tensor, optional
        Of Adam, for each LoRA parameter by name: gradients are divided by their square root plus 1e-8.
    ordinals : sequence of int, optional
        Place of each group with spread among all such groups of the run; 0, 1, ... when not given.  A
        projection that works on several rows at a time puts ordinal o into slot o % batch_rows, so that
        a row does not depend on which others are made in the same call.
    on_halving : callable
        Told when a group ran out of memory and `settings.token_budget` was halved, for it and those that follow: their
        rows are the same but for rounding.

    Yields
    ------
    prompt_id : str
    gradient : (P,) float32, or (proj_dim,) float32
        On the CPU, float64 for a float64 model; zeros where learnability is 0.

    Raises
    ------
    GradientError
        When a LoRA parameter got no gradient, or NaN or Inf; parameter and prompt are named.
    ModelError
        When the policy has no trainable parameters, or its model is not a decoder.
    OutOfMemoryError
        When a single completion does not fit into memory.

    Notes
    -----
    A row is its group's gradient alone: what a parameter's `.grad` holds is set aside while a group is run, and put
    back as it was before the row is yielded.

    Memory besides the model: the activations of one micro-batch, one LoRA matrix's gradient and one row.
    A projection that works on several rows at a time needs 4 * batch_rows * P bytes for them.
    """
    parameters = policy.lora_parameters
    if not parameters:
        raise ModelError("the policy has no trainable parameters; load it with a LoRA recipe or an adapter.")
    streams = isinstance(project, StreamingProjector) and project.batch_rows == 1
    row = GradientRow(parameters, project if streams else None, second_moments)  # type: ignore[arg-type]
    batch = _Batch(project, row) if project is not None and not streams else None
    backward: BudgetedBackward | None = None
    place = iter(ordinals) if ordinals is not None else iter(range(2**62))
    for group in groups:
        if group.learnability == 0:
            if batch is None:
                yield group.prompt.prompt_id, row.zeros().cpu()
            else:
                batch.skip(group.prompt.prompt_id)
            continue
        ordinal = next(place, None)
        if ordinal is None:
            raise ValueError(
                f"got {len(ordinals or ())} ordinals; expected one for each group with a spread of rewards."
            )
        if batch is not None and not batch.takes(ordinal):
            yield from batch.empty()
        if backward is None:
            taken = replace(settings, share_prompt=_shares_prompt(policy, settings.share_prompt))
            backward = BudgetedBackward(policy, row, taken, on_halving)
        backward.run(group)
        row.check(group.prompt.prompt_id)
        if batch is None:
            yield group.prompt.prompt_id, row.row.cpu()
        else:
            batch.put(ordinal, group.prompt.prompt_id, row.row)
    if batch is not None:
        yield from batch.empty()


def _shares_prompt(policy: Policy, wanted: bool) -> bool:
    path = path_of(policy, wanted)
    if wanted and not path.shares_prompt:
        say(f"gradients: the prompt is computed again for each completion; {path.reason}")
    return path.shares_prompt


class _Batch:
    """Whole gradients that wait to be projected together, each in the slot of its ordinal."""

    def __init__(self, project: Projector, row: GradientRow) -> None:
        self.project = project
        self.gradients = torch.zeros(project.batch_rows, row.grad_dim, dtype=row.dtype, device=row.device)
        self.waiting: list[tuple[str, int | None]] = []
        self.number: int | None = None

    def takes(self, ordinal: int) -> bool:
        return self.number in (None, ordinal // self.project.batch_rows)

    def put(self, ordinal: int, prompt_id: str, gradient: torch.Tensor) -> None:
        self.number, slot = divmod(ordinal, self.project.batch_rows)
        self.gradients[slot] = gradient
        self.waiting.append((prompt_id, slot))

    def skip(self, prompt_id: str) -> None:
        self.waiting.append((prompt_id, None))

    def empty(self) -> Iterator[tuple[str, torch.Tensor]]:
        rows = self.project.project(self.gradients).cpu() if self.number is not None else None
        for prompt_id, slot in self.waiting:
            nothing = torch.zeros(self.project.proj_dim, dtype=self.gradients.dtype)
            yield prompt_id, nothing if slot is None or rows is None else rows[slot].clone()
        self.gradients.zero_()
        self.waiting, self.number = [], None
