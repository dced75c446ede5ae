"""Attention of one new token per row over shared heads, without copying keys and values.

Where h query heads share one key-value head, transformers' sdpa with a padding mask copies every key and
value h times at each token.  The h queries of one token see the same columns, so they are h queries of
one head: (rows, heads, 1, head_dim) is viewed as (rows, key-value heads, h, head_dim), the same sums.
On one CPU thread in bfloat16: 64 rows, 160 columns, 9 heads over 3 of 64: 2.6 ms in place of 18; 300 columns,
12 heads over 2 of 128: 7 ms in place of 148.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

NAME = "lean_align_grouped_sdpa"


def grouped_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """As transformers calls an attention function; anything but one plain new token per row goes to its sdpa.

    Parameters
    ----------
    module : torch.nn.Module
        The attention layer.
    query : (rows, heads, 1, head_dim) tensor
    key, value : (rows, key-value heads, columns, head_dim) tensors
    attention_mask : (rows, 1, 1, columns) bool tensor, optional
        True where a column is seen; all are without it.
    scaling : float, optional
        Factor of the products; 1 / sqrt(head_dim) when None.

    Returns
    -------
    (rows, 1, heads, head_dim) tensor, None
    """
    rows, heads, queries, width = query.shape
    if queries > 1 or options.get("position_bias") is not None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **options)
        return output, None
    grouped = query.reshape(rows, key.shape[1], heads // key.shape[1], width)
    output = torch.nn.functional.scaled_dot_product_attention(
        grouped, key, value, attn_mask=attention_mask, scale=scaling
    )
    return output.reshape(rows, 1, heads, value.shape[-1]), None


@contextmanager
def grouped_heads(causal_lm: Any) -> Iterator[None]:
    """Let a model's layers use `grouped_attention` inside the block, where they use sdpa outside it."""
    config = causal_lm.config.get_text_config()
    before = config._attn_implementation
    if before != "sdpa" or not causal_lm._supports_attention_backend:
        yield
        return
    AttentionInterface.register(NAME, grouped_attention)
    AttentionMaskInterface.register(NAME, sdpa_mask)
    config._attn_implementation = NAME
    try:
        yield
    finally:
        config._attn_implementation = before
