"""The policy: a frozen base model, 4-bit or 16-bit, with a LoRA adapter.  The only importer of
bitsandbytes and peft.

Two traps are guarded here.  bitsandbytes on a CPU with avx512_bf16 repacks 4-bit weights in place at
the first forward without gradients, and every later backward then silently gives none: the switch is
put off right after loading.  And peft writes its target modules in the order of a set: the saved
configuration is put in order, so that equal adapters are equal files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig
from transformers.utils import logging as transformers_logging

from lean_align.errors import ModelError
from lean_align.recipe import DataRecipe, LoraRecipe, ModelRecipe
from lean_align.rng import seed_for
from lean_align.types import Prompt

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of an inference kernel that is not used here

DEMO_MODEL = Path(__file__).parent / "demo" / "model"
_BLOCK = 64  # weights that share a scale in NF4


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put them back after it.

    `generate` and LoRA's initialisation draw from them and take no generator of their own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@dataclass(frozen=True)
class PromptEncoder:
    """Tokenizer and the way a prompt is put to the model."""

    tokenizer: Any
    prompt_format: str
    system_prompt: str | None
    prompt_template: str

    def request(self, prompt: Prompt) -> str | list[dict[str, str]]:
        """The prompt as trl takes it: a text, or chat messages."""
        text = self.prompt_template.replace("{prompt}", prompt.prompt)
        if self.prompt_format == "plain":
            return text
        system = [{"role": "system", "content": self.system_prompt}] if self.system_prompt is not None else []
        return [*system, {"role": "user", "content": text}]

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of the prompt, up to where the completion begins."""
        request = self.request(prompt)
        if isinstance(request, str):
            return list(self.tokenizer(request)["input_ids"])
        return list(
            self.tokenizer.apply_chat_template(request, add_generation_prompt=True, tokenize=True, return_dict=True)[
                "input_ids"
            ]
        )

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of a completion, without special tokens."""
        return str(self.tokenizer.decode(list(token_ids), skip_special_tokens=True))


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
    """

    model: Any
    encoder: PromptEncoder
    device: torch.device
    eos_token_ids: tuple[int, ...]

    @property
    def lora_parameters(self) -> dict[str, torch.nn.Parameter]:
        """The trainable parameters by name, in the model's order."""
        return {name: p for name, p in self.model.named_parameters() if p.requires_grad}

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
        raise ModelError("model.device is 'cuda' but torch sees no card. Set model.device=cpu, or mend the driver.")
    return torch.device("cuda" if device == "cuda" or (device == "auto" and torch.cuda.is_available()) else "cpu")


def model_path(name: str) -> str:
    """Folder or hub id behind a recipe's model name.

    Raises
    ------
    ModelError
        When the name looks like a folder and is none.
    """
    if name == "demo":
        return str(DEMO_MODEL)
    if Path(name).is_dir():
        return str(Path(name).resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model.name is {name!r}: no such folder. Give a local folder, a hub id, or 'demo'.")
    return name


def load_encoder(model: ModelRecipe, data: DataRecipe) -> PromptEncoder:
    """Load the tokenizer.

    Raises
    ------
    ModelError
        When it cannot be loaded, or has no chat template and the recipe asks for one.
    """
    tokenizer = _load(AutoTokenizer, model)
    if data.prompt_format == "chat" and not tokenizer.chat_template:
        raise ModelError(f"the tokenizer of {model.name} has no chat template. Set data.prompt_format=plain.")
    return PromptEncoder(tokenizer, data.prompt_format, data.system_prompt, data.prompt_template)


def context_length(model: ModelRecipe) -> int:
    """Most tokens the model can attend to, from its configuration."""
    config = _load(AutoConfig, model)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))


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
        When the model cannot be loaded, or its widths do not suit 4-bit blocks.
    """
    encoder = load_encoder(model, data)
    device = resolve_device(model.device)
    base = _load_base(model, device)
    base.requires_grad_(False)
    policy_model = _add_adapter(base, lora, adapter, seed)
    return Policy(policy_model.eval(), encoder, device, _eos_token_ids(base, encoder.tokenizer))


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as plain peft files; equal adapters give equal bytes."""
    model.save_pretrained(folder, selected_adapters=["default"])
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    for key, value in config.items():
        if isinstance(value, list):
            config[key] = sorted(value, key=str)
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


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


def _load(loader: Any, model: ModelRecipe, **options: Any) -> Any:
    path = model_path(model.name)
    try:
        return loader.from_pretrained(path, revision=model.revision, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model.name is {model.name!r}: {loader.__name__} could not load it ({reason}). "
            "Give a local folder with config, weights and tokenizer, or the id of a model on the hub."
        ) from error


def _load_base(model: ModelRecipe, device: torch.device) -> Any:
    dtype = getattr(torch, model.dtype)
    quantization = None
    if model.quantization == "nf4":
        _check_widths(model)
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    transformers_logging.disable_progress_bar()
    base = _load(
        AutoModelForCausalLM, model, dtype=dtype, quantization_config=quantization, device_map={"": device.type}
    )
    for module in base.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False
    return base


def _check_widths(model: ModelRecipe) -> None:
    config = _load(AutoConfig, model).get_text_config()
    for key in ("hidden_size", "intermediate_size"):
        width = getattr(config, key, _BLOCK)
        if isinstance(width, int) and width % _BLOCK:
            raise ModelError(
                f"{model.name} has {key} {width}, no multiple of {_BLOCK}: 4-bit blocks do not fit. "
                "Set model.quantization=none."
            )


def _add_adapter(base: Any, lora: LoraRecipe | None, adapter: Path | None, seed: int) -> Any:
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        return PeftModel.from_pretrained(base, adapter, is_trainable=True)
    if lora is None:
        return base
    targets: str | list[str] = lora.target_modules
    if targets != "all-linear":
        targets = sorted(name.strip() for name in lora.target_modules.split(","))
    config = LoraConfig(
        r=lora.r, lora_alpha=lora.alpha, lora_dropout=0.0, bias="none", target_modules=targets, task_type="CAUSAL_LM"
    )
    with seeded(seed_for(seed, "lora")):
        return get_peft_model(base, config)


def _eos_token_ids(base: Any, tokenizer: Any) -> tuple[int, ...]:
    declared = base.generation_config.eos_token_id
    declared = [declared] if isinstance(declared, int) else list(declared or [])
    own = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    ids = tuple(dict.fromkeys([*own, *declared]))
    if not ids:
        raise ModelError("neither the tokenizer nor the model names an end token; completions could not end.")
    return ids
