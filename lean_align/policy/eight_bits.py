"""An optimiser whose moments are in 8 bits: bitsandbytes' AdamW."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from bitsandbytes.optim.adamw import AdamW


def adamw_8bit(groups: Sequence[dict[str, Any]], paged: bool, **options: Any) -> torch.optim.Optimizer:
    """AdamW over groups of parameters, with moments in 8 bits where a parameter has at least 4096 entries.

    Parameters
    ----------
    groups : sequence of dict
        As of `torch.optim.AdamW`.
    paged : bool
        Moments move to the host's memory where the card's runs out.
    **options
        lr, betas, eps.
    """
    made: torch.optim.Optimizer = AdamW(groups, optim_bits=8, is_paged=paged, **options)  # type: ignore[no-untyped-call]
    return made
