"""LoRA layers in fewer passes over memory than peft's, for sampling and for gradients.

A layer's output is W x + s B A x, with A and B in float32 over a base that may be in 16 or 4 bits.  peft copies x to
float32 for each layer, where autograd keeps it, scales the whole product and adds it in float32 before it rounds.  Here
x is kept as it is and widened where it is needed, the narrow A x is scaled, and the product is added where W x lies,
rounded once.  The numbers are the same up to rounding in float32.

Differs from peft in: 1. only plain LoRA without dropout, one adapter at a time; other layers keep their own forward.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.lora.bnb import Linear4bit as LoraLinear4bit

from lean_align.policy.loading import Policy


@contextmanager
def lean_lora_layers(policy: Policy) -> Iterator[None]:
    """Let a policy's plain LoRA layers compute as above inside the block, which must last until a backward pass is
    over."""
    layers = [module for module in policy.model.modules() if _is_plain(module)]
    for layer in layers:
        layer.forward = partial(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _is_plain(module: Any) -> bool:
    if type(module) not in (LoraLinear, LoraLinear4bit) or "forward" in vars(module):
        return False
    if module.disable_adapters or module.merged or len(module.active_adapters) != 1:
        return False
    name = module.active_adapters[0]
    return (
        name in module.lora_A
        and name not in module.lora_variant
        and isinstance(module.lora_dropout[name], torch.nn.Identity)
        and module.lora_A[name].bias is None
        and module.lora_B[name].bias is None
    )


def _forward(layer: Any, x: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
    name = layer.active_adapters[0]
    base: torch.Tensor = layer.base_layer(x, *arguments, **options).contiguous()
    a, b, scaling = layer.lora_A[name].weight, layer.lora_B[name].weight, layer.scaling[name]
    if not torch.is_grad_enabled():
        _add(base, x, a, b, scaling)
        return base
    added: torch.Tensor = _AddLora.apply(base, x, a, b, scaling)  # type: ignore[no-untyped-call]
    return added


def _add(base: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float) -> torch.Tensor:
    """Add scaling x A^T B^T to `base`; returns scaling x A^T, (rows, rank)."""
    narrow = torch.mm(_rows(x, a), a.T).mul_(scaling)
    rows = base.view(-1, base.shape[-1])
    if base.dtype == b.dtype:
        rows.addmm_(narrow, b.T)
    else:
        rows.add_(torch.mm(narrow, b.T))
    return narrow


class _AddLora(torch.autograd.Function):
    """base + scaling x A^T B^T, in the place of `base`."""

    @staticmethod
    def forward(
        ctx: Any, base: torch.Tensor, x: torch.Tensor, a: torch.Tensor, b: torch.Tensor, scaling: float
    ) -> torch.Tensor:
        narrow = _add(base, x, a, b, scaling)
        ctx.mark_dirty(base)
        ctx.save_for_backward(x, a, b, narrow)
        ctx.scaling = scaling
        return base

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (gradient,) = gradients
        x, a, b, narrow = ctx.saved_tensors
        wide = _rows(gradient, b)
        of_narrow = (wide @ b) * ctx.scaling
        of_x = (of_narrow @ a).to(x.dtype).view(x.shape) if ctx.needs_input_grad[1] else None
        of_a = of_narrow.T @ _rows(x, a) if ctx.needs_input_grad[2] else None
        of_b = wide.T @ narrow if ctx.needs_input_grad[3] else None
        return gradient, of_x, of_a, of_b, None


def _rows(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return x.reshape(-1, x.shape[-1]).to(like.dtype)
