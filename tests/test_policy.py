from __future__ import annotations

import dataclasses
import json

import pytest
import torch

from lean_align.errors import ModelError
from lean_align.policy import load_encoder, load_policy, model_path, save_adapter, seeded
from lean_align.policy.loading import slow_type
from lean_align.recipe import load_recipe
from lean_align.types import Prompt

DEMO = load_recipe("demo")


def test_only_the_adapter_is_trainable_and_in_float32():
    policy = load_policy(DEMO.model, DEMO.data, DEMO.lora)
    names = list(policy.lora_parameters)
    assert len(names) == 4 * 7 * 2  # layers x linear maps x (A, B)
    assert all("lora_A" in name or "lora_B" in name for name in names)
    assert {p.dtype for p in policy.lora_parameters.values()} == {torch.float32}


def test_the_base_is_4_bit_with_double_quantisation():
    policy = load_policy(DEMO.model, DEMO.data)
    weight = policy.model.model.layers[0].self_attn.q_proj.weight
    assert type(weight).__name__ == "Params4bit"
    assert weight.quant_type == "nf4"
    assert weight.quant_state.nested


def test_a_fresh_adapter_depends_on_the_seed_alone():
    first, again, other = (load_policy(DEMO.model, DEMO.data, DEMO.lora, seed=seed) for seed in (1, 1, 2))
    name = next(iter(first.lora_parameters))
    assert torch.equal(first.lora_parameters[name], again.lora_parameters[name])
    assert not torch.equal(first.lora_parameters[name], other.lora_parameters[name])


def test_seeded_puts_the_generator_back():
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    with seeded(5):
        torch.rand(7)
    assert torch.equal(torch.rand(2), expected)


def test_a_saved_adapter_loads_to_the_same_logits_and_the_same_bytes(tmp_path, make_policy):
    policy = make_policy("nf4")
    for folder in ("one", "two"):
        save_adapter(policy.model, tmp_path / folder)
    for name in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    config = json.loads((tmp_path / "one" / "adapter_config.json").read_text())
    assert config["target_modules"] == sorted(config["target_modules"])
    loaded = load_policy(DEMO.model, DEMO.data, adapter=tmp_path / "one")
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(loaded.model(ids).logits, policy.model(ids).logits)


def test_prompts_go_through_the_chat_template():
    encoder = load_encoder(
        DEMO.model, dataclasses.replace(DEMO.data, system_prompt="Think.", prompt_template="Q {prompt}")
    )
    prompt = Prompt("p", "1 + 1?", "2")
    assert encoder.request(prompt) == [
        {"role": "system", "content": "Think."},
        {"role": "user", "content": "Q 1 + 1?"},
    ]
    assert encoder.tokenizer.decode(encoder.encode(prompt)) == "<|user|>Think.<|user|>Q 1 + 1?<|assistant|>"


def test_plain_prompts_are_taken_as_they_are():
    encoder = load_encoder(DEMO.model, dataclasses.replace(DEMO.data, prompt_format="plain"))
    prompt = Prompt("p", "12 + 1?", "13")
    assert encoder.tokenizer.decode(encoder.encode(prompt)) == "12 + 1?"


def test_braces_in_a_prompt_are_left_alone():
    encoder = load_encoder(DEMO.model, dataclasses.replace(DEMO.data, prompt_format="plain"))
    assert encoder.request(Prompt("p", r"\frac{1}{2} {prompt}", "1")) == r"\frac{1}{2} {prompt}"


@pytest.mark.parametrize("name", ["/no/such/folder", "./nowhere", "a/b/c"])
def test_a_folder_that_is_not_there_is_named(name):
    with pytest.raises(ModelError, match="no such folder"):
        model_path(name)


def test_a_folder_that_is_no_model_is_named(tmp_path):
    model = dataclasses.replace(DEMO.model, name=str(tmp_path))
    with pytest.raises(ModelError, match="could not load it"):
        load_encoder(model, DEMO.data)


def test_widths_that_do_not_suit_4_bit_blocks_are_refused(tmp_path):
    source = load_encoder(DEMO.model, DEMO.data)
    source.tokenizer.save_pretrained(tmp_path)
    config = json.loads((model_folder() / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "hidden_size": 96}))
    with pytest.raises(ModelError, match=r"hidden_size 96, not a multiple of 64.*quantization=none"):
        load_policy(dataclasses.replace(DEMO.model, name=str(tmp_path)), DEMO.data)


def test_cuda_is_refused_where_there_is_none(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ModelError, match="sees no card"):
        load_policy(dataclasses.replace(DEMO.model, device="cuda"), DEMO.data)


def model_folder():
    from pathlib import Path

    return Path(model_path("demo"))


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_the_output_layer_gets_contiguous_rows(make_policy, quantization):
    """Strided rows, as `logits_to_keep` leaves them, would be multiplied by a copy of the weight each."""
    policy = make_policy(quantization)
    seen = []
    policy.causal_lm.get_output_embeddings().register_forward_pre_hook(lambda head, inputs: seen.append(inputs[0]))
    ids = torch.arange(5, 45).reshape(2, 20)
    with torch.no_grad():
        last = policy.model(ids, logits_to_keep=1).logits
        whole = policy.model(ids).logits
    assert [tuple(states.shape[:2]) for states in seen] == [(2, 1), (2, 20)]
    assert all(states.is_contiguous() for states in seen)
    assert torch.allclose(last, whole[:, -1:], atol=1e-5)


def test_an_adapter_of_another_model_is_named(make_policy, tmp_path):
    """Of twice the width: torch's own message has a line for each weight."""
    from safetensors.torch import load_file, save_file

    save_adapter(make_policy().model, tmp_path)
    path = tmp_path / "adapter_model.safetensors"
    save_file({name: torch.cat([weight, weight], dim=-1) for name, weight in load_file(path).items()}, path)
    recipe = load_recipe("demo", {"model.quantization": "none"})
    with pytest.raises(ModelError, match=r"does not fit demo: .*56 have other sizes .* this one names") as caught:
        load_policy(recipe.model, recipe.data, None, tmp_path)
    assert "\n" not in str(caught.value)


def test_an_adapter_in_the_place_of_a_model_is_named(tmp_path):
    (tmp_path / "adapter_config.json").write_text("{}")
    with pytest.raises(ModelError, match="an adapter; expected the model that it was trained on"):
        load_policy(load_recipe("demo", {"model.name": str(tmp_path)}).model, load_recipe("demo").data)


@pytest.mark.parametrize(("dtype", "supported", "said"), [("bfloat16", False, True), ("bfloat16", True, False)])
def test_a_type_without_instructions_is_said(monkeypatch, dtype, supported, said):
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: supported)
    line = slow_type(load_recipe("demo", {"model.dtype": dtype}).model)
    assert (line is not None and "model.dtype=float32 is several times as fast" in line) == said


def test_float32_is_never_slow():
    assert slow_type(load_recipe("demo", {"model.dtype": "float32"}).model) is None
