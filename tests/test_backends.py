"""Which engine samples and which backend trains, and that a stage holds to the one with which it began."""

from __future__ import annotations

import json
import sys
from collections import namedtuple
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import get_peft_model_state_dict
from safetensors.torch import load_file

from lean_align import choices
from lean_align.artifacts import StageFolder
from lean_align.choices import choose_backend, choose_engine
from lean_align.errors import MissingPackageError, ModelError, StageError
from lean_align.pipeline import backends
from lean_align.pipeline.backends import training_backend
from lean_align.pipeline.engines import begin_engine, live_engine
from lean_align.policy import load_policy, save_dense
from lean_align.policy.unsloth import draw_adapter
from lean_align.recipe import load_recipe
from lean_align.rollouts import Sampling
from lean_align.stages import run
from lean_align.types import Prompt

DEMO = load_recipe("demo")


@pytest.fixture
def folder(tmp_path) -> StageFolder:
    partial = tmp_path / "stage.partial"
    partial.mkdir()
    return StageFolder(partial, tmp_path / "stage", {}, 0.0)


def pretend(monkeypatch, installed: bool, card: bool) -> None:
    monkeypatch.setattr(choices, "find_spec", lambda name: object() if installed else None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: card)


@pytest.mark.parametrize(("installed", "card"), [(False, False), (False, True), (True, False), (True, True)])
def test_auto_takes_what_is_faster_where_there_is_a_card_and_it_is_installed(monkeypatch, installed, card):
    pretend(monkeypatch, installed, card)
    assert choose_engine("auto") == ("vllm" if installed and card else "transformers")
    assert choose_backend("auto") == ("unsloth" if installed and card else "lean")
    assert choose_backend("auto", only_lean=True) == "lean"


def test_what_is_asked_for_is_taken_whatever_the_machine(monkeypatch):
    pretend(monkeypatch, installed=True, card=False)
    assert (choose_engine("vllm"), choose_backend("unsloth")) == ("vllm", "unsloth")
    assert (choose_engine("transformers"), choose_backend("trl")) == ("transformers", "trl")
    assert choose_backend("lean") == "lean"


def test_what_is_asked_for_and_not_installed_is_refused_with_the_key_to_set(monkeypatch):
    pretend(monkeypatch, installed=False, card=True)
    with pytest.raises(MissingPackageError, match=r"rollouts\.engine=transformers"):
        choose_engine("vllm")
    with pytest.raises(MissingPackageError, match=r"\.\[gpu\].*set training\.backend=lean"):
        choose_backend("unsloth")


def test_a_stage_begun_with_transformers_goes_on_with_it_where_vllm_was_installed_since(monkeypatch, folder):
    begun = begin_engine(DEMO, folder)
    assert begun["engine"] == "transformers"
    pretend(monkeypatch, installed=True, card=True)
    assert choose_engine(DEMO.rollouts.engine) == "vllm"
    assert begin_engine(DEMO, folder) == begun == folder.counts["engine"]


def test_a_stage_begun_with_vllm_is_not_continued_without_it(monkeypatch, folder):
    (folder.path / "engine.json").write_text(json.dumps({"engine": "vllm"}))
    pretend(monkeypatch, installed=False, card=False)
    with pytest.raises(MissingPackageError):
        begin_engine(DEMO, folder)


def test_a_training_holds_to_its_backend_too(monkeypatch, tmp_path, folder):
    with training_backend(DEMO, DEMO.training, tmp_path, folder) as first:
        assert first["backend"] == "lean"
    pretend(monkeypatch, installed=True, card=True)
    with training_backend(DEMO, DEMO.training, tmp_path, folder) as again:
        assert again == first == folder.counts["backend"]


def test_a_training_begun_with_trl_goes_on_with_it(tmp_path, folder):
    """As before lean was there, when `auto` was trl on a CPU."""
    (folder.path / "backend.json").write_text(json.dumps({"backend": "trl", "version": "1.14.2"}))
    with training_backend(DEMO, DEMO.training, tmp_path, folder) as chosen:
        assert chosen["backend"] == "trl"


@pytest.mark.parametrize("key", ["refill", "keep_rows"])
def test_auto_is_lean_where_only_lean_can_do_what_is_asked(monkeypatch, tmp_path, folder, key):
    pretend(monkeypatch, installed=True, card=True)
    recipe = load_recipe("demo", {f"training.{key}": True})
    with training_backend(recipe, recipe.training, tmp_path, folder) as chosen:
        assert chosen["backend"] == "lean"


def test_unsloth_is_refused_in_a_process_that_imported_what_it_patches(monkeypatch, tmp_path, folder):
    import transformers  # noqa: F401

    pretend(monkeypatch, installed=True, card=False)
    monkeypatch.setattr(backends, "version", lambda name: "0")
    recipe = load_recipe("demo", {"training.backend": "unsloth"})
    with (
        pytest.raises(StageError, match=r"transformers.*process of its own"),
        training_backend(recipe, recipe.training, tmp_path, folder),
    ):
        pass


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_a_fresh_adapter_is_the_one_that_load_policy_draws(quantization):
    recipe = load_recipe("demo", {"model.quantization": quantization})
    policy, other = (load_policy(recipe.model, recipe.data, recipe.lora, seed=seed) for seed in (3, 4))
    expected = {name: parameter.clone() for name, parameter in policy.lora_parameters.items()}
    assert not all(torch.equal(other.lora_parameters[name], value) for name, value in expected.items())
    draw_adapter(other.model, 3)
    assert all(torch.equal(other.lora_parameters[name], value) for name, value in expected.items())


def test_keys_and_values_by_hand():
    """2 (K, V) x 3 layers x 2 heads x 8 wide x 4 bytes = 384 a token; 5 x ceil(129 / 128) + 1 blocks of 128."""
    from transformers import LlamaConfig

    from lean_align.rollouts.vllm import kv_cache_bytes

    config = LlamaConfig(hidden_size=32, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=3)
    assert kv_cache_bytes(config, 5, 129, torch.float32) == 384 * 128 * 11


def test_vllm_that_does_not_fit_is_loaded_for_half_as_many_completions(monkeypatch, make_policy, tmp_path):
    from lean_align.errors import OutOfMemoryError
    from lean_align.rollouts import vllm

    policy, tried, halvings, ended = make_policy(), [], [], []
    save_dense(policy, tmp_path, torch.float32)
    core = SimpleNamespace(shutdown=lambda: ended.append(True))

    def load(options):
        tried.append((options["max_num_seqs"], options["kv_cache_memory_bytes"]))
        if options["max_num_seqs"] > fitting:
            raise MemoryError("Free memory on device is less than desired")
        return SimpleNamespace(llm_engine=SimpleNamespace(engine_core=core))

    monkeypatch.setattr(vllm, "_load", load)
    monkeypatch.setattr(vllm, "_set_environment", lambda threads: None)
    settings = vllm.VllmSettings(16, 64, torch.float32, policy.device)
    common = (tmp_path, policy.encoder, policy.eos_token_ids, settings)
    fitting = 4
    with vllm.vllm_engine(*common, on_halving=halvings.append) as engine:
        assert engine.eos_token_ids == policy.eos_token_ids
    assert [size for size, _ in tried] == [16, 8, 4]
    assert tried[0][1] > tried[1][1] > tried[2][1]
    assert [(h.key, h.value) for h in halvings] == [("batch_size", 8), ("batch_size", 4)]
    assert ended == [True]
    fitting = 0
    with (
        pytest.raises(OutOfMemoryError, match=r"one completion.*rollouts\.engine=transformers"),
        vllm.vllm_engine(*common),
    ):
        pass


class FakeVllm:
    """What a live engine asks of a loaded vLLM, noted."""

    def __init__(self, options):
        folder = Path(options["model"])
        self.options, self.ended, self.removed, self.resets, self.asked = options, False, [], 0, []
        self.weights = {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}
        self.idle, self.llm_engine = True, SimpleNamespace(remove_lora=self.removed.append, engine_core=self)

    def shutdown(self):
        self.ended = True

    def collective_rpc(self, method, kwargs):
        assert method == "reload_weights"
        self.weights |= {name: weight.clone() for name, weight in kwargs["weights_iterator"]}

    def reset_prefix_cache(self):
        self.resets += 1
        return self.idle

    def generate(self, requests, parameters, lora_request, use_tqdm):
        self.asked.append(
            lora_request and (lora_request, load_file(Path(lora_request.path, "adapter_model.safetensors")))
        )
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[2])]) for _ in requests]


@pytest.fixture
def live(monkeypatch, make_policy, folder):
    """A live engine on the embedded model, with what it loaded in place of vLLM."""
    from lean_align.rollouts import vllm

    loaded = []
    pretend(monkeypatch, installed=True, card=False)
    monkeypatch.setattr(vllm, "_load", lambda options: loaded.append(FakeVllm(options)) or loaded[-1])
    monkeypatch.setattr(vllm, "_set_environment", lambda threads: None)
    monkeypatch.setattr(vllm, "vllm_version", lambda: "0.32.0")
    request = namedtuple("LoRARequest", ("lora_name", "lora_int_id", "path"))
    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    monkeypatch.setitem(sys.modules, "vllm.lora.request", SimpleNamespace(LoRARequest=request))

    @contextmanager
    def begin(adapter: str, policy=None, **settings):
        own = {"rollouts.engine": "vllm", "rollouts.vllm_adapter": adapter, "model.dtype": "float32"}
        policy = policy or make_policy()
        with live_engine(load_recipe("demo", own), policy, folder, lambda encoder: 64, 4) as (engine, follow):
            yield policy, engine, follow, loaded[0]
        assert loaded[0].ended
        assert [path.name for path in folder.path.iterdir()] == ["engine.json"]

    return begin


def move(policy) -> None:
    for parameter in policy.lora_parameters.values():
        parameter.data = parameter.data + 0.1


def sample_one(engine):
    return engine.sample([Prompt("p", "What is 2 plus 2?", "4")], Sampling(1, 0.0, 8, 1, 0, "tests"))


def whole(policy, folder):
    save_dense(policy, folder, torch.float32)
    return {k: v for path in folder.glob("*.safetensors") for k, v in load_file(path).items()}


def assert_equal_weights(found, expected):
    assert found.keys() == expected.keys()
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_live_vllm_holds_the_merged_weights_of_the_step(live, folder, tmp_path):
    with live("merged") as (policy, engine, follow, loaded):
        first = whole(policy, tmp_path / "first")
        assert_equal_weights(loaded.weights, first)
        move(policy)
        assert_equal_weights(loaded.weights, first)
        follow(1)
        assert_equal_weights(loaded.weights, whole(policy, tmp_path / "second"))
        assert not torch.equal(
            loaded.weights["model.layers.0.mlp.up_proj.weight"], first["model.layers.0.mlp.up_proj.weight"]
        )
        assert loaded.resets == 1  # keys and values of prompts are the earlier weights'
        sample_one(engine)
        assert loaded.asked == [None]
        assert "enable_lora" not in loaded.options
    assert folder.counts["engine"] == {"engine": "vllm", "version": "0.32.0", "adapter": "merged", "dtype": "float32"}


def test_a_live_vllm_is_asked_for_the_adapter_of_the_step_over_the_base(live, folder, tmp_path):
    with live("request") as (policy, engine, follow, loaded):
        with policy.model.disable_adapter():
            base = whole(policy, tmp_path / "base")
        assert_equal_weights(loaded.weights, base)
        assert (loaded.options["max_loras"], loaded.options["max_lora_rank"]) == (1, 16)
        other, expected = engine.with_encoder(engine.encoder), []
        for step in (0, 1, 1):
            move(policy)
            follow(step)
            expected.append(get_peft_model_state_dict(policy.model))
            expected[-1] = {name: weight.clone() for name, weight in expected[-1].items()}
            sample_one(other)
            assert [path.name for path in (folder.path / "followed").iterdir()] == [f"step-{step}"]
        assert_equal_weights(loaded.weights, base)
        requests, adapters = zip(*loaded.asked, strict=True)
        for found, weights in zip(adapters, expected, strict=True):
            assert_equal_weights(found, weights)
        # vLLM keeps adapters by number: a step that is sampled again is a new one
        assert (
            len({request.lora_int_id for request in requests}) == len({request.lora_name for request in requests}) == 3
        )
        assert loaded.removed == [1, 2, 3]
        assert loaded.resets >= 3


@pytest.mark.parametrize("adapter", ["merged", "request"])
def test_weights_that_change_while_requests_run_are_an_error(live, adapter):
    with live(adapter) as (_, _, follow, loaded):
        loaded.idle = False
        with pytest.raises(StageError, match="Sample to the end first"):
            follow(1)


def test_a_live_engine_refuses_what_requests_leave_out_before_it_loads(live, make_policy):
    policy = make_policy()
    policy.model.peft_config["default"].use_dora = True
    with pytest.raises(ModelError, match=r"has use_dora.*vllm_adapter=merged"), live("request", policy):
        pass


def test_the_decode_loop_follows_by_itself(make_policy, folder):
    policy = make_policy()
    with live_engine(DEMO, policy, folder, lambda encoder: 64, 4) as (engine, follow):
        follow(0)
        before = sample_one(engine)
        for name, parameter in policy.lora_parameters.items():
            parameter.data = parameter.data * -20 if "lora_B" in name else parameter.data
        follow(1)
        assert sample_one(engine) != before
    assert folder.counts["engine"]["engine"] == "transformers"
    assert [path.name for path in folder.path.iterdir()] == ["engine.json"]


@pytest.mark.parametrize("key", ["rollouts.engine=vllm", "warmup.backend=unsloth", "training.backend=unsloth"])
def test_a_run_is_refused_before_its_first_stage_when_a_later_one_lacks_its_package(monkeypatch, tmp_path, key):
    pretend(monkeypatch, installed=False, card=False)
    name, _, value = key.partition("=")
    with pytest.raises(MissingPackageError, match=name.replace(".", r"\.")):
        run(load_recipe("demo", {name: value}), tmp_path / "run")
    assert not (tmp_path / "run" / "data").exists()
