"""Bytes of all tensors that are alive, operation by operation; on the `meta` device this takes no memory at all.

Tensors that were there before the block are not counted.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from torch.utils.flop_counter import flop_registry


@contextmanager
def kernels_on_meta() -> Iterator[None]:
    """Let the `meta` device do what real devices do, where torch does it differently there or not at all.

    1. Attention by the kernel that holds no matrix of scores.  torch's own choice is the plain product of matrices,
       whose scores and their softmax autograd keeps: without checkpointing a third too much.
    2. The product of each expert with its tokens, which torch has for bfloat16 alone.
    3. The end of mixed precision, which peft asks for and torch does not know of this device.

    A mode of torch functions would not do: it is off in a backward pass.
    """
    functional: Any = torch.nn.functional
    plain, grouped, autocast = functional.scaled_dot_product_attention, functional.grouped_mm, torch.autocast

    def attention(query: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        return (_fused if query.is_meta else plain)(query, *arguments, **options)

    def experts(tokens: torch.Tensor, weights: torch.Tensor, *arguments: Any, **options: Any) -> torch.Tensor:
        # each token meets one expert, so the sizes are those of one product
        return tokens @ weights[0] if tokens.is_meta else grouped(tokens, weights, *arguments, **options)

    def precision(device_type: str, *arguments: Any, **options: Any) -> Any:
        return nullcontext() if device_type == "meta" else autocast(device_type, *arguments, **options)

    functional.scaled_dot_product_attention, functional.grouped_mm = attention, experts
    torch.autocast = precision  # type: ignore[misc, assignment]
    try:
        yield
    finally:
        functional.scaled_dot_product_attention, functional.grouped_mm = plain, grouped
        torch.autocast = autocast  # type: ignore[misc]


def _fused(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_mask: torch.Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> torch.Tensor:
    if attn_mask is not None and attn_mask.dtype == torch.bool:  # as torch does before the kernel
        attn_mask = torch.empty(attn_mask.shape, dtype=query.dtype, device=query.device)
    output: torch.Tensor = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
        query, key, value, dropout_p, is_causal, attn_mask=attn_mask, scale=scale
    )[0]
    return output


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the storages that operations inside the block create, until each is freed.

    A value that the code asks of a tensor without numbers is 0 or False: no mask is then found to be superfluous.

    Attributes
    ----------
    live, peak : int
        Bytes alive now, and the most at one time.  What an operation allocates and frees within itself is not seen.
    written : int
        Bytes of all storages together, alive or not: what the operations wrote.
    operations, flops : int
        Calls of torch, and the arithmetic of their matrix products and attentions.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = self.peak = self.written = self.operations = self.flops = 0
        self._seen: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default and args[0].is_meta:
            return False if args[0].dtype == torch.bool else 0
        self.operations += 1
        before = {t.untyped_storage()._cdata for t in tree_iter((args, kwargs)) if isinstance(t, torch.Tensor)}
        out = func(*args, **(kwargs or {}))
        if (formula := flop_registry.get(func._overloadpacket)) is not None:
            self.flops += formula(*args, **(kwargs or {}), out_val=out)
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor):
                self._add(tensor.untyped_storage(), before)
        return out

    def _add(self, storage: torch.UntypedStorage, before: set[int]) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen or key in before:  # a view of an argument that was there before the block
            return
        self._seen.add(key)
        self.live += size
        self.written += size
        self.peak = max(self.peak, self.live)
        weakref.finalize(storage, self._drop, key, size)

    def _drop(self, key: int, size: int) -> None:
        self._seen.discard(key)
        self.live -= size
