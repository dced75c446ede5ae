"""AdamW and the schedule of its learning rate, as transformers' Trainer makes them from the same settings."""

from __future__ import annotations

from typing import Any

import torch
from transformers.optimization import get_scheduler

from lean_align.policy import Policy
from lean_align.policy.eight_bits import adamw_8bit
from lean_align.recipe import TrainerRecipe

BETAS, EPSILON = (0.9, 0.999), 1e-8
_NO_DECAY = ("bias", "norm")
"""In names of parameters that are not decayed; those of LoRA have neither."""


def scheduler_name(trainer: TrainerRecipe) -> str:
    """A recipe's schedule in transformers' words."""
    return "constant_with_warmup" if trainer.lr_scheduler == "constant" else trainer.lr_scheduler


def make_optimizer(policy: Policy, trainer: TrainerRecipe) -> tuple[torch.optim.Optimizer, Any]:
    """The optimiser over a policy's trainable parameters, and its schedule.

    Parameters
    ----------
    policy : Policy
    trainer : TrainerRecipe

    Returns
    -------
    optimizer : torch.optim.Optimizer
        `torch.optim.AdamW`, or bitsandbytes' with moments in 8 bits.
    scheduler : torch.optim.lr_scheduler.LambdaLR
        To be stepped after each step of the optimiser.
    """
    named = policy.lora_parameters
    kept = [p for name, p in named.items() if any(word in name.lower() for word in _NO_DECAY)]
    decayed = [p for name, p in named.items() if not any(word in name.lower() for word in _NO_DECAY)]
    groups = [
        {"params": decayed, "weight_decay": trainer.weight_decay},
        *([{"params": kept, "weight_decay": 0.0}] if kept else []),
    ]
    options = {"lr": trainer.learning_rate, "betas": BETAS, "eps": EPSILON}
    optimizer: torch.optim.Optimizer
    if trainer.optimizer == "adamw_torch":
        optimizer = torch.optim.AdamW(groups, **options)  # type: ignore[arg-type]
    else:
        optimizer = adamw_8bit(groups, trainer.optimizer.startswith("paged"), **options)
    scheduler = get_scheduler(scheduler_name(trainer), optimizer, trainer.lr_warmup_steps, trainer.steps)
    return optimizer, scheduler
