"""Where a run takes place: its memory, how fast it computes, and what a process holds there before the model."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from functools import cache

import torch

from lean_align.choices import choose_backend, choose_engine
from lean_align.gradients import GradientSettings
from lean_align.gradients.rehearsal import rehearse_gradient
from lean_align.grpo.optimiser import make_optimizer
from lean_align.grpo.rehearsal import rehearse_group
from lean_align.memory import peak_rss_bytes
from lean_align.policy import load_policy
from lean_align.policy.shapes import with_prompt_length
from lean_align.recipe import Recipe, TrainerRecipe, load_recipe
from lean_align.rollouts import Sampling
from lean_align.rollouts.rehearsal import rehearse_decoding

CONTEXT_BYTES = 600 * 2**20
"""What CUDA itself holds on a card: its context and the kernels' code."""
ALLOCATOR_SHARE = 0.05
"""Gaps between the blocks of torch's allocator on a card."""
_TOKENS, _COMPLETIONS = 64, 8


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
    "assumed): not measured on a card",
)


@dataclass(frozen=True)
class ProcessBytes:
    """Resident bytes of a stage's process without the recipe's model, by what it does there."""

    decoding: int
    gradients: int
    lean: int
    trl: int

    def of(self, work: str, backend: str = "") -> int:
        """Those of a kind of work; of `training` by its backend."""
        if work in ("rollouts", "evaluation"):
            return self.decoding
        if work == "gradients":
            return self.gradients
        return self.lean if backend == "lean" else self.trl


@dataclass(frozen=True)
class Place:
    """Where the run will take place.

    Attributes
    ----------
    device : str
        `cuda` or `cpu`.
    limit_bytes : int
        Memory of the card, or of the machine.
    process : ProcessBytes
    speed : Speed
    vllm, unsloth : bool
        Whether vLLM samples; whether a training's backend `auto` means Unsloth.
    """

    device: str
    limit_bytes: int
    process: ProcessBytes
    speed: Speed
    vllm: bool = False
    unsloth: bool = False

    def backend(self, trainer: TrainerRecipe) -> str:
        """`lean`, `trl` or `unsloth`: what trains there."""
        if trainer.backend != "auto":
            return trainer.backend
        return "unsloth" if self.unsloth and trainer.only_lean() is None else "lean"

    def fits(self, tensor_bytes: int, process_bytes: int) -> bool:
        """Whether so many bytes of tensors fit, on a CPU beside those of the process."""
        if self.device == "cuda":
            return tensor_bytes * (1 + ALLOCATOR_SHARE) + CONTEXT_BYTES <= self.limit_bytes
        return tensor_bytes + process_bytes <= self.limit_bytes


def place_of(recipe: Recipe, vram_bytes: int | None, speed: Speed | None) -> Place:
    """A card of so many bytes; without them this machine's card, or its CPU."""
    here, process = recipe.model.device != "cpu" and torch.cuda.is_available(), process_bytes()
    engine = recipe.rollouts.engine  # of another machine, what auto would mean is not known
    vllm = engine == "vllm" or (here and vram_bytes is None and choose_engine(engine) == "vllm")
    if vram_bytes is not None:
        return Place("cuda", vram_bytes, process, speed or CARD, vllm)
    found = speed or measured_speed(getattr(torch, recipe.model.dtype), torch.device("cuda" if here else "cpu"))
    if here:
        unsloth = choose_backend("auto") == "unsloth"
        return Place("cuda", torch.cuda.get_device_properties(0).total_memory, process, found, vllm, unsloth)
    return Place("cpu", os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), process, found, vllm)


@cache
def process_bytes() -> ProcessBytes:
    """Measured in this process on the embedded 4-bit model.

    After decoding, a backward pass, a step of the optimiser, and with trl imported.
    """
    recipe = load_recipe("demo", {"model.device": "cpu"})
    policy = with_prompt_length(load_policy(recipe.model, recipe.data, recipe.lora), _TOKENS)
    sampling = Sampling(_COMPLETIONS, 1.0, _TOKENS, _COMPLETIONS, 0, "", 0)
    rehearse_decoding(policy, 1, _TOKENS, sampling, lambda: None)
    decoding = peak_rss_bytes()
    rehearse_gradient(policy, _COMPLETIONS, _TOKENS)
    gradients = peak_rss_bytes()
    rehearse_group(policy, _COMPLETIONS, _TOKENS, GradientSettings())
    optimizer, _ = make_optimizer(policy, recipe.training)
    optimizer.step()
    lean = peak_rss_bytes()
    from trl import GRPOTrainer  # noqa: F401

    return ProcessBytes(decoding, gradients, lean, peak_rss_bytes())


@cache
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
    """Seconds per call, over calls that take at least `least` seconds together."""
    assert callable(work)
    work()
    calls, begin = 0, time.perf_counter()
    while (spent := time.perf_counter() - begin) < least or calls < 3:
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        calls += 1
    return spent / max(calls, 1)
