"""Forward and backward pass of one group, in micro-batches of completions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch

from lean_align.errors import ModelError
from lean_align.gradients.log_probs import (
    TokenStates,
    backward_tokens,
    packed_states,
    plain_states,
    run_prompt,
    token_log_probs,
)
from lean_align.gradients.shared_prompt import shared_prompt_attention, wide_leaf
from lean_align.gradients.weights import completion_weights
from lean_align.policy import Policy
from lean_align.types import Completion, Group

CHECKED_TOKENS = 64


def micro_batches(lengths: Sequence[int], token_budget: int, padded: bool = True) -> list[range]:
    """Cut consecutive rows into runs that keep to the budget, counted with padding or without; a row always fits."""
    runs, first = [], 0
    for i in range(1, len(lengths) + 1):
        if i < len(lengths):
            rows = lengths[first : i + 1]
            if (max(rows) * len(rows) if padded else sum(rows)) <= token_budget:
                continue
        if i > first:
            runs.append(range(first, i))
        first = i
    return runs


def backward_group(
    policy: Policy,
    group: Group,
    *,
    temperature: float = 1.0,
    token_budget: int = 4096,
    logprob_chunk: int = 1024,
    loss: str = "grpo",
    rollouts: str = "all",
    max_new_tokens: int | None = None,
    share_prompt: bool = True,
) -> None:
    """Add the gradient of a group's loss to `.grad` of the policy's LoRA parameters.

    Parameters
    ----------
    policy : Policy
    group : Group
        With rewards that differ.
    temperature, token_budget, logprob_chunk, loss, rollouts, max_new_tokens, share_prompt
        See `prompt_gradients`.

    Raises
    ------
    ModelError
        When the prompt cannot be shared with this model.

    Notes
    -----
    With `share_prompt` the prompt's keys and values collect the gradients of all micro-batches, in float32,
    and the prompt's own backward pass comes last and once.  In one graph for both, autograd would hold the
    packed run's gradient of every LoRA matrix until the prompt's was there.
    """
    weights = completion_weights(group, loss, rollouts, max_new_tokens)
    chosen = [group.completions[i] for i in weights]
    per_completion = torch.tensor(list(weights.values()), dtype=torch.float64, device=policy.device)
    prompt_ids, head = policy.encoder.encode(group.prompt), policy.causal_lm.get_output_embeddings()

    def backward(tokens: TokenStates, run: range) -> None:
        per_token = per_completion[run.start : run.stop][tokens.completion]
        backward_tokens(head, tokens, per_token, temperature, logprob_chunk)

    if not share_prompt:
        for run in micro_batches([len(prompt_ids) + c.n_tokens for c in chosen], token_budget):
            backward(plain_states(policy, prompt_ids, chosen[run.start : run.stop]), run)
        return
    runs = micro_batches([c.n_tokens for c in chosen], token_budget, padded=False)
    with shared_prompt_attention(policy):
        prompt, last_state = run_prompt(policy, prompt_ids)
        outputs, leaves = prompt.cut()
        last_leaf = wide_leaf(last_state)
        for run in runs:
            backward(packed_states(policy, prompt, last_leaf, chosen[run.start : run.stop]), run)
        pairs = [
            (output, leaf.grad.to(output.dtype))
            for output, leaf in zip([*outputs, last_state], [*leaves, last_leaf])
            if leaf.grad is not None and output.requires_grad
        ]
        torch.autograd.backward([output for output, _ in pairs], [gradient for _, gradient in pairs])


def completion_log_probs(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    temperature: float = 1.0,
    share_prompt: bool = True,
    logprob_chunk: int = 1024,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probabilities of the sampled tokens of several completions of one prompt, without gradients.

    Parameters
    ----------
    policy : Policy
    prompt_ids : sequence of int
    completions : sequence of Completion
    temperature : float
    share_prompt : bool
    logprob_chunk : int
        Tokens whose logits exist at the same time.

    Returns
    -------
    log_probs : (total completion tokens,) float32
    completion : (total completion tokens,) int64
        Which completion each token belongs to.
    """
    with torch.no_grad():
        if share_prompt:
            with shared_prompt_attention(policy):
                tokens = packed_states(policy, *run_prompt(policy, prompt_ids), completions)
        else:
            tokens = plain_states(policy, prompt_ids, completions)
        head = policy.causal_lm.get_output_embeddings()
        chunks = zip(torch.split(tokens.states, logprob_chunk), torch.split(tokens.targets, logprob_chunk))
        return torch.cat([token_log_probs(head, *chunk, temperature) for chunk in chunks]), tokens.completion


def check_log_probs(policy: Policy, group: Group, share_prompt: bool = True) -> None:
    """Refuse a model for which the parts, as used here, do not give the model's own log-probabilities.

    An output layer that does more than a linear map (soft-capping, scaling) is found, and an attention
    that a shared prompt does not reproduce.

    Raises
    ------
    ModelError
        When the mean difference over the first 64 tokens of two completions is above 0.01 nats, or above 0.2
        for a model that computes in 16 bits: there, rounding alone gave SmolLM2-135M 0.04 to 0.06 (and less than
        0.0001 in float32).
    """
    prompt_ids = policy.encoder.encode(group.prompt)
    completions = [_first_tokens(completion, CHECKED_TOKENS) for completion in group.completions[:2]]
    ours, row = completion_log_probs(policy, prompt_ids, completions, share_prompt=share_prompt)
    gap = 0.0
    with torch.no_grad():
        for i, completion in enumerate(completions):
            ids = torch.tensor([[*prompt_ids, *completion.token_ids]], device=policy.device)
            output = policy.model(input_ids=ids, use_cache=False, logits_to_keep=completion.n_tokens + 1)
            logits = output.logits[0, -completion.n_tokens - 1 : -1].float()
            theirs = logits.log_softmax(-1).gather(1, ids[0, len(prompt_ids) :, None])[:, 0]
            gap = max(gap, (ours[row == i] - theirs).abs().mean().item())
    tolerance = 0.2 if policy.causal_lm.dtype.itemsize == 2 else 0.01
    if not gap <= tolerance:
        way_out = "Set gradients.share_prompt=false." if share_prompt else "This architecture is not supported."
        raise ModelError(
            f"log-probabilities as the gradient stage computes them differ from the model's own by {gap:.3g} on "
            f"average (expected at most {tolerance}): its output layer does more than a linear map, or its attention "
            f"cannot share a prompt. {way_out}"
        )


def _first_tokens(completion: Completion, n: int) -> Completion:
    return replace(completion, token_ids=completion.token_ids[:n], n_tokens=min(n, completion.n_tokens))
