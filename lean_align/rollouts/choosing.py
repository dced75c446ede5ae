"""The next token of each row from its logits and one uniform number a row."""

from __future__ import annotations

import torch


def choose_tokens(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float = 1.0) -> torch.Tensor:
    """Draw a token a row by inverting the cumulative distribution.

    Parameters
    ----------
    logits : (rows, V) tensor
        Any float type.
    uniforms : (rows,) float64 tensor
        In [0, 1); not read at temperature 0.
    temperature : float
        0 takes the largest logit, the first one on ties.
    top_p : float
        In (0, 1].  Below 1 only the nucleus is drawn from (Holtzman et al. 2020, arXiv 1904.09751): the fewest tokens,
        the likeliest first, whose probabilities add up to it.

    Returns
    -------
    (rows,) int64 tensor
        The smallest token whose cumulative probability exceeds the row's uniform, so never one of
        probability 0; V where the logits hold NaN or +inf.

    Notes
    -----
    Probabilities are float32, and their sums float64: in float32 the sum over 150,000 tokens is off by
    1e-5, more than a rare token's probability.  With u < 1, u times the last sum stays below it, so no
    draw falls past the end.  Takes 20 V bytes a row beside the logits, and 24 V more below top_p = 1.
    """
    if temperature == 0:
        largest, tokens = logits.max(dim=-1)
        return torch.where(largest.isfinite(), tokens, logits.shape[-1])
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        probabilities = _nucleus(probabilities, top_p)
    cumulative = probabilities.cumsum(dim=-1, dtype=torch.float64)
    total = cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, uniforms[:, None] * total, right=True)
    return torch.where(total.isfinite(), tokens, logits.shape[-1])[:, 0]


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The same with 0 for tokens that the likelier ones before them have made up for; of equals the first stay."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))
