"""What configurations ask for, family by family."""

from __future__ import annotations

import pytest
from transformers import AutoConfig

from lean_align.errors import ModelError
from lean_align.policy.families import family_of

FULL, SLIDING = "full_attention", "sliding_attention"


def family(model_type: str, **settings):
    return family_of(AutoConfig.for_model(model_type, **settings))


def test_a_plain_decoder():
    found = family("llama", num_hidden_layers=3)
    assert found.layer_kinds == (FULL,) * 3
    assert found.class_name == "LlamaForCausalLM"
    assert (found.window, found.logit_scale, found.logit_softcap, found.attention_softcap) == (None, 1.0, None, None)
    assert not found.stateful
    assert found.attention_interface
    assert found.attention is None


@pytest.mark.parametrize(
    ("model_type", "settings", "kinds", "window"),
    [
        ("mistral", {"sliding_window": 64, "num_hidden_layers": 2}, (SLIDING,) * 2, 64),
        ("mistral", {"sliding_window": None, "num_hidden_layers": 2}, (FULL,) * 2, None),
        ("qwen2", {"sliding_window": 64, "num_hidden_layers": 2}, (FULL,) * 2, None),  # without use_sliding_window
        ("gemma2", {"sliding_window": 64, "num_hidden_layers": 2}, (SLIDING, FULL), 64),
        ("gpt_oss", {"sliding_window": 64, "num_hidden_layers": 2}, (SLIDING, FULL), 64),
    ],
)
def test_windows_belong_to_layers(model_type, settings, kinds, window):
    found = family(model_type, **settings)
    assert (found.layer_kinds, found.window) == (kinds, window)


def test_a_window_counts_where_a_row_is_longer():
    found = family("mistral", sliding_window=64)
    assert [found.window_within(longest) for longest in (63, 64, 65)] == [None, None, 64]


def test_scales_and_caps_of_logits():
    assert family("granite", logits_scaling=8.0).logit_scale == 0.125
    assert family("cohere", logit_scale=0.0625).logit_scale == 0.0625
    gemma = family("gemma2", final_logit_softcapping=30.0, attn_logit_softcapping=50.0)
    assert (gemma.logit_softcap, gemma.attention_softcap) == (30.0, 50.0)
    assert gemma.attention == "eager"  # sdpa would leave the cap out
    assert family("gpt_oss").attention_sinks


@pytest.mark.parametrize("model_type", ["qwen3_5_text", "qwen3_next", "mamba", "falcon_h1"])
def test_states_are_seen(model_type):
    assert family(model_type).stateful


def test_a_convolution_is_a_state():
    assert family("lfm2", num_hidden_layers=2, layer_types=["conv", FULL]).stateful


def test_a_model_that_sees_counts_by_its_text():
    assert set(family("gemma3").layer_kinds) == {FULL, SLIDING}


def test_a_model_that_completes_no_text_is_refused():
    with pytest.raises(ModelError, match="type t5 is not a causal language model"):
        family("t5")
