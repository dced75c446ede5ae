"""Folders of models that are broken, or want more than to be read: one sentence each, and no code of theirs run."""

from __future__ import annotations

import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file
from small_models import change_json, change_weights, load, recipe_of, save_model
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from lean_align.errors import ModelError
from lean_align.policy.sources import load_part

NESTED = '{"a":' * 50_000 + "1" + "}" * 50_000


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return save_model("llama", tmp_path_factory.mktemp("models") / "llama")


@pytest.fixture
def model(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "model")


def in_shards(model):
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").unlink()
    halves = {"model-00001-of-00002.safetensors": {}, "model-00002-of-00002.safetensors": {}}
    for i, (name, value) in enumerate(weights.items()):
        list(halves.values())[i % 2][name] = value
    for file, half in halves.items():
        save_file(half, model / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, half in halves.items() for name in half}}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))


def missing_shard(model):
    in_shards(model)
    (model / "model-00002-of-00002.safetensors").unlink()


def truncated_shard(model):
    in_shards(model)
    path = model / "model-00002-of-00002.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def truncated(model):
    path = model / "model.safetensors"
    path.write_bytes(path.read_bytes()[:5000])


def hostile_pickle(model):
    (model / "model.safetensors").unlink()
    torch.save({"model.norm.weight": SimpleNamespace(run=print)}, model / "pytorch_model.bin")


def without_a_layer(model):
    change_weights(model, lambda w: {k: v for k, v in w.items() if "layers.1." not in k}, "model.safetensors")


def other_names(model):
    change_weights(model, lambda w: {f"x.{k}": v for k, v in w.items()}, "model.safetensors")


def wider(model):
    change_json(model / "config.json", intermediate_size=128)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncated, r"model\.safetensors is damaged or cut off, 5000 bytes"),
        (truncated_shard, r"model-00002-of-00002\.safetensors is damaged or cut off, 5000 bytes"),
        (lambda model: (model / "model.safetensors").write_bytes(b""), r"damaged or cut off, 0 bytes"),
        (missing_shard, r"model-00002-of-00002\.safetensors"),
        (lambda model: (model / "model.safetensors").unlink(), r"could not load it"),
        (hostile_pickle, r"a pickle that holds more than tensors"),
        (without_a_layer, r"its files lack 9 weights .*\(model\.layers\.1\.input_layernorm\.weight, .*\.\.\.\)"),
        (other_names, r"its files lack 21 weights"),
        (wider, r"weights have other sizes than its config\.json asks for"),
        (lambda model: (model / "config.json").write_text(NESTED), r"could not load it"),
        (lambda model: (model / "config.json").write_text("[]"), r"could not load it"),
        (lambda model: (model / "config.json").write_bytes(b"\xff\xfe{"), r"could not load it"),
        (lambda model: change_json(model / "config.json", hidden_size="wide"), r"could not load it"),
        (lambda model: change_json(model / "config.json", num_attention_heads=0), r"could not load it"),
        (lambda model: (model / "tokenizer.json").write_text(NESTED), r"could not load it"),
        (lambda model: (model / "tokenizer.json").write_text("{}"), r"could not load it"),
        (lambda model: (model / "tokenizer.json").write_text("not JSON"), r"could not load it"),
        (lambda model: (model / "tokenizer_config.json").write_text(NESTED), r"could not load it"),
        (lambda model: (model / "generation_config.json").write_text(NESTED), r"could not load it"),
    ],
)
def test_what_is_broken_is_one_sentence(model, spoil, reason):
    spoil(model)
    with pytest.raises(ModelError, match=reason) as caught:
        load(model)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700


def test_weights_pickled_as_plain_tensors_are_read(model, whole):
    torch.save(load_file(model / "model.safetensors"), model / "pytorch_model.bin")
    (model / "model.safetensors").unlink()
    ids = torch.arange(5, 25)[None]
    with torch.no_grad():
        assert torch.equal(load(model).model(ids).logits, load(whole).model(ids).logits)


@pytest.fixture
def mark(tmp_path):
    """A file that the model's own code would write."""
    return tmp_path / "it-ran"


@pytest.mark.parametrize("loader", [AutoConfig, AutoModelForCausalLM, AutoTokenizer])
def test_a_model_s_own_code_is_neither_run_nor_offered(model, mark, monkeypatch, loader):
    monkeypatch.setattr("builtins.input", lambda *prompt: pytest.fail("a question was asked"))
    (model / "own.py").write_text(f"open({str(mark)!r}, 'w').close()\nclass Own: pass\n")
    own = {"AutoConfig": "own.Own", "AutoModelForCausalLM": "own.Own", "AutoTokenizer": ["own.Own", "own.Own"]}
    change_json(model / "tokenizer_config.json", tokenizer_class="Own", auto_map=own)
    if loader is not AutoTokenizer:
        change_json(model / "config.json", model_type="own", auto_map=own)
    recipe = recipe_of(model)
    with pytest.raises(ModelError, match="needs Python code of its own"):
        load_part(loader, recipe.model)
    assert not mark.exists()
