"""The policy as a plain folder of whole weights, for an engine that reads neither 4-bit blocks nor adapters."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors.torch import save_file

from lean_align.policy.loading import Policy

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 2 * 2**30


def save_dense(policy: Policy, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the policy with its 4-bit weights decoded and its adapter merged, as transformers reads a model.

    Decoding is exact: the numbers are those that bitsandbytes multiplies with.  W + (alpha / r) B A is summed in
    float32, then rounded to `dtype`.

    Parameters
    ----------
    policy : Policy
        Left as it is.  A policy without an adapter gives its base.
    folder : Path
        Made when absent.  Gets weights, configuration and tokenizer.
    dtype : torch.dtype
        Of the weights on disk.  In bfloat16 an entry moves only where its update is larger than about W / 512: after
        a short training most of an adapter is lost, so merge in float32.
    shard_bytes : int
        Size of a file; so many bytes are held in memory beside the policy.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names: dict[str, str] = {}
    total = 0
    for count, shard in enumerate(_shards(_weights(policy.causal_lm, dtype), shard_bytes), start=1):
        file = f"model-{count:05}.safetensors"
        save_file(shard, folder / file, metadata={"format": "pt"})
        names |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": names}))
    config = policy.causal_lm.config.to_dict()
    config.pop("quantization_config", None)
    config["dtype"] = str(dtype).removeprefix("torch.")
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str))
    policy.encoder.tokenizer.save_pretrained(folder)


def _weights(model: Any, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of every weight of the base, adapters merged; those that the model ties to another left out."""
    from bitsandbytes.functional import dequantize_4bit
    from bitsandbytes.nn.modules import Linear4bit

    seen: set[int] = set()
    for name, module in model.named_modules():
        if ".lora_" in name or name.endswith(".base_layer"):
            continue
        layer = module.base_layer if isinstance(module, BaseTunerLayer) else module
        parameter: Any  # of bitsandbytes, where it is 4-bit
        for key, parameter in layer.named_parameters(recurse=False):
            if id(parameter) in seen:
                continue
            seen.add(id(parameter))
            value = parameter.data
            if isinstance(layer, Linear4bit) and key == "weight":
                value = dequantize_4bit(value, parameter.quant_state)
            if isinstance(module, BaseTunerLayer) and key == "weight":
                deltas = [module.get_delta_weight(adapter) for adapter in module.active_adapters]
                value = value.float() + sum(delta.float() for delta in deltas)
            yield f"{name}.{key}", value.to(device="cpu", dtype=dtype).contiguous()


def _shards(weights: Iterator[tuple[str, torch.Tensor]], shard_bytes: int) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for name, tensor in weights:
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > shard_bytes:
            yield shard
            shard = {}
        shard[name] = tensor
    if shard:
        yield shard
