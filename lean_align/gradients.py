"""The GRPO gradient of each prompt over the LoRA parameters.

For a prompt with completions o_1 .. o_G and rewards r_g, at the policy that sampled them:

    A_g = (r_g - mean r) / (std r + 1e-4)                                   std with Bessel's correction
    g   = gradient of  -(1/G) sum_g (1/|o_g|) sum_t A_g log pi(o_g,t | prompt, o_g,<t)

with log-probabilities at the sampling temperature.  This is trl's loss_type="grpo" with beta = 0 on
its first iteration: the probability ratio is 1 and no clipping acts.

Differs from LearnAlign in: 1. the gradient is over LoRA parameters, not over all weights.

A group is one vector: its completions run in micro-batches of at most `token_budget` padded tokens and
add up in `.grad`, which is then read and freed parameter by parameter.  The backbone gives hidden
states; logits exist for `logprob_chunk` positions at a time and are computed again in the backward pass.
Groups without spread of reward have A = 0, hence g = 0, and are not run.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Protocol

import torch
from torch.utils.checkpoint import checkpoint

from lean_align.errors import GradientError, ModelError
from lean_align.policy import Policy
from lean_align.types import Completion, Group

ADVANTAGE_EPSILON = 1e-4


class Projector(Protocol):
    """What `prompt_gradients` needs of a projection; see `lean_align.projection`."""

    proj_dim: int

    def add_to(self, row: torch.Tensor, name: str, gradient: torch.Tensor) -> None:
        """Add the projection of one parameter's gradient to `row`."""


def advantages(rewards: Sequence[float]) -> torch.Tensor:
    """Group-relative advantages, (G,) float64: (r - mean) / (std + 1e-4), std over G - 1."""
    r = torch.tensor(rewards, dtype=torch.float64)
    return (r - r.mean()) / (r.std() + ADVANTAGE_EPSILON)


def prompt_gradients(
    policy: Policy,
    groups: Iterable[Group],
    project: Projector | None = None,
    temperature: float = 1.0,
    token_budget: int = 4096,
    logprob_chunk: int = 1024,
) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield each prompt's gradient, whole or projected.

    Parameters
    ----------
    policy : Policy
        The policy that sampled the completions, with trainable LoRA parameters.
    groups : iterable of Group
    project : Projector, optional
        When given, projected rows are yielded.
    temperature : float
        Sampling temperature.
    token_budget : int
        Padded tokens a forward and backward pass.
    logprob_chunk : int
        Positions whose logits exist at the same time: 4 * logprob_chunk * vocabulary bytes.

    Yields
    ------
    prompt_id : str
    gradient : (P,) float32, or (proj_dim,) float32
        On the CPU; zeros where learnability is 0.

    Raises
    ------
    GradientError
        When a LoRA parameter got no gradient, or NaN or Inf; parameter and prompt are named.

    Notes
    -----
    Memory beside the model: the activations of one micro-batch, the LoRA gradients (4 P bytes), and
    one row.
    """
    parameters = policy.lora_parameters
    if not parameters:
        raise ModelError("the policy has no trainable parameters; load it with a LoRA recipe or an adapter.")
    for group in groups:
        if group.learnability > 0:
            _backward(policy, group, temperature, token_budget, logprob_chunk)
        yield group.prompt.prompt_id, _collect(parameters, group, project, policy.device)


def completion_log_probs(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    temperature: float = 1.0,
    logprob_chunk: int = 1024,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the sampled tokens of several completions of one prompt.

    Parameters
    ----------
    policy : Policy
    prompt_ids : sequence of int
    completions : sequence of Completion
    temperature : float
    logprob_chunk : int
        Positions whose logits exist at the same time.

    Returns
    -------
    log_probs : (total completion tokens,) float32
    row : (total completion tokens,) int64
        Which completion each token belongs to.
    """
    rows = [[*prompt_ids, *completion.token_ids] for completion in completions]
    width, start = max(map(len, rows)), len(prompt_ids)
    ids = torch.tensor([row + [policy.pad_token_id] * (width - len(row)) for row in rows], device=policy.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=policy.device)
    backbone, head = policy.causal_lm.base_model, policy.causal_lm.get_output_embeddings()
    hidden = backbone(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    chosen = mask[:, start:].bool()  # position t of a row predicts token t + 1
    states, targets = hidden[:, start - 1 : -1][chosen], ids[:, start:][chosen]
    row = torch.arange(len(rows), device=policy.device)[:, None].expand_as(chosen)[chosen]
    pieces = [
        checkpoint(_token_log_probs, head, s, t, temperature, use_reentrant=False)
        for s, t in zip(torch.split(states, logprob_chunk), torch.split(targets, logprob_chunk))
    ]
    return torch.cat(pieces), row


def check_log_probs(policy: Policy, group: Group, tolerance: float = 0.02) -> None:
    """Refuse a model whose output layer does more than a linear map (soft-capping, scaling).

    Raises
    ------
    ModelError
        When backbone and output layer, as used here, disagree with the model's own logits.
    """
    prompt_ids = policy.encoder.encode(group.prompt)
    completion = group.completions[0]
    with torch.no_grad():
        ours, _ = completion_log_probs(policy, prompt_ids, [completion])
        ids = torch.tensor([[*prompt_ids, *completion.token_ids]], device=policy.device)
        logits = policy.model(input_ids=ids, use_cache=False).logits[0, len(prompt_ids) - 1 : -1].float()
        theirs = logits.log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])[:, 0]
    gap = (ours - theirs).abs().max().item()
    if not gap <= tolerance:
        raise ModelError(
            f"log-probabilities from the backbone and the output layer differ from the model's own by {gap:.3g} "
            f"(expected at most {tolerance}): its head does more than a linear map. This architecture is not supported."
        )


def micro_batches(lengths: Sequence[int], token_budget: int) -> list[range]:
    """Cut consecutive rows into runs whose padded size keeps to the budget; a single row always fits."""
    runs, first = [], 0
    for i in range(1, len(lengths) + 1):
        if i == len(lengths) or max(lengths[first : i + 1]) * (i + 1 - first) > token_budget:
            runs.append(range(first, i))
            first = i
    return runs


def _token_log_probs(
    head: torch.nn.Module, states: torch.Tensor, targets: torch.Tensor, temperature: float
) -> torch.Tensor:
    logits = head(states)
    logits = (logits if logits.dtype == torch.float64 else logits.float()) / temperature
    chosen: torch.Tensor = logits.gather(1, targets[:, None])[:, 0]
    return chosen - torch.logsumexp(logits, -1)


def _backward(policy: Policy, group: Group, temperature: float, token_budget: int, logprob_chunk: int) -> None:
    prompt_ids = policy.encoder.encode(group.prompt)
    weights = advantages(group.rewards) / len(group.completions)
    lengths = [len(prompt_ids) + c.n_tokens for c in group.completions]
    for run in micro_batches(lengths, token_budget):
        chosen = [group.completions[i] for i in run]
        log_probs, row = completion_log_probs(policy, prompt_ids, chosen, temperature, logprob_chunk)
        per_token = torch.tensor(
            [float(weights[i]) / c.n_tokens for i, c in zip(run, chosen)], dtype=log_probs.dtype, device=policy.device
        )
        torch.autograd.backward(-(per_token[row] * log_probs).sum())


def _collect(
    parameters: dict[str, torch.nn.Parameter], group: Group, project: Projector | None, device: torch.device
) -> torch.Tensor:
    """Read `.grad` of every parameter into one vector, and free it."""
    if project is not None:
        row = torch.zeros(project.proj_dim, dtype=torch.float32, device=device)
    pieces = []
    for name, parameter in parameters.items():
        gradient, parameter.grad = parameter.grad, None
        if group.learnability == 0:
            gradient = torch.zeros_like(parameter) if project is None else None
        else:
            _check_gradient(gradient, name, group)
        if project is None:
            pieces.append(gradient.reshape(-1).float())  # type: ignore[union-attr]
        elif gradient is not None:
            project.add_to(row, name, gradient)
    return (row if project is not None else torch.cat(pieces)).cpu()


def _check_gradient(gradient: torch.Tensor | None, name: str, group: Group) -> None:
    prompt_id = group.prompt.prompt_id
    if gradient is None:
        raise GradientError(
            f"{name} got no gradient for {prompt_id}. A fused kernel may bypass the LoRA modules, or 4-bit weights "
            "were repacked for inference; load the policy with lean_align.policy.load_policy."
        )
    if not torch.isfinite(gradient).all():
        raise GradientError(
            f"the gradient of {name} holds NaN or Inf for {prompt_id}. Rows before it are kept. Try "
            "model.dtype=float32, or a lower warmup.learning_rate: the warm-up may have diverged."
        )
