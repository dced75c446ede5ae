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

A layer's rule says for two positions whether the one sees the other: all that came before, the last few (a sliding
window), or those of the same chunk.  Positions are those of a whole row of prompt and completion, whatever part of it
is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.masking_utils import causal_mask_function

from lean_align.errors import ModelError
from lean_align.policy import Policy

Sees = Callable[[Any, Any, Any, Any], torch.Tensor]
"""(batch, head, position of the query, position of the key) -> whether it is seen; takes tensors that broadcast."""


@dataclass(frozen=True)
class LayerMask:
    """What the tokens of one kind of layer see.

    Attributes
    ----------
    sees : callable
        As transformers' masking functions are.
    reach : int or None
        Rows of up to so many tokens are seen as by plain causal attention; None where nothing is known.
    """

    sees: Sees
    reach: int | None = None

    def is_causal(self, n_keys: int) -> bool:
        """Whether tokens of a row of `n_keys` see all that came before."""
        return self.sees is causal_mask_function or (self.reach is not None and n_keys <= self.reach)

    def of_row(self, n_tokens: int, device: torch.device) -> torch.Tensor | None:
        """The mask of a whole row, (n_tokens, n_tokens) bool, True where a key is seen; None for causal attention."""
        return None if self.is_causal(n_tokens) else self._mask(n_tokens, n_tokens, device)

    def of_end(self, n_queries: int, n_keys: int, device: torch.device) -> torch.Tensor:
        """The mask of a row's last tokens, (n_queries, n_keys) bool."""
        if self.is_causal(n_keys):
            ones = torch.ones(n_queries, n_keys, dtype=torch.bool, device=device)
            return ones.tril(n_keys - n_queries)
        return self._mask(n_queries, n_keys, device)

    def _mask(self, n_queries: int, n_keys: int, device: torch.device) -> torch.Tensor:
        queries = torch.arange(n_keys - n_queries, n_keys, device=device)[:, None]
        keys = torch.arange(n_keys, device=device)[None, :]
        zero = torch.zeros(1, 1, dtype=torch.int64, device=device)
        return self.sees(zero, zero, queries, keys)


def scaled_attention(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None, scaling: float | None
) -> torch.Tensor:
    """Attention by torch's own kernels.

    Parameters
    ----------
    query : (1, heads, n_queries, head_dim)
    key, value : (1, key-value heads, n_keys, head_dim)
    mask : (n_queries, n_keys) bool, optional
        Causal attention over a whole row without it.
    scaling : float, optional
        Factor of the products; 1 / sqrt(head_dim) when None.

    Returns
    -------
    (1, heads, n_queries, head_dim) tensor
    """
    key, value = _repeated(query, key, value)
    attention = torch.nn.functional.scaled_dot_product_attention
    return attention(query, key, value, attn_mask=mask, is_causal=mask is None, scale=scaling)


def explicit_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None = None,
    sinks: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention whose products are capped, or whose softmax has one more term a head, as no kernel has it.

    Parameters
    ----------
    query, key, value, mask, scaling
        See `scaled_attention`.
    softcap : float, optional
        c of products = c tanh(products / c).
    sinks : (heads,) tensor, optional
        Exponents of the further terms.

    Notes
    -----
    Memory: 4 * heads * n_queries * n_keys bytes several times over, which autograd keeps for every layer.
    """
    key, value = _repeated(query, key, value)
    products = query @ key.mT * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        products = softcap * torch.tanh(products / softcap)
    if mask is None:
        mask = torch.ones(products.shape[-2:], dtype=torch.bool, device=products.device).tril()
    products = products.masked_fill(~mask, torch.finfo(products.dtype).min)
    if sinks is not None:
        further = sinks.to(products.dtype).reshape(1, -1, 1, 1).expand(*products.shape[:-1], 1)
        products = torch.cat([products, further], -1)
    shares = torch.softmax(products, -1, dtype=torch.promote_types(products.dtype, torch.float32))
    return shares[..., : key.shape[2]].to(value.dtype) @ value


def _repeated(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    repeats = query.shape[1] // key.shape[1]
    if repeats == 1:  # a mask together with enable_gqa falls back to the kernel that holds the whole score matrix
        return key, value
    return key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)


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
            f"the model gives its attention a window of {window} tokens, but its mask has "
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
    dtype, parts = query.dtype, []
    if query.device.type == "cpu":  # torch's kernels for 16 bits take 1.6 times as long as those for 32
        query, key, value = (x.to(before_k.dtype) for x in (query, key, value))
    for start, stop in shared_prompt.bounds:
        k = torch.cat([before_k.to(key.dtype), key[:, :, start:stop]], 2)  # a cast a completion: sums in float32
        v = torch.cat([before_v.to(value.dtype), value[:, :, start:stop]], 2)
        mask = shared_prompt.masks[layer].of_end(stop - start, k.shape[2], query.device)
        parts.append(scores(query[:, :, start:stop], k, v, mask))
    return torch.cat(parts, 2).transpose(1, 2).to(dtype), None


def as_layer_mask(mask_function: Sees, local_size: int | None = None, use_vmap: bool = False, **options: Any) -> Any:
    """What a model gets for a layer's mask when it asks transformers for one: the rule, in place of a tensor.

    With `use_vmap` the rule is the model's own, which may not take tensors of positions: no mask then, which `attend`
    refuses.
    """
    return None if use_vmap else LayerMask(mask_function, local_size)


for _name in (SDPA, EAGER):
    AttentionInterface.register(_name, attend)
    AttentionMaskInterface.register(_name, as_layer_mask)
