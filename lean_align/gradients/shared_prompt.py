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
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface

from lean_align.errors import ModelError
from lean_align.gradients.attention import LayerMask, Sees, explicit_attention, scaled_attention
from lean_align.policy import Policy

SDPA, EAGER = "lean_align_shared_prompt", "lean_align_shared_prompt_eager"
_NAMES = {"sdpa": SDPA, "eager": EAGER}


@dataclass(frozen=True)
class SharedPrompt:
    """Keys and values of one prompt by layer, (1, kv_heads, prompt tokens, head_dim) each, and the layer's mask.

    `bounds` is None for the run of the prompt itself, and holds the first and last + 1 token of each
    completion for a run of completions, which shares the tables.
    """

    n_tokens: int
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)
    masks: dict[int, LayerMask] = field(default_factory=dict)
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
    name = _NAMES.get(before, SDPA)
    model.set_attn_implementation(name)
    if model.config._attn_implementation != name:
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
    attention_mask: LayerMask | None,
    scaling: float | None = None,
    shared_prompt: SharedPrompt | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """Attention as transformers calls it: query (1, heads, T, head_dim) -> ((1, T, heads, head_dim), None)."""
    if shared_prompt is None or not isinstance(attention_mask, LayerMask) or options.get("position_bias") is not None:
        lacks = "arguments" if shared_prompt is None else "mask"
        raise ModelError(
            f"the model does not hand its attention the {lacks} that a shared prompt needs. Set "
            "gradients.share_prompt=false."
        )
    window = options.get("sliding_window")
    if window is not None and window != attention_mask.reach:
        raise ModelError(
            f"the model tells its attention of a window of {window} tokens, its mask has "
            f"{attention_mask.reach or 'none'}. Set gradients.share_prompt=false."
        )
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    scores = partial(scaled_attention, scaling=scaling)
    config: Any = module.config
    if config._attn_implementation == EAGER and (options.get("softcap") or options.get("s_aux") is not None):
        scores = partial(  # transformers' sdpa leaves both out
            explicit_attention, scaling=scaling, softcap=options.get("softcap"), sinks=options.get("s_aux")
        )
    if shared_prompt.bounds is None:
        shared_prompt.keys.setdefault(layer, key)  # a checkpointed layer runs again in the backward pass
        shared_prompt.values.setdefault(layer, value)
        shared_prompt.masks[layer] = attention_mask
        mask = attention_mask.of_row(query.shape[2], query.device)
        return scores(query, key, value, mask).transpose(1, 2), None
    before_k, before_v = shared_prompt.keys[layer], shared_prompt.values[layer]
    parts = []
    for start, stop in shared_prompt.bounds:
        k = torch.cat([before_k.to(key.dtype), key[:, :, start:stop]], 2)  # a cast a completion: sums in float32
        v = torch.cat([before_v.to(value.dtype), value[:, :, start:stop]], 2)
        mask = shared_prompt.masks[layer].of_end(stop - start, k.shape[2], query.device)
        parts.append(scores(query[:, :, start:stop], k, v, mask))
    return torch.cat(parts, 2).transpose(1, 2), None


def as_layer_mask(mask_function: Sees, local_size: int | None = None, use_vmap: bool = False, **options: Any) -> Any:
    """What a model gets for a layer's mask when it asks transformers for one: the rule, in place of a tensor.

    With `use_vmap` the rule is the model's own, which may not take tensors of positions: no mask then, which `attend`
    refuses.
    """
    return None if use_vmap else LayerMask(mask_function, local_size)


for _name in (SDPA, EAGER):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, as_layer_mask)
