"""What every way of decoding shares: rows in the making, their noise, and the drawing of their next tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from lean_align.errors import ModelError
from lean_align.policy import Policy
from lean_align.rollouts.choosing import choose_tokens
from lean_align.rollouts.windows import Sampling

Noise = Callable[[int, int], NDArray[np.float64]]


@dataclass
class DecodeRow:
    """A completion in the making."""

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
