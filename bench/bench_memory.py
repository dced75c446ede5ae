"""What the gradient of one group adds to the loaded model, for shapes that people run: NF4, LoRA r = 16, bfloat16.

Random weights in the shape of Qwen2.5-0.5B and Qwen2.5-1.5B, 8 random completions of equal length after a prompt of
about 100 tokens, rewards planted. Each line is a fresh process; it is stopped at 20 GiB, and the row says so. `full
logits` is the naive pass: 8 padded rows at once, logits of every position.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from bench.cases import CACHE
from bench.child import added_memory, in_child
from bench.measure import Row, Settings, attempt
from bench.passes import naive
from lean_align.gradients import GradientSettings, prompt_gradients
from lean_align.policy import DEMO_MODEL, Policy, load_policy
from lean_align.projection import make_projector
from lean_align.recipe import load_recipe
from lean_align.types import Completion, Group, Prompt

COMPLETIONS, PROMPT_TOKENS = 8, 100
FIELDS = ("hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size")
SHAPES = {"Qwen2.5-0.5B": (896, 24, 14, 4864), "Qwen2.5-1.5B": (1536, 28, 12, 8960), "tiny": (128, 2, 2, 256)}
WAYS = {"ours, token budget 4096": 4096, "ours, token budget 1024": 1024, "full logits": None}


def measure(settings: Settings) -> Iterator[Row]:
    shapes = settings.pick(["tiny"], ["Qwen2.5-0.5B"], ["Qwen2.5-0.5B", "Qwen2.5-1.5B"])
    for shape in shapes:
        model = make_model(shape, settings.seed)
        for checkpointing in settings.pick([True, False], [True], [True, False]):
            for way, budget in WAYS.items():
                if settings.size == "quick" and budget == 1024:
                    continue
                columns = {"shape": shape, "completion_tokens": settings.pick(16, 64, 512), "way": way}
                options = columns | {"model": str(model), "budget": budget, "checkpointing": checkpointing}
                options.pop("way"), options.pop("shape")
                columns["checkpointing"] = "on" if checkpointing else "off"
                yield attempt(columns, lambda options=options: in_child("bench_memory:group", **options))


def make_model(shape: str, seed: int) -> Path:
    """A folder with random bfloat16 weights and the embedded model's tokenizer; kept in the cache."""
    folder = CACHE / f"random-{shape}"
    if not (folder / "config.json").exists():
        from transformers import Qwen2Config, Qwen2ForCausalLM

        fields = {"vocab_size": 151_936, "num_key_value_heads": 2, "tie_word_embeddings": True}
        partial = folder.with_name(folder.name + ".partial")
        torch.manual_seed(seed)
        config = Qwen2Config(**dict(zip(FIELDS, SHAPES[shape])), **fields, dtype=torch.bfloat16)
        model = Qwen2ForCausalLM(config).bfloat16()
        model.save_pretrained(partial)
        for path in DEMO_MODEL.iterdir():
            if path.name.startswith("tokenizer") or path.suffix == ".jinja":
                shutil.copy(path, partial)
        partial.rename(folder)
    return folder


def group(model: str, completion_tokens: int, budget: int | None, checkpointing: bool) -> Row:
    """Memory and seconds of one group's gradient, in a process of its own."""
    recipe = load_recipe("gsm8k", {"model.name": model, "data.system_prompt": None})
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    groups = [random_group(policy, completion_tokens)]
    with added_memory() as found:
        start = time.perf_counter()
        if budget is None:
            naive(policy, groups, 1.0)
        else:
            projector = make_projector("sjlt", policy.lora_sizes, recipe.gradients.proj_dim, device=policy.device)
            settings = GradientSettings(token_budget=budget, logprob_chunk=recipe.gradients.logprob_chunk)
            list(prompt_gradients(policy, groups, projector, settings))
        seconds = time.perf_counter() - start
    found.pop("added_anonymous_bytes")
    return (
        {"loaded_bytes": found.pop("before_bytes")}
        | found
        | {
            "seconds": seconds,
            "tokens_per_second": COMPLETIONS * completion_tokens / seconds,
        }
    )


def random_group(policy: Policy, completion_tokens: int) -> Group:
    prompt = Prompt("p", "Ann has 3 apples. ", "3")
    while len(policy.encoder.encode(prompt)) < PROMPT_TOKENS:
        prompt = replace(prompt, prompt=prompt.prompt + "Ann finds 2 apples. ")
    generator = torch.Generator().manual_seed(0)
    vocabulary = policy.causal_lm.config.vocab_size
    ids = torch.randint(1000, min(150_000, vocabulary), (COMPLETIONS, completion_tokens), generator=generator).tolist()
    first = Completion("p", 0, "", (), completion_tokens, 0.0, True)
    rows = [replace(first, index=i, token_ids=tuple(row), reward=float(i % 2)) for i, row in enumerate(ids)]
    return Group(prompt, tuple(rows))
