"""Last hidden states of rows of tokens, in micro-batches, and log-probabilities from them, without gradients.

Rows are padded on the right, where a causal model cannot see it.  Logits exist for `logprob_chunk` positions at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch.nn.functional import cross_entropy

from lean_align.errors import OutOfMemoryError
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import Policy
from lean_align.policy.output_layer import OutputLayer, backbone_of
from lean_align.policy.positions import beyond_rope


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
    Memory beside the model: the activations of one layer and the last hidden states of one micro-batch, the latter
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
        first = 0
        while first < len(rows):
            batch = rows[first : first + self._fitting([len(row) for row in rows[first:]])]
            found = within_memory(lambda batch=batch: self._forward(batch))  # type: ignore[misc]
            if isinstance(found, Shortage):
                release_memory()
                self._halve(batch, found)
                continue
            for states, row in zip(found, batch):
                yield states[: len(row)]
            first += len(batch)

    def _fitting(self, lengths: Sequence[int]) -> int:
        """How many of the next rows make a micro-batch: at least one."""
        count, longest = 0, 0
        for length in lengths:
            longest = max(longest, length)
            too_many = longest * (count + 1) > self.token_budget or beyond_rope(self.policy.causal_lm, longest)
            if count and too_many:
                break
            count += 1
        return count

    def _forward(self, batch: Sequence[Sequence[int]]) -> torch.Tensor:
        policy, width = self.policy, max(map(len, batch))
        ids = torch.tensor([[*row] + [policy.pad_token_id] * (width - len(row)) for row in batch], device=policy.device)
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in batch], device=policy.device)
        with torch.no_grad():
            output = backbone_of(policy.causal_lm)(input_ids=ids, attention_mask=mask, use_cache=False)
        states: torch.Tensor = output.last_hidden_state
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


def token_losses(
    policy: Policy, states: torch.Tensor, row: Sequence[int], tokens: range, logprob_chunk: int
) -> torch.Tensor:
    """Negative log-probabilities of some of a row's tokens, at temperature 1.

    Parameters
    ----------
    policy : Policy
    states : (len(row), hidden size)
    row : sequence of int
    tokens : range
        Positions of the tokens; the first is above 0, since nothing predicts a row's first token.
    logprob_chunk : int
        Positions whose logits exist at the same time: about 8 * logprob_chunk * vocabulary bytes.

    Returns
    -------
    (len(tokens),) float64
        On the CPU, in nats.
    """
    head = OutputLayer(policy.causal_lm)
    targets = torch.tensor(row[tokens.start : tokens.stop], device=states.device)
    losses = []
    with torch.no_grad():
        predicting = states[tokens.start - 1 : tokens.stop - 1]  # position t of a row predicts token t + 1
        for some, chosen in zip(torch.split(predicting, logprob_chunk), torch.split(targets, logprob_chunk)):
            losses.append(cross_entropy(head(some).float(), chosen, reduction="none").cpu())
    return torch.cat(losses).double()
