"""Attention of the last tokens of a row over all of it, under the rule of a layer of any kind.

A layer's rule says for two positions whether the one sees the other: all that came before, the last few (a sliding
window), or those of the same chunk.  Positions are those of a whole row of prompt and completion, whatever part of it
is computed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from transformers.masking_utils import causal_mask_function

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
