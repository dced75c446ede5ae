"""The gradient of a prompt against the literal way: one completion at a time, full logits."""

from __future__ import annotations

from typing import Any

import torch

from bench.measure import compare
from lean_align.gradients import advantages, prompt_gradients
from lean_align.policy import load_policy
from lean_align.recipe import load_recipe
from lean_align.rollouts import Sampling, generate_batch, group_completions
from lean_align.types import Completion, Prompt

QUESTION = "Ann has 12 apples. Ann finds 7 more. Ann loses 3. How many apples does Ann have?"


def measure() -> list[dict[str, Any]]:
    recipe = load_recipe("demo")
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    prompts = [Prompt("p", QUESTION, "16")]
    completions = generate_batch(policy, prompts, Sampling(8, 1.0, 64, 8, 0, "bench"), lambda gold, text: 0.0)
    planted = [Completion(**{**c.__dict__, "reward": float(c.index % 2)}) for c in completions]
    (group,) = group_completions(prompts, iter(planted))
    ids = policy.encoder.encode(group.prompt)
    weights = advantages(group.rewards)

    def ours() -> torch.Tensor:
        return next(iter(prompt_gradients(policy, [group])))[1]

    def literal() -> torch.Tensor:
        for completion, weight in zip(group.completions, weights):
            row = torch.tensor([[*ids, *completion.token_ids]])
            log_probs = policy.model(input_ids=row).logits[0, len(ids) - 1 : -1].float().log_softmax(-1)
            chosen = log_probs.gather(1, row[0, len(ids) :, None])
            (-weight.float() * chosen.mean() / 8).backward()
        gradient = torch.cat([p.grad.reshape(-1) for p in policy.lora_parameters.values()])
        policy.model.zero_grad()
        return gradient

    gap = (ours() - literal()).norm() / literal().norm()
    row = compare(ours, literal, repeats=7)
    row["what"] = "gradient of one prompt, 8 completions, embedded model in NF4"
    row["other"] = "one completion at a time, full logits"
    row["note"] = f"relative difference {gap:.1e}"
    return [row]
