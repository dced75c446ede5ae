"""The passes over groups that are compared: ours with projection and store, bare, and naive; and exact scores."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from lean_align import gradients
from lean_align.gradients import GradientSettings
from lean_align.policy import Policy
from lean_align.projection import make_projector
from lean_align.scoring import learnability, score_prompts
from lean_align.store import StoreWriter
from lean_align.types import Group


def ours(policy: Policy, groups: list[Group], settings: GradientSettings, proj_dim: int, folder: Path) -> None:
    """The gradient stage with one projection seed: every prompt's projected gradient into a new store."""
    projector = make_projector("sjlt", policy.lora_sizes, proj_dim, device=policy.device)
    rows = gradients.prompt_gradients(policy, groups, projector, settings)
    with StoreWriter.open(folder, [group.prompt.prompt_id for group in groups], proj_dim) as store:
        for row, (_, projected) in enumerate(rows):
            store.write(row, projected.numpy())


def bare(policy: Policy, groups: Iterable[Group], settings: GradientSettings) -> None:
    """The forward and backward passes of `ours` over the same micro-batches; no projection, no store."""
    for group in groups:
        gradients.backward_group(policy, group, settings)
        drop_gradients(policy)


def naive(policy: Policy, groups: Iterable[Group], temperature: float) -> None:
    """Prompt and completion padded, all completions in one batch, logits of every position, log_softmax over them."""
    for group in groups:
        naive_backward(policy, group, temperature)
        drop_gradients(policy)


def naive_backward(policy: Policy, group: Group, temperature: float) -> None:
    prompt_ids = policy.encoder.encode(group.prompt)
    rows = [[*prompt_ids, *completion.token_ids] for completion in group.completions]
    width, start = max(map(len, rows)), len(prompt_ids)
    ids = torch.tensor([row + [policy.pad_token_id] * (width - len(row)) for row in rows], device=policy.device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=policy.device)
    logits = policy.model(input_ids=ids, attention_mask=mask, use_cache=False).logits[:, :-1].float() / temperature
    log_probs = logits.log_softmax(-1).gather(-1, ids[:, 1:, None])[..., 0][:, start - 1 :]
    chosen = mask[:, start:]
    means = (log_probs * chosen).sum(1) / chosen.sum(1)
    weights = gradients.advantages(group.rewards).to(policy.device) / len(rows)
    (-(weights.float() * means).sum()).backward()


def drop_gradients(policy: Policy) -> None:
    for parameter in policy.lora_parameters.values():
        parameter.grad = None


def unprojected(policy: Policy, groups: list[Group], settings: GradientSettings) -> np.ndarray:
    """(n, P) float32 gradients of the prompts."""
    rows = gradients.prompt_gradients(policy, groups, None, settings)
    out = np.empty((len(groups), sum(policy.lora_sizes.values())), np.float32)
    for row, (_, gradient) in zip(out, rows):
        row[:] = gradient.numpy()
    return out


def exact_scores(rows: np.ndarray, success_rate: np.ndarray) -> np.ndarray:
    """Scores from whole gradients, in float64; rows (n, P)."""
    v = learnability(success_rate)
    unit = rows.astype(np.float64)
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    scores: np.ndarray = v * (unit @ (v @ unit)) / len(rows)
    return scores


def stored_scores(projected: np.ndarray, success_rate: np.ndarray) -> np.ndarray:
    """Scores of projected rows as the store holds them: unit rows in float16."""
    unit = projected / np.linalg.norm(projected, axis=1, keepdims=True)
    return score_prompts(unit.astype(np.float16), success_rate).score


def completion_tokens(groups: Iterable[Group]) -> int:
    return sum(completion.n_tokens for group in groups for completion in group.completions)
