"""Forward and backward pass of one group, in micro-batches of completions: smaller ones where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch

from lean_align.errors import OutOfMemoryError
from lean_align.gradients.log_probs import (
    TokenStates,
    backward_tokens,
    packed_states,
    plain_states,
    run_prompt,
)
from lean_align.gradients.row_hooks import GradientRow
from lean_align.gradients.settings import GradientSettings
from lean_align.gradients.shared_prompt import shared_prompt_attention, wide_leaf
from lean_align.gradients.weights import completion_weights
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import Policy
from lean_align.policy.forward import beyond_rope, chunked_log_probs, micro_batches
from lean_align.policy.output_layer import OutputLayer
from lean_align.types import Completion, Group


def backward_group(policy: Policy, group: Group, settings: GradientSettings = GradientSettings()) -> None:
    """Add the gradient of a group's loss to `.grad` of the policy's LoRA parameters.

    Parameters
    ----------
    policy : Policy
    group : Group
        With rewards that differ.
    settings : GradientSettings

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
    weights = completion_weights(group, settings)
    chosen = [group.completions[i] for i in weights]
    per_completion = torch.tensor(list(weights.values()), dtype=torch.float64, device=policy.device)
    prompt_ids, head = policy.encoder.encode(group.prompt), OutputLayer(policy.causal_lm)

    def backward(tokens: TokenStates, run: range) -> None:
        per_token = per_completion[run.start : run.stop][tokens.completion]
        backward_tokens(head, tokens, per_token, settings.temperature, settings.logprob_chunk)

    whole = [len(prompt_ids) + c.n_tokens for c in chosen]
    alone = beyond_rope(policy.causal_lm, max(whole))
    if alone or not settings.share_prompt:
        for run in micro_batches(whole, 0 if alone else settings.token_budget):
            backward(plain_states(policy, prompt_ids, chosen[run.start : run.stop]), run)
        return
    runs = micro_batches([c.n_tokens for c in chosen], settings.token_budget, padded=False)
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
    alone = beyond_rope(policy.causal_lm, len(prompt_ids) + max(c.n_tokens for c in completions))
    with torch.no_grad():
        if share_prompt and not alone:
            with shared_prompt_attention(policy):
                runs = [packed_states(policy, *run_prompt(policy, prompt_ids), completions)]
        else:
            batches = [[c] for c in completions] if alone else [completions]
            runs = [plain_states(policy, prompt_ids, batch) for batch in batches]
    states, targets = torch.cat([run.states for run in runs]), torch.cat([run.targets for run in runs])
    row = torch.tensor([i for i, c in enumerate(completions) for _ in c.token_ids], device=policy.device)
    return chunked_log_probs(policy, states, targets, logprob_chunk, temperature), row


def smaller_budget(lengths: Sequence[int], token_budget: int, padded: bool) -> int | None:
    """The next half of a budget that cuts rows of these lengths into more micro-batches; None when each is alone."""
    runs = len(micro_batches(lengths, token_budget, padded))
    while runs < len(lengths) and token_budget > 1:
        token_budget //= 2
        if len(micro_batches(lengths, token_budget, padded)) > runs:
            return token_budget
    return None


class BudgetedBackward:
    """Runs `backward_group` for one prompt after another.

    Parameters
    ----------
    policy : Policy
    row : GradientRow
        Collects each gradient; what a pass left there that ran out of memory is dropped.
    settings : GradientSettings
        To begin with.  A group that does not fit halves `token_budget`, for itself and for those that follow.
    on_halving : callable
        Told of each halving.
    """

    def __init__(
        self, policy: Policy, row: GradientRow, settings: GradientSettings, on_halving: Callable[[Halving], None]
    ) -> None:
        self.policy, self.row, self.settings, self.on_halving = policy, row, settings, on_halving

    def run(self, group: Group) -> None:
        """Put the group's gradient into the row.

        Raises
        ------
        OutOfMemoryError
            When a single completion does not fit.
        """
        while (shortage := within_memory(lambda: self._collect(group))) is not None:
            release_memory()
            self._halve(group, shortage)

    def _collect(self, group: Group) -> None:
        with self.row.collecting():
            backward_group(self.policy, group, self.settings)

    def _halve(self, group: Group, shortage: Shortage) -> None:
        settings, chosen = self.settings, completion_weights(group, self.settings)
        prompt = 0 if settings.share_prompt else len(self.policy.encoder.encode(group.prompt))
        lengths = [prompt + group.completions[i].n_tokens for i in chosen]
        budget = smaller_budget(lengths, settings.token_budget, padded=not settings.share_prompt)
        if budget is None:
            raise OutOfMemoryError(
                f"no memory for the gradient of {group.prompt.prompt_id}, with one completion of up to {max(lengths)} "
                f"tokens at a time ({shortage}). Rows written before are kept. Lower gradients.logprob_chunk (now "
                f"{settings.logprob_chunk}) or rollouts.max_new_tokens, or set gradients.gradient_checkpointing=true."
            )
        self.settings = replace(settings, token_budget=budget)
        self.on_halving(Halving(f"gradient of {group.prompt.prompt_id}", "token_budget", budget, shortage))
