"""Tiny random models of the families that people use, each with a tokenizer of characters: `make models-zoo`.

They know nothing, but each is put together as its family is.  Weights are large enough that the likeliest token is
clear, windows are shorter than a prompt with its completion, and a few tokens are whole answers ("#### 1"), so that
some completions of a random model are right.
"""

from __future__ import annotations

import json
import string
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

WINDOW = 24
SPECIAL = ("<pad>", "<bos>", "<eos>", "<|im_start|>", "<|im_end|>")
ANSWERS = tuple(f"{before}#### {digit}{after}" for digit in "12" for before in ("", " ") for after in ("", "\n", " "))
CHARACTERS = tuple("0123456789 ?.,'+-*/=\n" + string.ascii_letters)
VOCABULARY = (*SPECIAL, "<unk>", *CHARACTERS, *ANSWERS)
CHAT = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
_SIZES: dict[str, Any] = {
    "vocab_size": len(VOCABULARY),
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "initializer_range": 0.2,
    "tie_word_embeddings": False,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 4,
}
_HEADS = {"head_dim": 16}
_EXPERTS = {"num_experts_per_tok": 2, "moe_intermediate_size": 64}
_LINEAR = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "layer_types": ["linear_attention", "full_attention"],
}
_GEMMA = {**_HEADS, "query_pre_attn_scalar": 16, "sliding_window": WINDOW}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "qwen2": ("qwen2", {}),
    "qwen3": ("qwen3", _HEADS),
    "qwen3_moe": ("qwen3_moe", {**_HEADS, **_EXPERTS, "num_experts": 4}),
    "mistral": ("mistral", {"sliding_window": WINDOW}),
    "gemma2": ("gemma2", _GEMMA),
    "gemma3": ("gemma3_text", {**_GEMMA, "layer_types": ["sliding_attention", "full_attention"]}),
    "phi3": ("phi3", {"sliding_window": WINDOW}),
    "granite": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "residual_multiplier": 0.5}),
    "cohere": ("cohere", {"logit_scale": 0.25}),
    "olmo2": ("olmo2", {}),
    "gpt_neox": ("gpt_neox", {}),
    "gpt_oss": ("gpt_oss", {**_HEADS, "num_local_experts": 4, "num_experts_per_tok": 2, "sliding_window": WINDOW}),
    "qwen3_5": ("qwen3_5_text", {**_HEADS, **_LINEAR}),
    "qwen3_next": (
        "qwen3_next",
        {**_HEADS, **_LINEAR, **_EXPERTS, "num_experts": 4, "shared_expert_intermediate_size": 64},
    ),
    "lfm2": ("lfm2", {"layer_types": ["conv", "full_attention"]}),
    "mamba": ("mamba", {"state_size": 8}),
    "llama4": (
        "llama4_text",
        {
            **_HEADS,
            "num_local_experts": 2,
            "num_experts_per_tok": 1,
            "intermediate_size_mlp": 128,
            "attention_chunk_size": WINDOW,
            "layer_types": ["chunked_attention", "full_attention"],
            "no_rope_layers": [1, 0],
        },
    ),
}
"""By name: transformers' model type, and what its configuration has beside the common sizes."""
LABELS = {
    "llama": "Llama 2 and 3, SmolLM2",
    "qwen2": "Qwen2, Qwen2.5",
    "qwen3": "Qwen3",
    "qwen3_moe": "Qwen3-MoE",
    "mistral": "Mistral",
    "gemma2": "Gemma 2",
    "gemma3": "Gemma 3 (text)",
    "phi3": "Phi-3",
    "granite": "Granite",
    "cohere": "Cohere",
    "olmo2": "OLMo 2",
    "gpt_neox": "GPT-NeoX, Pythia",
    "gpt_oss": "gpt-oss",
    "qwen3_5": "Qwen3.5 (text)",
    "qwen3_next": "Qwen3-Next",
    "lfm2": "LFM2",
}
VLLM_TESTED = ("llama",)
NOT_RUN = ("mamba", "llama4")
"""Decoded in tests, but not run as a whole."""


def make_config(name: str, **settings: Any) -> Any:
    """The configuration of a family's tiny model."""
    from transformers import AutoConfig

    model_type, own = FAMILIES[name]
    return AutoConfig.for_model(model_type, **{**_SIZES, **own, **settings})


def make_tokenizer() -> Any:
    """Characters, control tokens, and a few whole answers that no text is encoded to."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(VOCABULARY)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
    inner.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner,
        unk_token="<unk>",
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<|im_end|>",
        additional_special_tokens=["<|im_start|>"],
    )
    tokenizer.chat_template = CHAT
    return tokenizer


def make_model(name: str, seed: int = 0, **settings: Any) -> Any:
    """A family's tiny model with random weights, float32."""
    import torch
    from transformers import AutoModelForCausalLM

    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(make_config(name, **settings), dtype=torch.float32).eval()
        for parameter in model.parameters():  # some experts are made without values
            if not torch.isfinite(parameter).all() or (parameter.dim() == 3 and parameter.std() < 1e-3):
                parameter.data.normal_(0, 0.2)
    model.generation_config.eos_token_id, model.generation_config.pad_token_id = 4, 0
    return model


def write_model(name: str, folder: Path, **settings: Any) -> Path:
    """Write a family's tiny model as transformers reads it; returns its folder."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    make_model(name, **settings).save_pretrained(folder / name)
    make_tokenizer().save_pretrained(folder / name)
    return folder / name


def write_questions(path: Path, n: int, first: int = 0) -> Path:
    """Questions of different lengths whose answers are 1 and 2, as JSON lines."""
    rows = [
        {"prompt": f"{'so ' * (i % 4)}what is {3 + i} - {2 + i - i % 2}?", "answer": str(1 + i % 2)}
        for i in range(first, first + n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def main(folder: str, names: Iterable[str]) -> None:
    """Write models, and questions for them."""
    into = Path(folder)
    into.mkdir(parents=True, exist_ok=True)
    for name in names or FAMILIES:
        print(write_model(name, into))
    print(write_questions(into / "train.jsonl", 8), write_questions(into / "held_out.jsonl", 4, first=8))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
