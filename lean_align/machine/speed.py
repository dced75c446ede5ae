"""How fast a device computes: measured where it is at hand, else taken from its data sheet."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Speed:
    """What the hours of a plan rest on.

    Attributes
    ----------
    flops_per_second, bytes_per_second : float
        Of large matrix products, and of memory.
    seconds_per_operation : float
        To start one operation of torch.
    source : str
    """

    flops_per_second: float
    bytes_per_second: float
    seconds_per_operation: float
    source: str

    def seconds(self, flops: int, moved_bytes: int, operations: int) -> float:
        """Time of some work: its arithmetic or its traffic, whichever takes longer, and the starting of it."""
        work = max(flops / self.flops_per_second, moved_bytes / self.bytes_per_second)
        return work + operations * self.seconds_per_operation


CARD = Speed(
    0.4 * 71e12,
    0.7 * 936e9,
    6e-6,
    "hours are for an RTX 3090 (71 bfloat16 TFLOPS and 936 GB/s by NVIDIA's data sheet, of which 40 and 70 % are "
    "reckoned with): not measured on a card",
)


def measured_speed(dtype: torch.dtype, device: torch.device) -> Speed:
    """Time a matrix product, a copy and a small operation on a device; about a second."""
    a = torch.ones(1024, 1024, dtype=dtype, device=device)
    block = torch.ones(2**26, dtype=torch.float32, device=device)
    small = torch.ones(8, device=device)
    product, copy, start = (
        _seconds(work, device) for work in (lambda: a @ a, lambda: block.clone(), lambda: small + small)
    )
    return Speed(2 * 1024**3 / product, 2 * block.nbytes / copy, start, "hours rest on a second of timing here")


def _seconds(work: object, device: torch.device, least: float = 0.2) -> float:
    """Seconds a call, over calls of at least `least` seconds together."""
    assert callable(work)
    work()
    calls, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < least or calls < 3:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        calls += 1
    return spent / max(calls, 1)
