"""Whether backbone and output layer, taken apart as here, are the model."""

from __future__ import annotations

import torch

from lean_align.errors import ModelError
from lean_align.policy import Policy
from lean_align.signals.forward import HiddenStates, token_losses
from lean_align.types import Group

CHECKED_TOKENS = 64


def check_output_layer(policy: Policy, group: Group) -> None:
    """Refuse a model whose own log-probabilities are others.

    Raises
    ------
    ModelError
        When the mean difference over the first 64 tokens of a completion is above 0.01 nats, or above 0.2 for a
        model that computes in 16 bits.
    """
    prompt = policy.encoder.encode(group.prompt)
    row = [*prompt, *group.completions[0].token_ids[:CHECKED_TOKENS]]
    tokens = range(max(1, len(prompt)), len(row))
    if not tokens:
        return
    states = next(HiddenStates(policy, len(row)).of([row]))
    ours = token_losses(policy, states, row, tokens, CHECKED_TOKENS)
    with torch.no_grad():
        ids = torch.tensor([row], device=policy.device)
        logits = policy.model(input_ids=ids, use_cache=False, logits_to_keep=len(tokens) + 1).logits[0, :-1]
        theirs = torch.nn.functional.cross_entropy(logits.float(), ids[0, tokens.start :], reduction="none").cpu()
    gap = (ours - theirs).abs().mean().item()
    tolerance = 0.2 if policy.causal_lm.dtype.itemsize == 2 else 0.01
    if not gap <= tolerance:
        raise ModelError(
            f"log-probabilities from the last hidden states differ from the model's own by {gap:.3g} nats on average "
            f"(expected at most {tolerance}): {type(policy.causal_lm).__name__} does something between its layers and "
            "its logits that is not reproduced. Choose a selection.method that needs neither perplexity nor ratings."
        )
