"""Forward and backward pass of one group, in micro-batches of completions: smaller ones where memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import TypeVar

import torch

from lean_align.errors import OutOfMemoryError
from lean_align.gradients.log_probs import (
    OnEntropies,
    TokenLoss,
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
from lean_align.policy.lora_layers import lean_lora_layers
from lean_align.policy.output_layer import OutputLayer
from lean_align.types import Completion, Group

T = TypeVar("T")


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
    """
    weights = completion_weights(group, settings)
    chosen = [group.completions[i] for i in weights]
    per_token = torch.tensor(
        [weight for weight, c in zip(weights.values(), chosen) for _ in c.token_ids],
        dtype=torch.float64,
        device=policy.device,
    )

    def token_loss(log_probs: torch.Tensor, places: slice) -> torch.Tensor:
        return -(per_token[places].to(log_probs.dtype) * log_probs).sum()

    backward_completions(policy, policy.encoder.encode(group.prompt), chosen, token_loss, settings)


def backward_completions(
    policy: Policy,
    prompt_ids: Sequence[int],
    completions: Sequence[Completion],
    token_loss: TokenLoss,
    settings: GradientSettings,
    on_entropies: OnEntropies | None = None,
) -> None:
    """Add the gradient of a loss over one prompt's sampled tokens to `.grad` of the policy's LoRA parameters.

    Parameters
    ----------
    policy : Policy
    prompt_ids : sequence of int
    completions : sequence of Completion
    token_loss : callable
        A sum over the completions' tokens, which are counted through, one completion after the other; it is asked
        once for each token.
    settings : GradientSettings
        Of which temperature, token_budget, logprob_chunk and share_prompt are read.
    on_entropies : callable, optional
        Given the entropies of the tokens, (n,) in nats, some at a time.

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
    head = OutputLayer(policy.causal_lm)
    firsts = list(accumulate((c.n_tokens for c in completions), initial=0))

    def backward(tokens: TokenStates, run: range) -> None:
        chunk = settings.logprob_chunk
        backward_tokens(head, tokens, token_loss, firsts[run.start], settings.temperature, chunk, on_entropies)

    whole = [len(prompt_ids) + c.n_tokens for c in completions]
    alone = beyond_rope(policy.causal_lm, max(whole))
    if alone or not settings.share_prompt:
        with lean_lora_layers(policy):
            for run in micro_batches(whole, 0 if alone else settings.token_budget):
                backward(plain_states(policy, prompt_ids, completions[run.start : run.stop]), run)
        return
    runs = micro_batches([c.n_tokens for c in completions], settings.token_budget, padded=False)
    with shared_prompt_attention(policy), lean_lora_layers(policy):
        prompt, last_state = run_prompt(policy, prompt_ids)
        outputs, leaves = prompt.cut()
        last_leaf = wide_leaf(last_state)
        for run in runs:
            backward(packed_states(policy, prompt, last_leaf, completions[run.start : run.stop]), run)
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
    token_budget: int | None = None,
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
    token_budget : int, optional
        Tokens per pass, as of `GradientSettings`; all at once when not given.

    Returns
    -------
    log_probs : (total completion tokens,) float32
    completion : (total completion tokens,) int64
        Which completion each token belongs to.
    """
    whole = [len(prompt_ids) + c.n_tokens for c in completions]
    alone = beyond_rope(policy.causal_lm, max(whole))
    budget = len(whole) * max(whole) if token_budget is None else token_budget
    with torch.no_grad(), lean_lora_layers(policy):
        if share_prompt and not alone:
            parts = micro_batches([c.n_tokens for c in completions], budget, padded=False)
            with shared_prompt_attention(policy):
                ran = run_prompt(policy, prompt_ids)
                runs = [packed_states(policy, *ran, completions[part.start : part.stop]) for part in parts]
        else:
            parts = micro_batches(whole, 0 if alone else budget)
            runs = [plain_states(policy, prompt_ids, completions[part.start : part.stop]) for part in parts]
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
        self.policy, self.row = policy, row
        self.budget = Budget(settings, on_halving)

    @property
    def settings(self) -> GradientSettings:
        """As they are by now."""
        return self.budget.settings

    def run(self, group: Group) -> None:
        """Put the group's gradient into the row.

        Raises
        ------
        OutOfMemoryError
            When a single completion does not fit.
        """
        chosen = [group.completions[i] for i in completion_weights(group, self.settings)]

        def collect(settings: GradientSettings) -> None:
            with self.row.collecting():
                backward_group(self.policy, group, settings)

        self.budget.within(collect, group.prompt.prompt_id, self.policy.encoder.encode(group.prompt), chosen)


class Budget:
    """Passes over completions, with half the `token_budget` where memory runs out.

    Parameters
    ----------
    settings : GradientSettings
        To begin with; each halving holds for all that follows.
    on_halving : callable
        Told of each.
    section : str
        Of the recipe, for the messages.
    """

    def __init__(
        self, settings: GradientSettings, on_halving: Callable[[Halving], None], section: str = "gradients"
    ) -> None:
        self.settings, self.on_halving, self.section = settings, on_halving, section

    def within(
        self,
        work: Callable[[GradientSettings], T],
        prompt_id: str,
        prompt_ids: Sequence[int],
        completions: Sequence[Completion],
    ) -> T:
        """What `work` returns, done again from the start where it ran out of memory.

        Raises
        ------
        OutOfMemoryError
            When a single completion does not fit.
        """
        while isinstance(found := within_memory(lambda: work(self.settings)), Shortage):
            release_memory()
            self._halve(found, prompt_id, prompt_ids, completions)
        return found

    def _halve(
        self, shortage: Shortage, prompt_id: str, prompt_ids: Sequence[int], completions: Sequence[Completion]
    ) -> None:
        settings = self.settings
        prompt = 0 if settings.share_prompt else len(prompt_ids)
        lengths = [prompt + c.n_tokens for c in completions]
        budget = smaller_budget(lengths, settings.token_budget, padded=not settings.share_prompt)
        if budget is None:
            raise OutOfMemoryError(
                f"no memory for the gradient of {prompt_id}, with one completion of up to {max(lengths)} "
                f"tokens at a time ({shortage}). What was finished before is kept. Lower gradients.logprob_chunk (now "
                f"{settings.logprob_chunk}) or rollouts.max_new_tokens, or set {self.section}.gradient_checkpointing="
                "true."
            )
        self.settings = replace(settings, token_budget=budget)
        self.on_halving(Halving(f"gradient of {prompt_id}", "token_budget", budget, shortage))
