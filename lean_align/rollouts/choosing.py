"""The next token of each row from its logits and one uniform number a row."""

from __future__ import annotations

import torch


def choose_tokens(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float) -> torch.Tensor:
    """Draw a token a row by inverting the cumulative distribution.

    Parameters
    ----------
    logits : (rows, V) tensor
        Any float type.
    uniforms : (rows,) float64 tensor
        In [0, 1); not read at temperature 0.
    temperature : float
        0 takes the largest logit, the first one on ties.

    Returns
    -------
    (rows,) int64 tensor
        The smallest token whose cumulative probability exceeds the row's uniform, so never one of
        probability 0; V where the logits hold NaN or +inf.

    Notes
    -----
    Probabilities are float32, and their sums float64: in float32 the sum over 150,000 tokens is off by
    1e-5, more than a rare token's probability.  With u < 1, u times the last sum stays below it, so no
    draw falls past the end.  Takes 20 V bytes a row beside the logits.
    """
    if temperature == 0:
        largest, tokens = logits.max(dim=-1)
        return torch.where(largest.isfinite(), tokens, logits.shape[-1])
    cumulative = torch.softmax(logits.float() / temperature, dim=-1).cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    return torch.where(total.isfinite(), tokens, logits.shape[-1])[:, 0]
