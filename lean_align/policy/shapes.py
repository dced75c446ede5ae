"""A policy of the right shapes and types that holds no numbers: what planning runs the stages' code on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import torch
from bitsandbytes.nn.modules import Linear4bit, Params4bit
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.quantizer_bnb_4bit import Bnb4BitHfQuantizer
from transformers.quantizers.quantizers_utils import should_convert_module

from lean_align.errors import ModelError
from lean_align.policy.adapters import add_adapter
from lean_align.policy.loading import Policy, attention_options, keep_head_contiguous
from lean_align.policy.sources import load_part, model_path
from lean_align.recipe import LoraRecipe, ModelRecipe
from lean_align.types import Prompt

_FIELDS = (
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "intermediate_size",
    "vocab_size",
    "tie_word_embeddings",
)
_QWEN2_5 = {
    "Qwen/Qwen2.5-0.5B-Instruct": (896, 24, 14, 2, 4864, 151_936, True),
    "Qwen/Qwen2.5-1.5B-Instruct": (1536, 28, 12, 2, 8960, 151_936, True),
    "Qwen/Qwen2.5-3B-Instruct": (2048, 36, 16, 2, 11_008, 151_936, True),
    "Qwen/Qwen2.5-7B-Instruct": (3584, 28, 28, 4, 18_944, 152_064, False),
    "Qwen/Qwen2.5-7B": (3584, 28, 28, 4, 18_944, 152_064, False),
}
KNOWN_MODELS: dict[str, dict[str, Any]] = {
    name: {"model_type": "qwen2", "max_position_embeddings": 32_768, **dict(zip(_FIELDS, sizes))}
    for name, sizes in _QWEN2_5.items()
} | {
    "HuggingFaceTB/SmolLM2-135M-Instruct": {
        "model_type": "llama",
        "max_position_embeddings": 8192,
        **dict(zip(_FIELDS, (576, 30, 9, 3, 1536, 49_152, True))),
    }
}
"""Arguments of `AutoConfig.for_model` by the model's name on the hub."""


_BLOCK, _OUTER_BLOCK = 64, 256  # weights that share a scale, and scales that share one, in NF4 with double quantisation


@dataclass(frozen=True)
class LengthEncoder:
    """Stands in for a tokenizer where only the number of tokens matters: every prompt has `n_tokens`."""

    n_tokens: int
    tokenizer: ClassVar[Any] = SimpleNamespace(pad_token_id=0)

    def encode(self, prompt: Prompt) -> Sequence[int]:
        """As many zeros as the prompt has tokens."""
        return [0] * self.n_tokens


def model_config(model: ModelRecipe) -> Any:
    """The configuration of a recipe's model, without any of its weights.

    A shipped recipe's model is known to the package, so that nothing is downloaded; of others, a local folder's or
    the hub's config.json is read.

    Raises
    ------
    ModelError
        When there is none.
    """
    known = KNOWN_MODELS.get(model.name)
    return load_part(AutoConfig, model) if known is None else AutoConfig.for_model(**known)


def is_local(model: ModelRecipe) -> bool:
    """Whether the model lies on this disk, so that its tokenizer can be read."""
    return Path(model_path(model.name)).is_dir()


def shape_policy(model: ModelRecipe, lora: LoraRecipe | None, prompt_tokens: int) -> Policy:
    """A policy on torch's `meta` device: operations give shapes and types, and take no memory.

    Parameters
    ----------
    model : ModelRecipe
    lora : LoraRecipe or None
        Without it the base is bare.
    prompt_tokens : int
        Length of every prompt.

    Returns
    -------
    Policy
        Linear layers as `load_policy` would hold them; with `nf4` each makes its weights again, in the type of the
        activations, for every forward and backward pass, as bitsandbytes does.

    Raises
    ------
    ModelError
        When the model is not a causal language model, its configuration cannot be found, or peft puts no adapter on it.
    """
    config, dtype = model_config(model), getattr(torch, model.dtype)
    options = attention_options(config)
    try:
        with torch.device("meta"):
            base = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False, **options)
            if model.quantization == "nf4":
                _quantise(base, dtype)
            keep_head_contiguous(base)
            base.requires_grad_(False)
    except ValueError as error:
        raise ModelError(f"{model.name} cannot be planned: {str(error).splitlines()[0]}") from error
    try:
        with torch.device("meta"):
            shaped = add_adapter(base, lora, None, 0)
    except ValueError as error:
        raise ModelError(
            f"{model.name} cannot take an adapter on lora.target_modules={lora and lora.target_modules}: "
            f"{str(error).splitlines()[0]} Name other layers, separated by commas."
        ) from error
    for parameter in shaped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
    encoder: Any = LengthEncoder(prompt_tokens)
    return Policy(shaped.eval(), encoder, torch.device("meta"), (0,))


def with_prompt_length(policy: Policy, prompt_tokens: int) -> Policy:
    """The policy with prompts of a fixed length in place of its tokenizer."""
    encoder: Any = LengthEncoder(prompt_tokens)
    return replace(policy, encoder=encoder)


def weight_bytes(policy: Policy) -> int:
    """Bytes of all parameters and buffers, shared ones once."""
    tensors = [*policy.model.parameters(), *policy.model.buffers()]
    return sum({id(t.untyped_storage()): t.untyped_storage().nbytes() for t in tensors}.values())


def loading_bytes(policy: Policy) -> int:
    """Bytes while 4-bit weights are made on a CPU: the file's pages of those layers in 16 bits, and what they become.

    0 without quantisation: the weights are then the file's own pages.
    """
    layers = [module for module in policy.model.modules() if isinstance(module, _ShapeLinear4bit)]
    packed = sum(t.nbytes for layer in layers for t in (layer.weight, layer.scales, layer.outer_scales))
    return packed + sum(2 * layer.in_features * layer.out_features for layer in layers)


def _quantise(base: Any, dtype: torch.dtype) -> None:
    """Replace each layer that transformers has bitsandbytes pack by a stand-in, by transformers' own rule."""
    kept = Bnb4BitHfQuantizer.get_modules_to_not_convert(base, None, base._keep_in_fp32_modules)
    for name, layer in list(base.named_modules()):
        if (type(layer) is torch.nn.Linear or isinstance(layer, Conv1D)) and should_convert_module(name, kept):
            base.set_submodule(name, _ShapeLinear4bit(layer, dtype))
    base.is_loaded_in_4bit = True  # peft asks, and then wraps each as it wraps bitsandbytes' own


class _ShapeLinear4bit(Linear4bit):
    """The bytes of a 4-bit layer: packed weights, their scales, and the whole weights while a product is taken."""

    scales: torch.Tensor
    outer_scales: torch.Tensor

    def __init__(self, linear: torch.nn.Linear | Conv1D, dtype: torch.dtype) -> None:
        torch.nn.Module.__init__(self)
        out_features, in_features = linear.weight.T.shape if isinstance(linear, Conv1D) else linear.weight.shape
        self.in_features, self.out_features, self.compute_dtype = in_features, out_features, dtype
        n = linear.weight.numel()
        self.weight = Params4bit(
            torch.empty((n + 1) // 2, 1, dtype=torch.uint8, device="meta"),
            requires_grad=False,
            compress_statistics=True,
            quant_type="nf4",
            bnb_quantized=True,
        )
        self.bias = linear.bias
        self.register_buffer("scales", torch.empty(-(-n // _BLOCK), dtype=torch.uint8, device="meta"))
        outer = -(-n // (_BLOCK * _OUTER_BLOCK)) + _OUTER_BLOCK + 16  # and the two code books
        self.register_buffer("outer_scales", torch.empty(outer, dtype=torch.float32, device="meta"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        before = x.dtype
        out: torch.Tensor = _ShapeProduct.apply(x.to(self.compute_dtype), self.out_features)  # type: ignore[no-untyped-call]
        return (out if self.bias is None else out + self.bias.to(out.dtype)).to(before)


class _ShapeProduct(torch.autograd.Function):
    """x W^T with a W that exists during the product alone; autograd keeps nothing of it."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, out_features: int) -> torch.Tensor:
        ctx.shape = out_features, x.shape[-1]
        return torch.nn.functional.linear(x, x.new_empty(ctx.shape))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        (gradient,) = gradients
        return gradient @ gradient.new_empty(ctx.shape), None
