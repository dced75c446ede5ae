"""Every weight of a policy under its base model's name, with 4-bit blocks decoded and the adapter in it.

Linear maps, embeddings and parameters with LoRA on them (its plain form, rsLoRA and DoRA), whole modules that an
adapter brings (`modules_to_save`), embedding rows (`trainable_token_indices`) and biases are worked out here, in
float32.  Of other kinds of adapters (IA3, LoKr, ...) a copy of the one layer is merged by peft, over a base in
plain numbers; over 4-bit blocks, and where an update depends on the input, no such weight exists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn.modules import Linear4bit
from peft.tuners.lora import LoraLayer
from peft.tuners.lora.layer import Embedding, ParamWrapper
from peft.tuners.lora.variants import DoraEmbeddingVariant, DoraLinearVariant
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import ModulesToSaveWrapper, TrainableTokensWrapper
from transformers.pytorch_utils import Conv1D

from lean_align.errors import ModelError


@dataclass(frozen=True)
class Weight:
    """A weight of the model, not computed yet.

    Attributes
    ----------
    name : str
        In the base model, as if there were no adapter.
    base, source : int
        Which tensor it is in the base model, and which one it is now: weights that the model ties have one `base`,
        and are still tied where they have one `source`.
    value : callable
        Works it out, on the model's device: decoded, and in float32 where an adapter changes it.
    is_buffer : bool
    is_trained : bool
        It is trained itself, as biases that come with an adapter are.
    """

    name: str
    base: int
    source: int
    value: Callable[[], torch.Tensor]
    is_buffer: bool = False
    is_trained: bool = False


def merged_weights(model: torch.nn.Module, prefix: str = "") -> Iterator[Weight]:
    """Weights of a model below peft's wrapper, and the buffers that a checkpoint holds, in the model's order.

    Raises
    ------
    ModelError
        From `value`, where the adapter is of a kind that cannot be merged.
    """
    module: Any = model
    if isinstance(module, ModulesToSaveWrapper):
        active = [] if module.disable_adapters else [a for a in module.active_adapters if a in module.modules_to_save]
        original = module.original_module
        if not active:
            yield from merged_weights(original, prefix)
            return
        bases = {weight.name: weight.base for weight in merged_weights(original, prefix)}
        for weight in merged_weights(module.modules_to_save[active[0]], prefix):
            yield replace(weight, base=bases[weight.name])
        return
    layers = [module.token_adapter] if isinstance(module, TrainableTokensWrapper) else []
    layers += [module] if isinstance(module, BaseTunerLayer) else []
    while layers and isinstance(getattr(layers[-1], "base_layer", None), BaseTunerLayer):
        layers.append(layers[-1].base_layer)
    inner = layers[-1].base_layer if layers else module
    for key, tensor in inner.named_parameters(recurse=False):
        changing = [layer for layer in reversed(layers) if _changes(layer, key)]
        source = id(_owner(changing[-1])) if changing else id(tensor)
        value = _value(inner, key, changing)
        yield Weight(_joined(prefix, key), id(tensor), source, value, is_trained=tensor.requires_grad)
    for key, tensor in inner.named_buffers(recurse=False):
        if key not in inner._non_persistent_buffers_set:
            yield Weight(_joined(prefix, key), id(tensor), id(tensor), _held(tensor), is_buffer=True)
    for key, child in inner.named_children():
        yield from merged_weights(child, _joined(prefix, key))


def _held(tensor: torch.Tensor) -> Callable[[], torch.Tensor]:
    return lambda: tensor


def _joined(prefix: str, key: str) -> str:
    return f"{prefix}.{key}" if prefix else key


def _owner(layer: Any) -> Any:
    """Whose numbers change the weight: tied rows of trainable tokens are one layer's."""
    return (layer.tied_adapter or layer) if isinstance(layer, TrainableTokensLayer) else layer


def _changes(layer: Any, key: str) -> bool:
    if layer.disable_adapters or layer.merged or not layer.active_adapters:
        return False
    if isinstance(layer, ParamWrapper):
        return bool(layer.parameter_name == key)
    if isinstance(layer, LoraLayer):
        return key == "weight" or any(layer.lora_bias.get(adapter) for adapter in layer.active_adapters)
    return key == "weight" if isinstance(layer, TrainableTokensLayer) else True


def _value(inner: Any, key: str, changing: list[Any]) -> Callable[[], torch.Tensor]:
    def value() -> torch.Tensor:
        packed = isinstance(inner, Linear4bit) and key == "weight"
        parameter: Any = getattr(inner, key)
        found = dequantize_4bit(parameter.data, parameter.quant_state) if packed else parameter.data
        for layer in changing:
            found = _changed(layer, key, found.float(), packed)
        # bitsandbytes holds the transpose of GPT-2's kind of linear map
        transposed = packed and issubclass(getattr(inner, "source_cls", torch.nn.Linear), Conv1D)
        return found.T if transposed else found

    return value


def _changed(layer: Any, key: str, weight: torch.Tensor, packed: bool) -> torch.Tensor:
    if isinstance(layer, TrainableTokensLayer):
        for adapter in layer.active_adapters:
            rows = torch.tensor(layer.token_indices[adapter], device=weight.device)
            weight = weight.index_copy(0, rows, layer.trainable_tokens_delta[adapter].data.to(weight))
        return weight
    if isinstance(layer, LoraLayer):
        for adapter in layer.active_adapters:
            if adapter in layer.scaling:
                weight = _with_lora(layer, adapter, key, weight)
        return weight
    if packed:
        raise ModelError(
            f"an adapter of kind {_kind(layer)} cannot be merged into 4-bit weights. Set model.quantization=none, or "
            "sample with rollouts.engine=transformers."
        )
    copied = deepcopy(layer).float()
    copied.merge()
    return getattr(copied.get_base_layer(), key).data  # type: ignore[no-any-return]


def _with_lora(layer: Any, adapter: str, key: str, weight: torch.Tensor) -> torch.Tensor:
    if key == "bias":
        bias: torch.Tensor = layer.scaling[adapter] * layer.lora_B[adapter].bias.data.float()
        return weight + bias
    variant = layer.lora_variant.get(adapter)
    if variant is not None and type(variant) not in (DoraLinearVariant, DoraEmbeddingVariant):
        raise ModelError(
            f"an adapter of kind {type(variant).__name__.removesuffix('Variant')} cannot be merged; expected plain "
            "LoRA or DoRA. Sample with rollouts.engine=transformers."
        )
    delta: torch.Tensor = layer.get_delta_weight(adapter).detach().float()
    weight = weight + delta
    if variant is None:
        return weight
    across = 0 if isinstance(layer, Embedding) or getattr(layer, "fan_in_fan_out", False) else 1
    magnitude: torch.Tensor = layer.lora_magnitude_vector[adapter].weight.data
    norms: torch.Tensor = torch.linalg.norm(weight, dim=across, keepdim=True)
    return weight * magnitude.float().reshape(norms.shape) / norms


def _kind(layer: Any) -> str:
    return type(layer).__module__.split(".")[2].upper()  # peft.tuners.ia3.layer
