"""Rows of tokens through the model: micro-batches, padding, last hidden states, and log-probabilities from them.

Rows are padded on the right, where a causal model cannot see it.  Logits exist for `logprob_chunk` positions at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from transformers.modeling_layers import GradientCheckpointingLayer

from lean_align.errors import ModelError
from lean_align.policy.loading import Policy
from lean_align.policy.output_layer import OutputLayer, backbone_of

CHECKED_TOKENS = 64
"""Of a completion, where the model's own log-probabilities are compared with those from its parts."""


def rope_reach(causal_lm: Any) -> int | None:
    """Longest row, in tokens, whose positions a model turns at the pace of shorter rows; None where there is no limit.

    `dynamic` and `longrope` change it (Phi-3 with 128k tokens), by the longest of the rows that are computed together:
    a longer row is to be computed whole and alone.
    """
    text = causal_lm.config.get_text_config(decoder=True)
    parameters = getattr(text, "rope_parameters", None) or {}
    kinds = [part for part in parameters.values() if isinstance(part, dict)] or [parameters]
    reaches = []
    for kind in kinds:
        if kind.get("rope_type") == "longrope":
            reaches.append(kind.get("original_max_position_embeddings") or text.max_position_embeddings)
        elif "dynamic" in str(kind.get("rope_type")):
            reaches.append(text.max_position_embeddings)
    return min(reaches, default=None)


def beyond_rope(causal_lm: Any, n_tokens: int) -> bool:
    """Whether a row is so long that it is to be computed whole and alone."""
    reach = rope_reach(causal_lm)
    return reach is not None and n_tokens > reach


def micro_batches(
    lengths: Sequence[int], token_budget: int, padded: bool = True, reach: int | None = None
) -> list[range]:
    """Cut consecutive rows into runs that keep to the budget, counted with padding or without; a row always fits.

    A row of more than `reach` tokens is alone.
    """
    runs, first = [], 0
    for i in range(1, len(lengths) + 1):
        if i < len(lengths):
            rows = lengths[first : i + 1]
            size = max(rows) * len(rows) if padded else sum(rows)
            if size <= token_budget and (reach is None or max(rows) <= reach):
                continue
        if i > first:
            runs.append(range(first, i))
        first = i
    return runs


def last_states(policy: Policy, rows: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Run rows of token ids through the backbone, as one batch.

    Returns
    -------
    ids : (rows, longest) int64
        Padded on the right.
    states : (rows, longest, hidden size)
        After the final norm; those of the padding mean nothing.
    """
    width, pad = max(map(len, rows)), policy.pad_token_id
    ids = torch.tensor([[*row] + [pad] * (width - len(row)) for row in rows], device=policy.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=policy.device)
    states = backbone_of(policy.causal_lm)(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return ids, states


def token_log_probs(
    head: OutputLayer, states: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0
) -> torch.Tensor:
    """Log-probabilities of `targets`, (tokens,) float32 (float64 for a float64 model), at a temperature."""
    logits = head(states)
    logits = logits if logits.dtype == torch.float64 else logits.float()
    return -cross_entropy(logits if temperature == 1 else logits / temperature, targets, reduction="none")


def chunked_log_probs(
    policy: Policy, states: torch.Tensor, targets: torch.Tensor, logprob_chunk: int, temperature: float = 1.0
) -> torch.Tensor:
    """The same without gradients and for any number of tokens.

    Parameters
    ----------
    policy : Policy
    states : (tokens, hidden size)
        Each predicts the target beside it.
    targets : (tokens,) int64
    logprob_chunk : int
        Tokens whose logits exist at the same time: about 8 * logprob_chunk * vocabulary bytes.
    temperature : float
    """
    head = OutputLayer(policy.causal_lm)
    chunks = zip(torch.split(states, logprob_chunk), torch.split(targets, logprob_chunk))
    with torch.no_grad():
        return torch.cat([token_log_probs(head, *chunk, temperature) for chunk in chunks])


def own_log_probs(policy: Policy, row: Sequence[int], start: int) -> torch.Tensor:
    """Log-probabilities of a row's tokens from `start` on, (len(row) - start,) float32, by the model's own logits."""
    ids, n_tokens = torch.tensor([row], device=policy.device), len(row) - start
    with torch.no_grad():
        logits = policy.model(input_ids=ids, use_cache=False, logits_to_keep=n_tokens + 1).logits
    found: torch.Tensor = logits[0, -n_tokens - 1 : -1].float().log_softmax(-1)
    return found.gather(1, ids[0, start:, None])[:, 0]


def tolerated_gap(policy: Policy) -> float:
    """The mean difference from the model's own log-probabilities, in nats, that counts as rounding.

    Rounding alone gave SmolLM2-135M 0.04 to 0.06 in 16 bits, and less than 0.0001 in float32.
    """
    return 0.2 if policy.causal_lm.dtype.itemsize == 2 else 0.01


def refuse_gap(policy: Policy, gap: float, log_probs: str, unit: str, advice: str) -> None:
    """Refuse a model whose own log-probabilities differ from those of its backbone and its output layer.

    Parameters
    ----------
    policy : Policy
    gap : float
        Mean difference over the tokens of a completion, in nats.
    log_probs, unit, advice : str
        What was compared, the gap's unit as it is printed, and what to do.

    Raises
    ------
    ModelError
        When the gap is above `tolerated_gap`, or NaN.
    """
    if not gap <= tolerated_gap(policy):
        raise ModelError(
            f"log-probabilities {log_probs} differ from the model's own by {gap:.3g}{unit} on average (expected at "
            f"most {tolerated_gap(policy)}): {type(policy.causal_lm).__name__} does something between its layers and "
            f"its logits that is not reproduced. {advice}"
        )


def checkpoint_layers(policy: Policy, section: str = "gradients") -> None:
    """Have a policy's layers run again in the backward pass, and nothing else change.

    Layers do so in training mode alone.  They are put into it themselves; what is inside them and above is not, so
    that no dropout and no noise of a router comes with it.  `section` is the recipe's, for the error.

    Raises
    ------
    ModelError
        When the model's layers cannot.
    """
    layers = [module for module in policy.model.modules() if isinstance(module, GradientCheckpointingLayer)]
    if not layers or not policy.causal_lm.supports_gradient_checkpointing:
        raise ModelError(
            f"{type(policy.causal_lm).__name__} has no layers that can be run again in the backward pass. Set "
            f"{section}.gradient_checkpointing=false."
        )
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in layers:
        layer.training = True
