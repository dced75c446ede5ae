"""Attention over a prompt that is computed once for all of its completions.

A group's completions lie one behind another in a single row, without padding, and each attends to the
keys and values of the prompt and to its own earlier tokens:

    row          o_1 ... | o_2 ... | ... | o_G ...        positions |prompt|, |prompt| + 1, ... in each
    attention    of o_g,t: prompt, o_g,1 .. o_g,t

This is what a batch of prompt + completion rows computes, without running the prompt G times and without
padding.  Gradients of the prompt's keys and values are collected from all completions, then sent back
through the prompt once, so the gradient is whole.  The function below is registered with transformers'
attention interface; a model that calls its attention through it (Llama, Qwen2, Qwen3, Mistral, ...) needs
no change.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import AttentionInterface

from lean_align.errors import ModelError
from lean_align.policy import Policy

NAME = "lean_align_shared_prompt"


@dataclass(frozen=True)
class SharedPrompt:
    """Keys and values of one prompt by layer, (1, kv_heads, prompt tokens, head_dim) each.

    `bounds` is None for the run of the prompt itself, and holds the first and last + 1 token of each
    completion for a run of completions, which shares the two tables.
    """

    n_tokens: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    bounds: Sequence[tuple[int, int]] | None = None

    def cut(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Replace keys and values by leaves that collect gradients; return the tensors and their leaves."""
        tensors, leaves = [], []
        for table in (self.keys, self.values):
            for layer, tensor in table.items():
                table[layer] = wide_leaf(tensor)
                tensors.append(tensor)
                leaves.append(table[layer])
        return tensors, leaves


def wide_leaf(tensor: torch.Tensor) -> torch.Tensor:
    """A leaf in float32 (float64 for float64) with the tensor's values.

    What the completions send back to the prompt largely cancels, since their advantages add up to 0: in
    bfloat16 the rounding of each share would stay.
    """
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32)).requires_grad_()


@contextmanager
def shared_prompt_attention(policy: Policy) -> Iterator[None]:
    """Have the policy's model attend through this module inside the block.

    Raises
    ------
    ModelError
        When the model does not call its attention through transformers' interface.
    """
    model = policy.causal_lm
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    if model.config._attn_implementation != NAME:
        raise ModelError(
            f"{type(model).__name__} does not let its attention be chosen, so a prompt cannot be shared by its "
            "completions. Set gradients.share_prompt=false."
        )
    try:
        yield
    finally:
        model.set_attn_implementation(before)


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    shared_prompt: SharedPrompt | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query (1, heads, T, head_dim) -> ((1, T, heads, head_dim), None)."""
    if shared_prompt is None:
        raise ModelError(
            "the model does not hand its keyword arguments to attention. Set gradients.share_prompt=false."
        )
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    _refuse_unknown(options, shared_prompt)
    if shared_prompt.bounds is None:
        shared_prompt.keys.setdefault(layer, key)  # a checkpointed layer runs again in the backward pass
        shared_prompt.values.setdefault(layer, value)
        return _sdpa(query, key, value, scaling, causal=True).transpose(1, 2), None
    before_k, before_v = shared_prompt.keys[layer], shared_prompt.values[layer]
    parts = []
    for start, stop in shared_prompt.bounds:
        k = torch.cat([before_k.to(key.dtype), key[:, :, start:stop]], 2)  # a cast a completion: sums in float32
        v = torch.cat([before_v.to(value.dtype), value[:, :, start:stop]], 2)
        parts.append(_sdpa(query[:, :, start:stop], k, v, scaling, causal=False))
    return torch.cat(parts, 2).transpose(1, 2), None


def _sdpa(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scaling: float | None, causal: bool
) -> torch.Tensor:
    """Causal attention of the last queries of a row: query i sees keys up to n_keys - n_queries + i."""
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1:  # a mask together with enable_gqa falls back to the kernel that holds the whole score matrix
        key, value = (x.repeat_interleave(repeats, 1) for x in (key, value))
    mask = None
    if not causal:
        ones = torch.ones(query.shape[2], key.shape[2], dtype=torch.bool, device=query.device)
        mask = ones.tril(key.shape[2] - query.shape[2])
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scaling)


def _refuse_unknown(options: dict[str, Any], prompt: SharedPrompt) -> None:
    window = options.get("sliding_window")
    longest = prompt.n_tokens + max((stop - start for start, stop in prompt.bounds or [(0, 0)]), default=0)
    if window is not None and window < longest:
        raise ModelError(
            f"the model attends to the last {window} tokens only, and the row has {longest}. "
            "Set gradients.share_prompt=false."
        )
    for name in ("softcap", "position_bias", "s_aux"):
        if options.get(name) is not None:
            raise ModelError(f"the model's attention uses {name}. Set gradients.share_prompt=false.")


AttentionInterface.register(NAME, attend)
