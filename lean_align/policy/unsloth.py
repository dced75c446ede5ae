"""The policy as Unsloth loads it, for a training.  `unsloth` was imported before trl, transformers and peft.

Differs from `load_policy` in: 1. Unsloth's kernels and checkpointing, where there is a card; 2. with
`fast_inference` a vLLM engine lives next to the model and shares its weights.  The adapter is the same: a fresh one has
the very numbers that `load_policy` draws.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import set_peft_model_state_dict
from peft.tuners.lora import LoraLayer

from lean_align.policy.adapters import adapter_shape, check_adapter, read_config, read_weights, seeded
from lean_align.policy.encoding import load_encoder
from lean_align.policy.loading import Policy, resolve_device
from lean_align.policy.sources import model_path
from lean_align.recipe import DataRecipe, LoraRecipe, ModelRecipe
from lean_align.rng import seed_for

FAST_INFERENCE_SHARE = 0.6
"""Of a card, for vLLM's weights, keys and values; in standby the training takes them over."""


def load_unsloth_policy(
    model: ModelRecipe,
    data: DataRecipe,
    lora: LoraRecipe,
    longest: int,
    adapter: Path | None = None,
    seed: int = 0,
    gradient_checkpointing: bool = False,
    fast_inference: bool = False,
) -> Policy:
    """Load the base model with Unsloth, and put an adapter on it.

    Parameters
    ----------
    model, data, lora : ModelRecipe, DataRecipe, LoraRecipe
    longest : int
        Tokens of the longest prompt with a completion.
    adapter : Path, optional
        Go on from this adapter in place of a fresh one.
    seed : int
        Seed of a fresh adapter.
    gradient_checkpointing : bool
        Unsloth's own, which keeps activations in the machine's memory.
    fast_inference : bool
        Sample with vLLM; needs a card.

    Returns
    -------
    Policy
        The base frozen, adapter weights in float32.
    """
    from unsloth import FastLanguageModel

    if adapter is not None:
        check_adapter(model, adapter)
    encoder, device = load_encoder(model, data), resolve_device(model.device)
    checkpointing = "unsloth" if gradient_checkpointing else False
    faster = {"fast_inference": True, "gpu_memory_utilization": FAST_INFERENCE_SHARE} if fast_inference else {}
    base, _ = FastLanguageModel.from_pretrained(
        model_name=model_path(model.name),
        revision=model.revision,
        max_seq_length=longest,
        dtype=getattr(torch, model.dtype),
        load_in_4bit=model.quantization == "nf4",
        use_exact_model_name=True,
        trust_remote_code=False,
        use_gradient_checkpointing=checkpointing,
        max_lora_rank=max(8, lora.r),
        random_state=seed_for(seed, "lora") % 2**31,
        **faster,
    )
    base.requires_grad_(False)
    shape = _shape(lora, adapter)
    policy_model = FastLanguageModel.get_peft_model(
        base,
        **shape,
        lora_dropout=0.0,
        bias="none",
        use_gradient_checkpointing=checkpointing,
        random_state=seed_for(seed, "lora") % 2**31,
    )
    if adapter is not None:
        set_peft_model_state_dict(policy_model, dict(read_weights(adapter)))
    else:
        draw_adapter(policy_model, seed)
    for parameter in policy_model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    return Policy(policy_model, encoder, device, encoder.eos_token_ids)


def draw_adapter(model: Any, seed: int) -> None:
    """Give a fresh adapter the numbers that peft draws in `add_adapter`, layer by layer, whatever drew it first."""
    with seeded(seed_for(seed, "lora")), torch.no_grad():
        for module in model.modules():
            if isinstance(module, LoraLayer):
                first, second = (getattr(module, name)["default"].weight for name in ("lora_A", "lora_B"))
                # peft makes two linear layers, which draw theirs, before it draws the first again
                drawn = torch.nn.Linear(first.shape[1], first.shape[0], bias=False)
                torch.nn.Linear(second.shape[1], second.shape[0], bias=False)
                torch.nn.init.kaiming_uniform_(drawn.weight, a=5**0.5)
                first.copy_(drawn.weight)
                second.zero_()


def _shape(lora: LoraRecipe, adapter: Path | None) -> dict[str, Any]:
    if adapter is not None:
        config = read_config(adapter)
        targets = config.target_modules
        shape = targets if isinstance(targets, str) else sorted(targets)
        return {"r": config.r, "lora_alpha": config.lora_alpha, "target_modules": shape}
    return adapter_shape(lora)
