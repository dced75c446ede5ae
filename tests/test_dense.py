"""A policy as a folder of whole weights: what it holds, and what merging in few bits would lose."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from peft import IA3Config, LoKrConfig
from safetensors import safe_open
from small_models import fill, load, log_probs, save_model, save_peft
from transformers import AutoModelForCausalLM

import lean_align.policy.dense as dense
from lean_align.errors import ModelError
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


KINDS_OF_ADAPTER = {
    "dora": ("llama", {"use_dora": True}),
    "dora-embedding": ("llama", {"use_dora": True, "target_modules": ["q_proj", "embed_tokens"]}),
    "rslora": ("llama", {"use_rslora": True}),
    "lora-bias": ("qwen2", {"lora_bias": True, "target_modules": ["q_proj", "v_proj"]}),
    "biases": ("qwen2", {"bias": "all"}),
    "modules": ("llama", {"modules_to_save": ["lm_head", "norm"]}),
    "embedding": ("llama", {"modules_to_save": ["embed_tokens"]}),
    "tied-head": ("llama-tied", {"target_modules": ["q_proj", "lm_head"]}),
    "tied-embedding": ("llama-tied", {"target_modules": ["q_proj", "embed_tokens"]}),
    "tied-modules": ("llama-tied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
    "tokens": ("llama", {"trainable_token_indices": [7, 8]}),
    "tied-tokens": ("llama-tied", {"trainable_token_indices": [7, 8]}),
    "transposed": ("gpt2", {"target_modules": ["c_attn"], "fan_in_fan_out": True}),
    "pissa": ("llama", {"init_lora_weights": "pissa"}),
    "ia3": ("llama", {"config": IA3Config(target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"])}),
    "lokr": ("llama", {"config": LoKrConfig(r=4, target_modules=["k_proj", "down_proj"])}),
}
IN_4_BITS = ("dora", "modules", "transposed")
CASES = [(name, "none") for name in KINDS_OF_ADAPTER] + [(name, "nf4") for name in IN_4_BITS]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of a model by its kind; each is made once."""
    folder = tmp_path_factory.mktemp("models")
    return lambda kind: save_model(kind, folder / kind)


def assert_reads_back(policy, folder):
    """The folder, loaded by transformers, has every key, none besides, and the policy's log-probabilities."""
    plain, found = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert (log_probs(plain, IDS) - log_probs(policy.model, IDS)).abs().max() < 2e-4


@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_every_kind_of_adapter_is_in_the_folder(models, tmp_path, name, quantization):
    kind, how = KINDS_OF_ADAPTER[name]
    save_peft(models(kind), tmp_path / "adapter", **how)
    policy = load(models(kind), tmp_path / "adapter", quantization)
    save_dense(policy, tmp_path / "dense", torch.float32)
    assert_reads_back(policy, tmp_path / "dense")
    tied = json.loads((tmp_path / "dense" / "config.json").read_text())["tie_word_embeddings"]
    assert tied == (name in ("tied-tokens", "transposed"))  # as before; the others set the two matrices apart


@pytest.mark.parametrize(("name", "quantization"), CASES)
def test_changed_weights_make_an_older_folder_the_policy(models, tmp_path, name, quantization):
    kind, how = KINDS_OF_ADAPTER[name]
    save_peft(models(kind), tmp_path / "adapter", **how)
    policy = load(models(kind), tmp_path / "adapter", quantization)
    save_dense(policy, tmp_path / "dense", torch.float32)
    fill(policy.model, 0.2)
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "dense", dtype=torch.float32)
    assert (log_probs(plain, IDS) - log_probs(policy.model, IDS)).abs().max() > 0.1
    put_in(plain, dense.changed_weights(policy, torch.float32))
    assert (log_probs(plain, IDS) - log_probs(policy.model, IDS)).abs().max() < 2e-3


def put_in(plain, changed):
    own = plain.state_dict()
    for name, weight in changed:
        own[name if name in own else f"{plain.base_model_prefix}.{name}"].copy_(weight)


def test_of_a_layer_that_changes_all_weights_are_given_and_of_others_none(models, tmp_path):
    """An engine that joins queries, keys and values takes them together."""
    one = {"target_modules": ["q_proj"], "layers_to_transform": [1], "modules_to_save": ["lm_head"]}
    save_peft(models("llama"), tmp_path / "adapter", **one)
    policy = load(models("llama"), tmp_path / "adapter")
    given = dict(dense.changed_weights(policy, torch.bfloat16))
    plain = AutoModelForCausalLM.from_pretrained(models("llama"))
    layer = {name for name, _ in plain.named_parameters() if name.startswith("model.layers.1.")}
    assert len(layer) == 9
    assert given.keys() == layer | {"lm_head.weight"}
    assert {weight.dtype for weight in given.values()} == {torch.bfloat16}
    assert not any(weight.requires_grad for weight in given.values())


def test_experts_of_a_layer_that_changes_have_the_names_of_their_family_s_files(models):
    given = dict(dense.changed_weights(load(models("mixtral"), fresh=True), torch.float32))
    with safe_open(models("mixtral") / "model.safetensors", "pt") as file:
        layers = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys() if ".layers." in name}  # noqa: SIM118
    assert {name: tuple(weight.shape) for name, weight in given.items() if ".layers." in name} == layers


def test_without_an_adapter_nothing_changes(models):
    assert not list(dense.changed_weights(load(models("llama")), torch.float32))


@pytest.mark.parametrize(
    ("kind", "quantization"),
    [(kind, "none") for kind in ("mixtral", "qwen3_moe", "olmoe", "gpt_oss", "deepseek_v3")] + [("mixtral", "nf4")],
)
def test_experts_are_in_the_folder_under_the_names_of_their_family_s_files(models, tmp_path, kind, quantization):
    policy = load(models(kind), quantization=quantization, fresh=True)
    fill(policy.model)
    save_dense(policy, tmp_path, torch.float32)
    assert_reads_back(policy, tmp_path)
    with safe_open(models(kind) / "model.safetensors", "pt") as file:
        originals = set(file.keys())
    assert json.loads((tmp_path / "model.safetensors.index.json").read_text())["weight_map"].keys() == originals


def test_a_kind_that_cannot_be_merged_into_4_bits_is_refused(models, tmp_path):
    save_peft(models("llama"), tmp_path / "adapter", **KINDS_OF_ADAPTER["ia3"][1])
    with pytest.raises(ModelError, match=r"kind IA3 cannot be merged into 4-bit.*engine=transformers"):
        save_dense(load(models("llama"), tmp_path / "adapter", "nf4"), tmp_path / "dense", torch.float32)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda weights: weights[:-1], r"does not read back: 1 missing keys \(lm_head.weight\)"),
        (
            lambda weights: [*weights, replace(weights[0], name="model.more", base=0, value=lambda: torch.ones(3))],
            r"does not read back: 1 unexpected keys \(model.more\)",
        ),
        (
            lambda weights: [
                replace(w, value=lambda w=w: -w.value()) if w.name.endswith("0.mlp.up_proj.weight") else w
                for w in weights
            ],
            r"reads back as another model: log-probabilities differ by",
        ),
    ],
)
def test_the_export_finds_a_planted_fault(models, tmp_path, monkeypatch, spoil, reason):
    merged = dense.merged_weights
    monkeypatch.setattr(dense, "merged_weights", lambda model: spoil(list(merged(model))))
    with pytest.raises(ModelError, match=reason):
        save_dense(load(models("llama"), fresh=True), tmp_path, torch.float32)


def test_a_checkpoint_that_lay_in_4_bits_is_decoded(models, tmp_path):
    first = load(models("llama"), quantization="nf4")
    first.model.save_pretrained(tmp_path / "packed")
    first.encoder.tokenizer.save_pretrained(tmp_path / "packed")
    policy = load(tmp_path / "packed", fresh=True)
    fill(policy.model)
    save_dense(policy, tmp_path / "dense", torch.float32)
    assert_reads_back(policy, tmp_path / "dense")
