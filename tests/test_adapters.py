"""Adapters that do not fit their model, or are no whole adapters, are refused before the model is loaded."""

from __future__ import annotations

import errno
import json
import shutil
from types import SimpleNamespace

import pytest
import torch
from peft import IA3Config, PrefixTuningConfig
from safetensors import SafetensorError
from safetensors.torch import load_file
from small_models import change_json, change_weights, load, log_probs, recipe_of, save_model, save_peft
from transformers import AutoModelForCausalLM

import lean_align.policy.loading as loading
from lean_align.errors import DiskFullError, ModelError
from lean_align.evaluation import evaluate_model
from lean_align.policy import save_adapter
from lean_align.policy.adapters import check_adapter, check_request

IDS = torch.arange(5, 25)[None]
WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Folder of a model by its kind; each is made once."""
    folder = tmp_path_factory.mktemp("models")
    return lambda kind: save_model(kind, folder / kind)


@pytest.fixture(scope="module")
def whole(models, tmp_path_factory):
    """A right adapter of the Llama."""
    folder = tmp_path_factory.mktemp("adapters") / "plain"
    save_peft(models("llama"), folder)
    return folder


@pytest.fixture
def adapter(whole, tmp_path):
    """A copy to spoil."""
    return shutil.copytree(whole, tmp_path / "adapter")


def renamed(weights):
    return {key.replace("model.layers", "transformer.h"): value for key, value in weights.items()}


def without_a_layer(weights):
    return {key: value for key, value in weights.items() if "layers.1." not in key}


def with_a_layer_more(weights):
    more = {k.replace("layers.1.", "layers.7."): v for k, v in weights.items() if "layers.1." in k}
    return weights | more


def twice_as_wide(weights):
    return {key: torch.cat([value, value], dim=-1) for key, value in weights.items()}


def with_nan(weights):
    next(iter(weights.values()))[0, 0] = torch.nan
    return weights


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (
            renamed,
            r"28 weights are missing \(base_model.model.model.layers.0.mlp.down_proj.lora_A.weight, .*, \.\.\.\), "
            r"28 are unexpected \(base_model.model.transformer.h.0.*\.\.\.\)",
        ),
        (without_a_layer, r"does not fit .* of 28 weights .* 14 weights are missing \(.*layers\.1\.mlp"),
        (with_a_layer_more, r"14 are unexpected \(.*layers\.7\.mlp"),
        (twice_as_wide, r"28 have other sizes \(.*lora_A.weight.*: \[4, 128\], expected \[4, 64\]\)"),
        (with_nan, r"holds NaN or infinite numbers \(in base_model.*\): its training diverged"),
        (lambda weights: {}, r"28 weights are missing"),
    ],
)
def test_weights_that_do_not_fit_are_named(models, adapter, monkeypatch, spoil, reason):
    monkeypatch.setattr(loading, "_load_base", lambda *given: pytest.fail("the model was loaded"))
    change_weights(adapter, spoil)
    with pytest.raises(ModelError, match=reason) as caught:
        load(models("llama"), adapter)
    assert "\n" not in str(caught.value)


def names(adapter, model):
    config = json.loads((adapter / CONFIG).read_text())
    (adapter / CONFIG).write_text(json.dumps(config | {"base_model_name_or_path": str(model)}))


def test_an_adapter_of_another_architecture_with_the_same_names_is_refused(models, adapter):
    names(adapter, models("qwen2"))
    with pytest.raises(ModelError, match=r"trained on .*qwen2, a model of type qwen2; .*llama is of type llama"):
        load(models("llama"), adapter)


def test_an_adapter_that_names_another_place_is_said(models, adapter, capsys):
    names(adapter, "someone/another-name")
    load(models("llama"), adapter)
    assert "names someone/another-name as its model" in capsys.readouterr().err


def truncate(adapter):
    content = (adapter / WEIGHTS).read_bytes()
    (adapter / WEIGHTS).write_bytes(content[: len(content) // 2])


def one_deeper(adapter):
    (adapter / "default").mkdir()
    for name in (WEIGHTS, CONFIG):
        (adapter / name).rename(adapter / "default" / name)


def pickled(adapter):
    torch.save(load_file(adapter / WEIGHTS), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()


def hostile_pickle(adapter):
    torch.save(SimpleNamespace(run=print), adapter / "adapter_model.bin")
    (adapter / WEIGHTS).unlink()


def nested(adapter):
    (adapter / CONFIG).write_text("[" * 100_000)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (truncate, r"adapter_model\.safetensors is damaged \(.*bytes\)\. Copy or download it again"),
        (lambda adapter: (adapter / WEIGHTS).write_bytes(b""), r"is damaged"),
        (lambda adapter: (adapter / WEIGHTS).unlink(), r"has no adapter_model\.safetensors"),
        (lambda adapter: (adapter / CONFIG).unlink(), r"has no adapter_config\.json; expected the folder of a peft"),
        (one_deeper, r"has no adapter_config\.json.*There is one deeper: give .*/default\."),
        (hostile_pickle, r"cannot be read as plain tensors.*can run code"),
        (nested, r"adapter_config\.json is not valid JSON"),
        (lambda adapter: (adapter / CONFIG).write_text("[]"), r"expected a JSON object"),
        (lambda adapter: change_json(adapter / CONFIG, peft_type="NEW"), r"names peft_type 'NEW'"),
        (lambda adapter: change_json(adapter / CONFIG, r="four"), r"cannot be put on|not a configuration that peft"),
        (lambda adapter: change_json(adapter / CONFIG, target_modules=["Wqkv"]), r"cannot be put on .*Wqkv"),
        (lambda adapter: change_json(adapter / CONFIG, megatron_config={"a": 1}), r"Megatron"),
    ],
)
def test_a_folder_that_is_no_whole_adapter_is_named(models, adapter, spoil, reason):
    spoil(adapter)
    with pytest.raises(ModelError, match=reason) as caught:
        check_adapter(recipe_of(models("llama")).model, adapter)
    assert "\n" not in str(caught.value)


def test_prefixes_are_refused(models, tmp_path):
    config = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=4)
    save_peft(models("llama"), tmp_path, config)
    with pytest.raises(ModelError, match="PREFIX_TUNING, which changes prompts"):
        check_adapter(recipe_of(models("llama")).model, tmp_path)


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        ("llama", {"use_dora": True}),
        ("llama", {"modules_to_save": ["lm_head", "norm"]}),
        ("llama", {"trainable_token_indices": [7, 8]}),
        ("llama", {"target_modules": ["q_proj", "embed_tokens"]}),
        ("llama-tied", {"target_modules": ["q_proj", "lm_head"]}),
        ("llama-tied", {"trainable_token_indices": [7, 8]}),
        ("llama-tied", {"modules_to_save": ["embed_tokens", "lm_head"]}),
        ("llama", {"init_lora_weights": "pissa"}),
        ("qwen2", {"bias": "all"}),
        ("mixtral", {}),
        ("llama", {"config": IA3Config(task_type="CAUSAL_LM", target_modules=["k_proj"], feedforward_modules=[])}),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value), "plain"),
)
def test_a_right_adapter_loads_whatever_its_kind(models, tmp_path, kind, how):
    made = save_peft(models(kind), tmp_path, **how)
    loaded = load(models(kind), tmp_path)
    assert (log_probs(loaded.model, IDS) - log_probs(made, IDS)).abs().max() < 1e-4
    bare = AutoModelForCausalLM.from_pretrained(models(kind), dtype=torch.float32)
    assert (log_probs(loaded.model, IDS) - log_probs(bare, IDS)).abs().max() > 0.01


def test_plain_pickled_tensors_and_fields_of_a_later_peft_are_read(models, adapter, whole):
    expected = log_probs(load(models("llama"), whole).model, IDS)
    pickled(adapter)
    change_json(adapter / CONFIG, a_field_of_the_future=True)
    assert torch.equal(log_probs(load(models("llama"), adapter).model, IDS), expected)


def test_an_evaluation_is_refused_before_it_begins(models, adapter, tmp_path):
    change_weights(adapter, renamed)
    with pytest.raises(ModelError, match="28 weights are missing"):
        evaluate_model(str(models("llama")), adapter, ["gsm8k"], tmp_path / "out", None, {})
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("how", "named"),
    [
        ({"use_dora": True}, "use_dora"),
        ({"modules_to_save": ["norm"]}, "modules_to_save"),
        ({"init_lora_weights": "olora"}, "init_lora_weights=olora"),
    ],
)
def test_what_a_request_to_vllm_would_leave_out_is_refused(models, whole, tmp_path, how, named):
    check_request(whole)
    save_peft(models("llama"), tmp_path, **how)
    with pytest.raises(ModelError, match=rf"has {named}.*vllm_adapter=merged"):
        check_request(tmp_path)


def test_saved_weights_have_the_mode_of_other_files(make_policy, tmp_path):
    save_adapter(make_policy().model, tmp_path / "adapter")
    (tmp_path / "other").touch()
    modes = {path.stat().st_mode for path in (tmp_path / "adapter").iterdir()}
    assert modes == {(tmp_path / "other").stat().st_mode}


@pytest.mark.parametrize(
    "error",
    [
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 704 vs 598"),
    ],
)
def test_a_full_disk_is_said(tmp_path, error):
    def save_pretrained(folder, **how):
        raise error

    with pytest.raises(DiskFullError, match="is full"):
        save_adapter(SimpleNamespace(save_pretrained=save_pretrained), tmp_path)
