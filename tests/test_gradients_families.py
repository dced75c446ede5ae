"""Gradients of tiny models of many families, against autograd through each model's own forward."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from types import SimpleNamespace

import pytest
import torch
import zoo

from lean_align.errors import ModelError
from lean_align.gradients import (
    GradientSettings,
    check_log_probs,
    check_model,
    checkpoint_layers,
    completion_weights,
    gradient_path,
    path_of,
    shared_prompt,
)
from lean_align.gradients import prompt_gradients as take
from lean_align.policy import Policy
from lean_align.policy.adapters import add_adapter
from lean_align.policy.families import family_of
from lean_align.policy.forward import beyond_rope
from lean_align.policy.output_layer import OutputLayer
from lean_align.recipe import LoraRecipe
from lean_align.signals import HiddenStates, check_output_layer
from lean_align.signals.states import token_losses
from lean_align.types import Completion, Group, Prompt

PROMPT = tuple(torch.randint(6, 60, (19,), generator=torch.Generator().manual_seed(7)).tolist())
LENGTHS = (10, 26, 1, 17)  # with the prompt, three of them are longer than the zoo's windows of 24
PLAIN = ("qwen3_5", "qwen3_next", "lfm2")
SHARED = tuple(name for name in zoo.FAMILIES if name not in (*PLAIN, "mamba", "llama4"))


@cache
def policy_of(name: str, **settings) -> Policy:
    return make_policy_of(name, **settings)


def make_policy_of(name: str, **settings) -> Policy:
    """A family's tiny model with a random, non-zero adapter; its encoder gives every prompt the same tokens."""
    base = zoo.make_model(name, **settings)
    base.set_attn_implementation(family_of(base.config).attention or base.config._attn_implementation)
    base.requires_grad_(False)
    model = add_adapter(base, LoraRecipe(r=4, alpha=8), None, 0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = 0.05 * torch.randn(parameter.shape, generator=generator)
    encoder = SimpleNamespace(encode=lambda prompt: list(PROMPT), tokenizer=zoo.make_tokenizer())
    return Policy(model, encoder, torch.device("cpu"), (4,))


def group() -> Group:
    generator, completions = torch.Generator().manual_seed(5), []
    for i, length in enumerate(LENGTHS):
        ids = tuple(torch.randint(6, 60, (length,), generator=generator).tolist())
        completions.append(Completion("p", i, "", ids, length, float(i % 2), True))
    return Group(Prompt("p", "", ""), tuple(completions))


@cache
def literal_gradient(name: str, **settings) -> torch.Tensor:
    return literal_of(policy_of(name, **settings))


def literal_of(policy: Policy) -> torch.Tensor:
    """One completion at a time, by the model's own logits."""
    total = torch.zeros(())
    for i, weight in completion_weights(group()).items():
        tokens = group().completions[i].token_ids
        ids = torch.tensor([[*PROMPT, *tokens]])
        log_probs = policy.model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
        total = total - weight * log_probs[len(PROMPT) - 1 : -1].gather(1, torch.tensor(tokens)[:, None]).sum()
    parameters = list(policy.lora_parameters.values())
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(total, parameters)])


def error_of(name: str, share_prompt: bool = True, token_budget: int = 4096, **settings) -> float:
    way = GradientSettings(share_prompt=share_prompt, token_budget=token_budget)
    ((_, found),) = take(policy_of(name, **settings), [group()], None, way)
    expected = literal_gradient(name, **settings)
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", SHARED)
def test_a_shared_prompt_gives_the_models_own_gradient(name):
    policy = policy_of(name)
    assert gradient_path(family_of(policy.causal_lm.config)) == "shared"
    assert check_log_probs(policy, group()).name == check_model(policy).name == "shared"
    assert error_of(name) < 1e-5
    assert error_of(name, token_budget=30) < 1e-5


@pytest.mark.parametrize("name", [*SHARED, *PLAIN])
def test_repeated_prompts_give_the_models_own_gradient(name):
    policy = policy_of(name)
    assert check_log_probs(policy, group(), share_prompt=False).reason
    assert error_of(name, share_prompt=False) < 1e-5


@pytest.mark.parametrize("name", PLAIN)
def test_a_model_with_a_running_state_takes_the_plain_way_and_says_so(name, capsys):
    policy = policy_of(name)
    assert gradient_path(family_of(policy.causal_lm.config)) == "plain"
    path = check_log_probs(policy, group())
    assert path.name == "plain"
    assert "layers that keep a running state" in path.reason
    assert error_of(name) < 1e-5
    assert path.reason in capsys.readouterr().err


@pytest.mark.parametrize("name", ["mistral", "gemma3", "gpt_oss", "phi3"])
def test_a_window_of_one_token_more_is_caught(name, monkeypatch):
    rule = shared_prompt.LayerMask._mask
    monkeypatch.setattr(
        shared_prompt.LayerMask,
        "_mask",
        lambda self, *sizes: rule(replace(self, sees=lambda b, h, q, k: self.sees(b, h, q - 1, k) | (q == k)), *sizes),
    )
    assert error_of(name) > 1e-3


@pytest.mark.parametrize(("name", "left_out"), [("gemma2", "softcap"), ("gpt_oss", "sinks")])
def test_attention_without_its_cap_or_sinks_is_caught(name, left_out, monkeypatch):
    explicit, own = shared_prompt.explicit_attention, {"attn_logit_softcapping": 2.0} if left_out == "softcap" else {}
    assert error_of(name, **own) < 1e-5
    monkeypatch.setattr(
        shared_prompt, "explicit_attention", lambda *rows, **options: explicit(*rows, **{**options, left_out: None})
    )
    assert error_of(name, **own) > 1e-3


@pytest.mark.parametrize("name", ["gemma2", "granite", "cohere"])
@pytest.mark.parametrize("share_prompt", [True, False])
def test_logits_without_their_scale_or_cap_are_caught(name, share_prompt, monkeypatch):
    own = {"final_logit_softcapping": 4.0} if name == "gemma2" else {}
    assert error_of(name, share_prompt, **own) < 1e-5
    monkeypatch.setattr(OutputLayer, "__call__", lambda self, states: self.head(states))
    assert error_of(name, share_prompt, **own) > 1e-3
    with pytest.raises(ModelError, match="between its layers and its logits"):
        check_log_probs(policy_of(name, **own), group(), share_prompt)


@pytest.mark.parametrize("name", ["gemma2", "gpt_oss", "qwen3_5", "qwen3_moe"])
def test_layers_that_run_again_change_nothing(name):
    policy = make_policy_of(name)
    checkpoint_layers(policy)
    assert not policy.causal_lm.training
    ((_, found),) = take(policy, [group()])
    assert (found - literal_gradient(name)).norm() < 1e-5 * found.norm()


def test_dropout_stays_off_where_layers_run_again():
    policy = make_policy_of("qwen2", attention_dropout=0.5)
    checkpoint_layers(policy)
    ((_, found),) = take(policy, [group()], None, GradientSettings(share_prompt=False))
    assert (found - literal_gradient("qwen2")).norm() < 1e-5 * found.norm()


@pytest.mark.parametrize("name", ["gemma2", "cohere", "mistral", "qwen3_5", "lfm2"])
def test_likelihoods_are_those_of_the_models_own_logits(name):
    policy, row = policy_of(name), [*PROMPT, *group().completions[1].token_ids]
    states = next(HiddenStates(policy, 4096).of([row, PROMPT]))
    found = token_losses(policy, states, row, range(1, len(row)), 8)
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, :-1]
    expected = torch.nn.functional.cross_entropy(logits, torch.tensor(row[1:]), reduction="none").double()
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    check_output_layer(policy, group())


def test_sdpa_leaves_caps_out_in_both_ways():
    """A policy's gradient is that of the attention it samples with, whatever its config names beside."""
    policy = policy_of("gemma2", attn_logit_softcapping=1.0)
    policy.causal_lm.set_attn_implementation("sdpa")
    try:
        ways = [GradientSettings(share_prompt=shared) for shared in (True, False)]
        ((_, shared),), ((_, plain),) = (list(take(policy, [group()], None, way)) for way in ways)
    finally:
        policy.causal_lm.set_attn_implementation("eager")
    assert (shared - plain).norm() < 1e-5 * plain.norm()


def test_the_way_follows_from_the_family():
    family = family_of(zoo.make_config("qwen2"))
    assert gradient_path(family) == "shared"
    assert gradient_path(replace(family, attention_interface=False)) == "plain"
    with pytest.raises(ModelError, match="reads a prompt with an encoder"):
        gradient_path(replace(family, encoder_decoder=True))


def test_rows_that_longrope_turns_otherwise_are_computed_alone():
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [4.0] * 8}
    own = {"rope_parameters": rope, "original_max_position_embeddings": 40, "sliding_window": None}
    policy = make_policy_of("phi3", **own)
    assert not beyond_rope(policy.causal_lm, 40)
    assert beyond_rope(policy.causal_lm, 41)
    (_, found), expected = next(take(policy, [group()])), literal_of(policy)
    assert (found - expected).norm() < 1e-5 * expected.norm()
    assert path_of(policy).name == "shared"
