"""Random models of a few layers and 64 wide, with the embedded model's tokenizer, and adapters on them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lean_align.policy import DEMO_MODEL, Policy, load_policy
from lean_align.recipe import load_recipe

SIZES = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 0,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "initializer_range": 0.2,
}
EXPERTS = {"num_experts_per_tok": 2, "head_dim": 16, "num_hidden_layers": 1}
SLOTS = {
    "num_key_value_heads": 4,
    "q_lora_rank": 32,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 16,
    "v_head_dim": 16,
    "n_routed_experts": 4,
    "moe_intermediate_size": 64,
    "first_k_dense_replace": 0,
    "n_group": 1,
    "topk_group": 1,
    "n_shared_experts": 1,
}
KINDS: dict[str, dict[str, Any]] = {
    "llama": {"tie_word_embeddings": False},
    "llama-tied": {"tie_word_embeddings": True},
    "qwen2": {},
    "gpt2": {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256},
    "mixtral": EXPERTS | {"num_local_experts": 4, "sliding_window": None},
    "qwen3_moe": EXPERTS | {"num_experts": 4, "moe_intermediate_size": 64},
    "olmoe": EXPERTS | {"num_experts": 4},
    "gpt_oss": EXPERTS | {"num_local_experts": 4},
    "deepseek_v3": {"num_experts_per_tok": 2, "num_hidden_layers": 1} | SLOTS,
}


def save_model(kind: str, folder: Path) -> Path:
    """A model of a kind, seeded; `folder` as it is where it has been made."""
    if (folder / "config.json").exists():
        return folder
    torch.manual_seed(3)
    config = AutoConfig.for_model(kind.partition("-")[0], **SIZES | KINDS[kind])
    model = AutoModelForCausalLM.from_config(config).float()
    with torch.no_grad():
        for parameter in model.parameters():  # parameters of some kinds are left empty
            if parameter.ndim == 3 or not parameter.isfinite().all():
                parameter.normal_(0, 0.2)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(DEMO_MODEL).save_pretrained(folder)
    return folder


def recipe_of(model: Path, quantization: str = "none"):
    """A recipe of float32 and LoRA of rank 4."""
    own = {"model.name": str(model), "model.quantization": quantization, "model.dtype": "float32"}
    return load_recipe("demo", own | {"lora.r": 4, "lora.alpha": 8})


def load(model: Path, adapter: Path | None = None, quantization: str = "none", fresh: bool = False) -> Policy:
    """The policy that a recipe of this model gives."""
    recipe = recipe_of(model, quantization)
    return load_policy(recipe.model, recipe.data, recipe.lora if fresh else None, adapter)


def fill(model: Any, scale: float = 0.1) -> None:
    """Move everything that is trained, so that the adapter has an effect."""
    generator = torch.Generator().manual_seed(2)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data + scale * torch.randn(parameter.shape, generator=generator)


def save_peft(model: Path, folder: Path, config: Any = None, **lora: Any) -> PeftModel:
    """Put an adapter on a model, move it, save it as peft does, and hand it back."""
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    own = {"r": 4, "lora_alpha": 16, "target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    torch.manual_seed(0)
    made = get_peft_model(base, config or LoraConfig(**own | lora))
    fill(made)
    made.eval().save_pretrained(folder)
    return made


def change_weights(folder: Path, change: Any, name: str = "adapter_model.safetensors") -> None:
    """Give the file of weights to a function of a dict, and write what it returns."""
    changed = {key: value.clone() for key, value in change(load_file(folder / name)).items()}
    save_file(changed, folder / name, metadata={"format": "pt"})


def change_json(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def log_probs(model: Any, ids: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=ids, use_cache=False).logits.float().log_softmax(-1)
