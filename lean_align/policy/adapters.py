"""The LoRA adapter: made from a seed, loaded, saved as plain peft files."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from lean_align.errors import LeanAlignError, ModelError
from lean_align.memory import shortage_of
from lean_align.policy.adapter_files import CONFIG, read_config
from lean_align.policy.saving import like_other_files, writing_tensors
from lean_align.policy.sources import first_line
from lean_align.recipe import LoraRecipe
from lean_align.rng import seed_for


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put them back after it.

    `generate` and LoRA's initialisation draw from them and take no generator of their own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as plain peft files; equal adapters give equal bytes.

    Raises
    ------
    DiskFullError
    """
    with writing_tensors(folder):
        model.save_pretrained(folder, selected_adapters=["default"])
        path = folder / CONFIG
        config = json.loads(path.read_text())
        for key, value in config.items():
            if isinstance(value, list):
                config[key] = sorted(value, key=str)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for weights in folder.glob("*.safetensors"):
            like_other_files(weights)


@contextmanager
def adapter_kept(model: Any) -> Iterator[None]:
    """Put trainable weights back, bit for bit, after a block that casts them.

    trl makes them bfloat16 over a 4-bit base; updates of small learning rates would be rounded away.
    """
    kept = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]


def adapter_shape(lora: LoraRecipe) -> dict[str, Any]:
    """A recipe's adapter in peft's words: r, lora_alpha and target_modules."""
    targets: str | list[str] = lora.target_modules
    if targets != "all-linear":
        targets = sorted(name.strip() for name in lora.target_modules.split(","))
    return {"r": lora.r, "lora_alpha": lora.alpha, "target_modules": targets}


def add_adapter(base: Any, lora: LoraRecipe | None, adapter: Path | None, seed: int) -> Any:
    """The base with the adapter of a folder, trainable; else with a fresh one; else as it is."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        try:
            return PeftModel.from_pretrained(base, adapter, is_trainable=True, config=read_config(adapter))
        except (
            AttributeError,
            ImportError,
            LookupError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if shortage_of(error) is not None or isinstance(error, LeanAlignError):
                raise
            raise ModelError(
                f"the adapter {adapter} cannot be put on {base.config.name_or_path} ({first_line(error)})."
            ) from error
    if lora is None:
        return base
    config = LoraConfig(**adapter_shape(lora), lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
    with seeded(seed_for(seed, "lora")):
        return get_peft_model(base, config)
