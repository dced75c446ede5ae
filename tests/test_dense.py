"""A policy as a folder of whole weights: what it holds, and what merging in few bits would lose."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoModelForCausalLM

from lean_align.policy import load_policy, save_dense
from lean_align.recipe import load_recipe

IDS = torch.arange(5, 45).reshape(2, 20)


def logits(model):
    with torch.no_grad():
        return model(IDS).logits.float()


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_folder_loads_as_a_plain_model_with_the_policy_s_logits(make_policy, tmp_path, quantization):
    policy = make_policy(quantization)
    save_dense(policy, tmp_path, torch.float32, shard_bytes=300_000)
    assert len(list(tmp_path.glob("*.safetensors"))) > 3
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert plain.dtype == torch.float32
    assert not hasattr(plain.config, "quantization_config")
    assert not any("lora" in name or "absmax" in name for name, _ in plain.named_parameters())
    whole, own = logits(plain), logits(policy.model)
    with policy.model.disable_adapter():
        bare = logits(policy.model)
    assert (whole - own).abs().max() < 1e-3
    assert (bare - own).abs().max() > 0.1  # so the adapter is in it


def test_without_an_adapter_it_is_the_base(tmp_path):
    recipe = load_recipe("demo")
    policy = load_policy(recipe.model, recipe.data)
    save_dense(policy, tmp_path, torch.float32)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    assert (logits(plain) - logits(policy.model)).abs().max() < 1e-3


def test_weights_that_are_tied_are_written_once(make_policy, tmp_path):
    policy = make_policy()
    assert policy.causal_lm.config.tie_word_embeddings
    save_dense(policy, tmp_path, torch.float32)
    names = json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"]
    assert "model.embed_tokens.weight" in names
    assert "lm_head.weight" not in names


def test_a_small_adapter_survives_float32_and_is_lost_in_bfloat16(make_policy, tmp_path):
    """The base's weights are bfloat16 numbers; updates of a thousandth of them are below half a step of theirs."""
    policy = make_policy(dtype="bfloat16", b_scale=1e-6)
    bare = {name: p.float() for name, p in policy.causal_lm.named_parameters() if name.endswith("base_layer.weight")}
    moved = {}
    for dtype in (torch.float32, torch.bfloat16):
        folder = tmp_path / str(dtype)
        save_dense(policy, folder, dtype)
        plain = dict(AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).named_parameters())
        pairs = [(plain[name.replace(".base_layer", "")], weight) for name, weight in bare.items()]
        moved[dtype] = sum(int((a != b).sum()) for a, b in pairs) / sum(b.numel() for _, b in pairs)
    assert moved[torch.float32] > 0.9
    assert moved[torch.bfloat16] < 0.05
