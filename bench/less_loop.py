"""A loop in the manner of LESS: one completion at a time, full logits, 16 concatenated .grad, fp16, then trak."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch


def run(
    model: str, adapter: str, groups: str, dtype: str, proj_dim: int, temperature: float, out: str
) -> dict[str, Any]:
    """Projected rows of all groups into OUT/rows.npy, the first unprojected gradient into OUT/first.npy; seconds."""
    from trak.projectors import BasicProjector, ProjectionType

    policy, device = load(model, adapter, dtype)
    parameters = [p for p in policy.parameters() if p.requires_grad]
    waiting, rows, found = [], [], json.loads(Path(groups).read_text())
    start = time.perf_counter()
    grad_dim, first = sum(p.numel() for p in parameters), None
    projector = BasicProjector(grad_dim, proj_dim, 0, ProjectionType.rademacher, device, block_size=128)
    for number, group in enumerate(found, 1):
        begin = len(group["prompt"])
        for ids, advantage in zip(group["completions"], group["advantages"]):
            row = torch.tensor([group["prompt"] + ids], device=device)
            log_probs = (policy(input_ids=row).logits[0, begin - 1 : -1].float() / temperature).log_softmax(-1)
            chosen = log_probs.gather(1, row[0, begin:, None])
            (-advantage * chosen.mean() / len(group["completions"])).backward()
        waiting.append(torch.cat([p.grad.flatten() for p in parameters]))
        first = waiting[0].cpu().numpy() if number == 1 else first
        policy.zero_grad()
        if len(waiting) == 16 or number == len(found):
            rows.append(projector.project(torch.stack(waiting).half(), model_id=0) / proj_dim**0.5)
            waiting = []
    np.save(f"{out}/rows.npy", torch.cat(rows).half().float().cpu().numpy())
    seconds = time.perf_counter() - start
    np.save(f"{out}/first.npy", first)
    return {"seconds": seconds} | vram()


def load(model: str, adapter: str, dtype: str) -> tuple[Any, torch.device]:
    """The same folder and the same adapter as ours, by transformers and peft alone."""
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    base = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype)).to(device)
    base.requires_grad_(False)
    return PeftModel.from_pretrained(base, adapter, is_trainable=True).eval(), device


def vram() -> dict[str, int]:
    return {"peak_vram_bytes": torch.cuda.max_memory_allocated()} if torch.cuda.is_available() else {}
