"""A step of a training on a policy without numbers: what a plan counts the bytes of.

lean takes the gradient of one group after another, by the very code that runs here.

trl samples all completions of a step in one batch, then takes the loss in micro-batches with the logits of every
completion token.  Its own function computes the log-probabilities here; sampling and the loss are written out, since
they read values.
"""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from transformers.cache_utils import DynamicCache

from lean_align.gradients import GradientSettings, backward_completions, checkpoint_layers, completion_log_probs
from lean_align.grpo.losses import GroupLoss
from lean_align.policy import Policy
from lean_align.policy.families import family_of
from lean_align.projection import Projector, project_parts
from lean_align.rollouts.equal_lengths import cache_arguments, new_cache, skip_to
from lean_align.types import Completion, Prompt


def rehearse_group(
    policy: Policy,
    n_completions: int,
    completion_tokens: int,
    settings: GradientSettings,
    beta: float = 0.0,
    checkpointing: bool = False,
    project: Projector | None = None,
) -> None:
    """One group's gradient as lean takes it, every completion at its longest and with an advantage.

    Parameters
    ----------
    policy : Policy
        On torch's `meta` device; its encoder gives the prompt's length.
    n_completions, completion_tokens : int
    settings : GradientSettings
    beta : float
        Above 0 the log-probabilities of the initial policy are at hand.
    checkpointing : bool
    project : Projector, optional
        On the same device; the gradient is also projected, as `keep_rows` asks for.
    """
    if checkpointing:
        checkpoint_layers(policy)
    completions = _completions(n_completions, completion_tokens)
    n_tokens = n_completions * completion_tokens
    weights = torch.empty(2, n_tokens, dtype=torch.float64, device=policy.device)
    reference = torch.empty(n_tokens, device=policy.device) if beta > 0 else None
    loss = GroupLoss(completions, weights[0], weights[1], 0.2, beta, reference)
    prompt_ids = policy.encoder.encode(_PROMPT)
    backward_completions(policy, prompt_ids, completions, loss, settings, loss.add_entropies)
    if project is not None:
        gradients = {name: p.grad for name, p in policy.lora_parameters.items() if p.grad is not None}
        project_parts(project, {name: n_completions * part for name, part in gradients.items()})


def rehearse_reference(policy: Policy, n_completions: int, completion_tokens: int, settings: GradientSettings) -> None:
    """The initial policy's log-probabilities of the same group."""
    completions, ids = _completions(n_completions, completion_tokens), policy.encoder.encode(_PROMPT)
    how = settings.temperature, settings.share_prompt, settings.logprob_chunk, settings.token_budget
    completion_log_probs(policy, ids, completions, *how)


_PROMPT = Prompt("planned", "", "")


def _completions(n: int, tokens: int) -> tuple[Completion, ...]:
    return tuple(Completion("planned", i, "", (0,) * tokens, tokens, float(i % 2), True) for i in range(n))


def rehearse_sampling(
    policy: Policy, rows: int, prompt_tokens: int, max_new_tokens: int, after_prompts: Callable[[], None]
) -> None:
    """`generate` on all completions of a step: the prompts, then one token with every row at its longest.

    Parameters
    ----------
    policy : Policy
        On torch's `meta` device.
    rows : int
        Completions of a step.
    prompt_tokens, max_new_tokens : int
    after_prompts : callable
        Called between the two.
    """
    cache = new_cache(policy.causal_lm)
    with torch.no_grad():
        _draw(_forward(policy, rows, prompt_tokens, prompt_tokens, cache))
        after_prompts()
        skip_to(cache, prompt_tokens + max_new_tokens - 1)
        _draw(_forward(policy, rows, 1, prompt_tokens + max_new_tokens, cache))


def rehearse_loss(
    policy: Policy,
    rows: int,
    prompt_tokens: int,
    max_new_tokens: int,
    checkpointing: bool,
    epsilon: float,
    autocast: bool,
) -> None:
    """One micro-batch forward and backward, alongside the moments of Adam and the gradients of the one before.

    Parameters
    ----------
    policy : Policy
        On torch's `meta` device; left in training mode.
    rows : int
        Completions of a micro-batch.
    prompt_tokens, max_new_tokens : int
    checkpointing : bool
    epsilon : float
        Of the clipped ratio.
    autocast : bool
        Mixed precision, as on a card: accelerate then turns all logits into float32.
    """
    from trl import GRPOTrainer

    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.train()
    held = [torch.empty_like(p) for p in policy.lora_parameters.values() for _ in ("exp_avg", "exp_avg_sq")]
    for parameter in policy.lora_parameters.values():
        parameter.grad = torch.empty_like(parameter)
    ids = torch.zeros(rows, prompt_tokens + max_new_tokens, dtype=torch.int64, device=policy.device)

    def model(**inputs: Any) -> Any:
        output = policy.model(**inputs)
        return SimpleNamespace(logits=output.logits.float()) if autocast else output

    settings: Any = SimpleNamespace(temperature=1.0, model_kwarg_keys=("logits_to_keep",), _entropy_bonus_enabled=False)
    log_probs, _, _ = GRPOTrainer._full_logits_logps(
        settings, model, ids, torch.ones_like(ids), max_new_tokens, compute_entropy=True
    )
    ratio = torch.exp(log_probs - log_probs.detach())
    torch.autograd.backward(torch.min(ratio, ratio.clamp(1 - epsilon, 1 + epsilon)).mean())
    del held


def _forward(policy: Policy, rows: int, tokens: int, width: int, cache: DynamicCache) -> torch.Tensor:
    output: Any = policy.model(
        input_ids=torch.zeros(rows, tokens, dtype=torch.int64, device=policy.device),
        attention_mask=torch.ones(rows, width, dtype=torch.int64, device=policy.device),
        **cache_arguments(family_of(policy.causal_lm.config), cache),
    )
    logits: torch.Tensor = output.logits
    return logits


def _draw(logits: torch.Tensor) -> None:
    """What `generate` makes of the last logits: a float32 copy, the tempered ones, and their probabilities."""
    scores = logits[:, -1].to(copy=True, dtype=torch.float32)
    torch.softmax(scores / 1.0, dim=-1)
