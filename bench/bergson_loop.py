"""bergson's GradientCollector: one row per completion, each weighted by its advantage, added up to the prompt's row."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.less_loop import load, vram


def run(
    model: str, adapter: str, groups: str, dtype: str, proj_dim: int, temperature: float, out: str
) -> dict[str, Any]:
    """Projected rows of all groups into OUT/rows.npy; seconds."""
    from bergson import GradientCollector, GradientProcessor, IndexConfig
    from bergson.utils.worker_utils import extract_peft_target_modules
    from datasets import Dataset

    policy, device = load(model, adapter, dtype)
    found = json.loads(Path(groups).read_text())
    start = time.perf_counter()
    collector = GradientCollector(
        model=policy.base_model,
        cfg=IndexConfig(run_path=f"{out}/index"),
        data=Dataset.from_dict({"input_ids": [group["prompt"] for group in found]}),
        skip_index=True,
        processor=GradientProcessor(projection_dim=proj_dim, projection_target="global"),
        target_modules=extract_peft_target_modules(policy),
    )
    rows = []
    for group in found:
        with collector.with_batch(None):
            _loss(policy, group, temperature, device).backward()
        rows.append(collector.mod_grads["gradients"].float().sum(0).cpu().numpy())
        collector.mod_grads.clear()
        policy.zero_grad()
    np.save(f"{out}/rows.npy", np.stack(rows))
    return {"seconds": time.perf_counter() - start} | vram()


def _loss(policy: Any, group: dict[str, Any], temperature: float, device: torch.device) -> torch.Tensor:
    """Sum over completions of the weighted mean log-probability; row g of the collector is completion g's share."""
    begin, rows = len(group["prompt"]), [group["prompt"] + ids for ids in group["completions"]]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    logits = policy(input_ids=ids, attention_mask=mask).logits[:, begin - 1 : -1].float() / temperature
    log_probs = logits.log_softmax(-1).gather(-1, ids[:, begin:, None])[..., 0]
    means = (log_probs * mask[:, begin:]).sum(1) / mask[:, begin:].sum(1)
    return -(torch.tensor(group["advantages"], device=device) * means).sum() / len(rows)
