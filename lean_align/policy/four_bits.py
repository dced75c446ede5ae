"""How much of a base is really in 4 bits: bitsandbytes packs linear layers, and nothing else."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.nn.modules import Linear4bit

from lean_align.memory import human_bytes

EXPECTED_SHARE = 0.9
"""Below it, what stays in 16 bits is no small share, and is reported."""


def share_4bit(base: torch.nn.Module) -> tuple[float, int]:
    """Share of the numbers in a base's matrices that are in 4 bits, and the bytes of the others.

    Embeddings and the output layer are left out, which stay as they are by design; stacks of matrices, as experts are
    held in, count as matrices.  Weights that are trained (an adapter's) do not count.

    Parameters
    ----------
    base : PreTrainedModel
        Loaded, or of shapes alone.

    Returns
    -------
    share : float
        1.0 for a model without matrices.
    other_bytes : int
    """
    model: Any = base
    ends = {id(end.weight) for end in (model.get_input_embeddings(), model.get_output_embeddings()) if end is not None}
    packed = other = other_bytes = 0
    for module in base.modules():
        if isinstance(module, torch.nn.Embedding):
            continue
        if isinstance(module, Linear4bit):
            packed += module.in_features * module.out_features
            continue
        for parameter in module.parameters(recurse=False):
            if parameter.ndim > 1 and id(parameter) not in ends and not parameter.requires_grad:
                other, other_bytes = other + parameter.numel(), other_bytes + parameter.nbytes
    return (packed / (packed + other) if packed + other else 1.0), other_bytes


def shortfall(name: str, share: float, other_bytes: int) -> str | None:
    """A line that says that most of a model asked for in 4 bits is not; None where it is."""
    if share >= EXPECTED_SHARE:
        return None
    return (
        f"{name}: model.quantization is nf4, but only {share:.0%} of the layers' weights are in 4 bits; "
        f"{human_bytes(other_bytes)} stay as they are, since bitsandbytes packs linear layers alone, and not experts "
        "that are held in one tensor"
    )
