"""Configurations of the shipped recipes' models, as their config.json on the hub has them.

A plan needs them before anything is downloaded.  Fields that bear on no size are left out.
"""

from __future__ import annotations

from typing import Any

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
