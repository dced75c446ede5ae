"""Last hidden states of rows of tokens, in micro-batches, and log-probabilities from them, without gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.errors import ModelError, OutOfMemoryError
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import Policy
from lean_align.policy.forward import (
    CHECKED_TOKENS,
    chunked_log_probs,
    last_states,
    micro_batches,
    own_log_probs,
    refuse_gap,
    rope_reach,
)
from lean_align.types import Group


class HiddenStates:
    """Runs rows through the backbone, with a budget that is lowered where memory runs out.

    Parameters
    ----------
    policy : Policy
        In evaluation mode, as it is loaded.
    token_budget : int
        Tokens a forward pass, padding included; a row always fits.
    on_halving : callable
        Told when a micro-batch did not fit; it and all that follow are halved, and equal but for rounding.

    Notes
    -----
    Memory besides the model: the activations of one layer and the last hidden states of one micro-batch, the latter
    token_budget * hidden size * 2 bytes in bfloat16.
    """

    def __init__(
        self, policy: Policy, token_budget: int, on_halving: Callable[[Halving], None] = lambda halving: None
    ) -> None:
        self.policy, self.token_budget, self.on_halving = policy, token_budget, on_halving

    def of(self, rows: Sequence[Sequence[int]]) -> Iterator[torch.Tensor]:
        """Yield the (len(row), hidden size) states of each row of token ids, in order, after the final norm.

        Raises
        ------
        OutOfMemoryError
            When a single row does not fit.
        """
        first, lengths, reach = 0, [len(row) for row in rows], rope_reach(self.policy.causal_lm)
        while first < len(rows):
            count = len(micro_batches(lengths[first:], self.token_budget, reach=reach)[0])
            batch = rows[first : first + count]
            found = within_memory(lambda batch=batch: self._forward(batch))  # type: ignore[misc]
            if isinstance(found, Shortage):
                release_memory()
                self._halve(batch, found)
                continue
            for states, row in zip(found, batch):
                yield states[: len(row)]
            first += len(batch)

    def _forward(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        with torch.no_grad():
            _, states = last_states(self.policy, batch)
        return states

    def _halve(self, batch: Sequence[Sequence[int]], shortage: Shortage) -> None:
        longest = max(map(len, batch))
        if len(batch) == 1:
            raise OutOfMemoryError(
                f"no memory for one row of {longest} tokens ({shortage}). What was written before is kept. Lower "
                "rollouts.max_new_tokens or data.max_prompt_tokens, or free the device."
            )
        self.token_budget = longest * (len(batch) // 2)
        self.on_halving(Halving("forward pass", "token_budget", self.token_budget, shortage))


def finite_states(states: torch.Tensor, prompt_id: str) -> NDArray[np.float32]:
    """Sums or means of a prompt's states as float32 on the CPU.

    Raises
    ------
    ModelError
        When one is not finite.
    """
    if not bool(states.isfinite().all()):
        raise ModelError(
            f"hidden states of {prompt_id} hold NaN or Inf; expected finite numbers. The warm-up may have diverged: "
            "lower warmup.learning_rate, or set model.dtype=float32."
        )
    return states.float().cpu().numpy()


def token_losses(
    policy: Policy, states: torch.Tensor, row: Sequence[int], tokens: range, logprob_chunk: int
) -> torch.Tensor:
    """Negative log-probabilities of some of a row's tokens, (len(tokens),) float64 on the CPU, in nats.

    Parameters
    ----------
    policy : Policy
    states : (len(row), hidden size)
    row : sequence of int
    tokens : range
        Positions of the tokens; the first is above 0, since nothing predicts a row's first token.
    logprob_chunk : int
        See `chunked_log_probs`.
    """
    targets = torch.tensor(row[tokens.start : tokens.stop], device=states.device)
    predicting = states[tokens.start - 1 : tokens.stop - 1]  # position t of a row predicts token t + 1
    return -chunked_log_probs(policy, predicting, targets, logprob_chunk).cpu().double()


def check_output_layer(policy: Policy, group: Group) -> None:
    """Refuse a model whose own log-probabilities of a completion's first 64 tokens differ.

    Raises
    ------
    ModelError
        When the mean difference is more than rounding.
    """
    prompt = policy.encoder.encode(group.prompt)
    row = [*prompt, *group.completions[0].token_ids[:CHECKED_TOKENS]]
    tokens = range(max(1, len(prompt)), len(row))
    if not tokens:
        return
    states = next(HiddenStates(policy, len(row)).of([row]))
    ours = token_losses(policy, states, row, tokens, CHECKED_TOKENS)
    gap = (ours + own_log_probs(policy, row, tokens.start).cpu()).abs().mean().item()
    advice = "Choose a selection.method that needs neither perplexity nor ratings."
    refuse_gap(policy, gap, "from the last hidden states", " nats", advice)
