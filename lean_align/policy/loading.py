"""Load a base model, frozen, with an adapter on it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from lean_align.errors import ModelError
from lean_align.memory import forget_mapped_files
from lean_align.policy.adapters import add_adapter, check_adapter, some
from lean_align.policy.encoding import PromptEncoder, load_encoder
from lean_align.policy.families import family_of
from lean_align.policy.four_bits import share_4bit, shortfall
from lean_align.policy.sources import load_part
from lean_align.progress import say
from lean_align.recipe import DataRecipe, LoraRecipe, ModelRecipe

_BLOCK = 64  # weights that share a scale in NF4


@dataclass(frozen=True)
class Policy:
    """A loaded model and what is needed to talk to it.

    Attributes
    ----------
    model : PreTrainedModel or PeftModel
    encoder : PromptEncoder
    device : torch.device
    eos_token_ids : tuple of int
        Any of them ends a completion.
    share_4bit : float or None
        Of the numbers in the base's matrices, see `four_bits.share_4bit`; None where 4 bits were not asked for.
    """

    model: Any
    encoder: PromptEncoder
    device: torch.device
    eos_token_ids: tuple[int, ...]
    share_4bit: float | None = None

    @property
    def lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trainable parameters by name, in the model's order."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

    @property
    def lora_sizes(self) -> dict[str, int]:
        """Number of entries of each trainable parameter, in the model's order."""
        return {name: parameter.numel() for name, parameter in self.lora_parameters.items()}

    @property
    def pad_token_id(self) -> int:
        """Id that fills up short rows; the first end token where the tokenizer has none."""
        pad = self.encoder.tokenizer.pad_token_id
        return int(pad if pad is not None else self.eos_token_ids[0])

    @property
    def causal_lm(self) -> Any:
        """The model below peft's wrapper: backbone and output layer."""
        return self.model.get_base_model() if hasattr(self.model, "get_base_model") else self.model


def resolve_device(device: str) -> torch.device:
    """The device a recipe means.

    Raises
    ------
    ModelError
        When CUDA is asked for and there is none.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise ModelError("model.device is 'cuda' but torch sees no card. Set model.device=cpu, or fix the driver.")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def load_policy(
    model: ModelRecipe,
    data: DataRecipe,
    lora: LoraRecipe | None = None,
    adapter: Path | None = None,
    seed: int = 0,
) -> Policy:
    """Load the base model, and put an adapter on it.

    Parameters
    ----------
    model, data : ModelRecipe, DataRecipe
    lora : LoraRecipe, optional
        Make a fresh adapter of this shape, seeded.
    adapter : Path, optional
        Load this adapter, trainable; goes before `lora`.
    seed : int
        Seed of a fresh adapter.

    Returns
    -------
    Policy
        The base frozen, adapter weights in float32, the model in evaluation mode.

    Raises
    ------
    ModelError
        When the model cannot be loaded, its widths do not suit 4-bit blocks, its checkpoint lacks weights, or the
        adapter does not fit it; the last is found before the model is loaded.
    """
    if adapter is not None:
        check_adapter(model, adapter)
    encoder = load_encoder(model, data)
    device = resolve_device(model.device)
    if device.type == "cpu" and (line := slow_type(model)) is not None:
        say(line)
    base = _load_base(model, device)
    base.requires_grad_(False)
    share = _share_4bit(model, base) if model.quantization == "nf4" else None
    policy_model = add_adapter(base, lora, adapter, seed)
    return Policy(policy_model.eval(), encoder, device, encoder.eos_token_ids, share)


def slow_type(model: ModelRecipe) -> str | None:
    """What to say where this processor computes in a recipe's 16 bits without instructions for them; None elsewhere.

    A product of 256 x 576 by 576 x 1536 numbers took 56 ms in bfloat16 and 6 in float32 on a processor with AVX2 alone,
    with one thread.
    """
    has = {
        "bfloat16": torch.ops.mkldnn._is_mkldnn_bf16_supported,
        "float16": torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }
    if model.dtype not in has or has[model.dtype]():
        return None
    return (
        f"{model.name} computes in {model.dtype}, for which this processor has no instructions: model.dtype=float32 is "
        "several times as fast here, and takes more memory"
    )


def _share_4bit(model: ModelRecipe, base: Any) -> float:
    share, other_bytes = share_4bit(base)
    line = shortfall(model.name, share, other_bytes)
    if line is not None:
        say(line)
    return share


def _load_base(model: ModelRecipe, device: torch.device) -> Any:
    dtype = getattr(torch, model.dtype)
    packing = {}  # given as None, it would hide the one of a checkpoint that lies in 4 bits
    if model.quantization == "nf4":
        _check_widths(model)
        packing["quantization_config"] = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    transformers_logging.disable_progress_bar()
    base, found = load_part(
        AutoModelForCausalLM,
        model,
        dtype=dtype,
        device_map={"": device.type},
        output_loading_info=True,
        **attention_options(load_part(AutoConfig, model)),
        **packing,
    )
    if found["missing_keys"]:  # transformers would fill them with random numbers
        raise ModelError(
            f"model.name is {model.name!r}: its files lack {len(found['missing_keys'])} weights that its config.json "
            f"asks for ({some(found['missing_keys'])}). Copy or download them again, or fix the configuration."
        )
    if packing and device.type == "cpu":
        forget_mapped_files(".safetensors")
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    keep_head_contiguous(base)
    return base


def attention_options(config: Any) -> dict[str, str]:
    """What to tell transformers of a model's attention, so that it computes what the model was trained with."""
    attention = family_of(config).attention
    return {} if attention is None else {"attn_implementation": attention}


def keep_head_contiguous(base: Any) -> None:
    """Give the output layer contiguous rows.

    `hidden_states[:, -1:]` is strided, and without gradients torch multiplies such rows one by one by copies of the
    weight: 64 rows of SmolLM2's head took 7.7 s and 3.4 GB on one CPU thread, in place of 0.02 s and nothing.
    """
    head = base.get_output_embeddings()
    if head is not None:
        head.register_forward_pre_hook(_contiguous)


def _contiguous(module: torch.nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(x.contiguous() if isinstance(x, torch.Tensor) else x for x in inputs)


def _check_widths(model: ModelRecipe) -> None:
    config = load_part(AutoConfig, model).get_text_config()
    for key in ("hidden_size", "intermediate_size"):
        width = getattr(config, key, _BLOCK)
        if isinstance(width, int) and width % _BLOCK:
            raise ModelError(
                f"{model.name} has {key} {width}, no multiple of {_BLOCK}: 4-bit blocks do not fit. "
                "Set model.quantization=none."
            )
