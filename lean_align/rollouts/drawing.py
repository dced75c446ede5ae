"""What every way of decoding shares: unfinished rows, their noise, and the drawing of their next tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.errors import ModelError
from lean_align.policy import Policy
from lean_align.rollouts.sampling import Sampling


def choose_tokens(logits: torch.Tensor, uniforms: torch.Tensor, temperature: float, top_p: float = 1.0) -> torch.Tensor:
    """Draw one token per row by inverting the cumulative distribution.

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
    draw falls past the end.  Sums are taken of blocks of tokens, and token by token in the block that is drawn: a
    fifth of the time of one running sum.  Takes 12 V bytes a row beside the logits, and 24 V more below top_p = 1.
    """
    if temperature == 0:
        largest, tokens = logits.max(dim=-1)
        return torch.where(largest.isfinite(), tokens, logits.shape[-1])
    probabilities = torch.softmax(logits.float() / temperature, dim=-1)
    if top_p < 1:
        probabilities = _nucleus(probabilities, top_p)
    n_tokens = probabilities.shape[-1]
    padded = torch.nn.functional.pad(probabilities, (0, -n_tokens % _BLOCK))
    blocks = padded.view(len(padded), -1, _BLOCK)
    ends = blocks.sum(-1, dtype=torch.float64).cumsum(-1)
    total = ends[:, -1:]
    aims = uniforms[:, None] * total
    block = torch.searchsorted(ends, aims, right=True).clamp(max=blocks.shape[1] - 1)
    before = torch.where(block > 0, ends.gather(1, (block - 1).clamp(min=0)), 0.0)
    drawn = blocks.gather(1, block[:, :, None].expand(-1, -1, _BLOCK))[:, 0]
    inside = torch.searchsorted(before + drawn.cumsum(-1, dtype=torch.float64), aims, right=True)
    # the block's own sum may be rounded down where the running one is not
    last = torch.where(drawn > 0, torch.arange(_BLOCK, device=drawn.device), 0).amax(-1, keepdim=True)
    tokens = block * _BLOCK + torch.minimum(inside, last)
    return torch.where(total.isfinite(), tokens, n_tokens)[:, 0]


_BLOCK = 256


def _nucleus(probabilities: torch.Tensor, top_p: float) -> torch.Tensor:
    """The same with 0 for tokens that the likelier ones before them have made up for; of equals the first stay."""
    ordered, order = probabilities.sort(dim=-1, descending=True, stable=True)
    before = ordered.cumsum(dim=-1, dtype=torch.float64) - ordered
    return torch.zeros_like(probabilities).scatter(-1, order, ordered.masked_fill(before >= top_p, 0.0))


Noise = Callable[[int, int], NDArray[np.float64]]


@dataclass
class DecodeRow:
    """An unfinished completion."""

    prompt: int
    index: int
    noise: NDArray[np.float64]
    token_ids: list[int] = field(default_factory=list)


class Drawing:
    """Completions of some prompts, as far as they are drawn.

    Parameters
    ----------
    policy : Policy
    encoded : sequence of sequence of int
        Token ids of each prompt.
    noise : callable
        (prompt, index) -> (max_new_tokens,) uniforms in [0, 1).
    sampling : Sampling
    advance : callable
        Told the number of completions that have just ended.

    Attributes
    ----------
    ended : dict
        (prompt, index) -> token ids.
    steps, row_steps, prefills : int
        See `Decoded`.
    """

    def __init__(
        self,
        policy: Policy,
        encoded: Sequence[Sequence[int]],
        noise: Noise,
        sampling: Sampling,
        advance: Callable[[int], None],
    ) -> None:
        self.policy, self.encoded, self.noise, self.sampling = policy, encoded, noise, sampling
        self.advance = advance
        self.ended: dict[tuple[int, int], tuple[int, ...]] = {}
        self.steps = self.row_steps = self.prefills = 0

    def begin(self, prompts: Sequence[int]) -> tuple[list[DecodeRow], list[int]]:
        """Rows of all completions of some prompts, and the place of each row's prompt among them."""
        rows = [DecodeRow(p, index, self.noise(p, index)) for p in prompts for index in self.sampling.indices]
        return rows, [place for place in range(len(prompts)) for _ in self.sampling.indices]

    def extend(self, rows: list[DecodeRow], logits: torch.Tensor) -> list[int]:
        """Draw a token for each row from its (V,) logits; return which rows have not ended."""
        uniforms = self.tensor([row.noise[len(row.token_ids)] for row in rows], torch.float64)
        chosen = choose_tokens(logits, uniforms, self.sampling.temperature, self.sampling.top_p)
        going_on = []
        for i, token in enumerate(chosen.tolist()):
            if token >= logits.shape[-1]:
                raise ModelError(
                    f"the model's logits are NaN or infinite at token {len(rows[i].token_ids) + 1} of a completion. "
                    "Try model.dtype=float32, and check the adapter's weights."
                )
            rows[i].token_ids.append(token)
            if token in self.policy.eos_token_ids or len(rows[i].token_ids) == self.sampling.max_new_tokens:
                self.ended[rows[i].prompt, rows[i].index] = tuple(rows[i].token_ids)
            else:
                going_on.append(i)
        if len(going_on) < len(rows):
            self.advance(len(rows) - len(going_on))
        return going_on

    def tensor(self, values: Any, dtype: torch.dtype = torch.int64) -> torch.Tensor:
        """Numbers on the policy's device."""
        return torch.tensor(values, dtype=dtype, device=self.policy.device)
