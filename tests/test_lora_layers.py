"""LoRA layers in fewer passes: the numbers and gradients of peft's own forward."""

from __future__ import annotations

import pytest
import torch
from peft import LoraConfig, get_peft_model

from lean_align.policy.lora_layers import lean_lora_layers


def rows_and_gradients(policy, ids):
    hidden = policy.causal_lm.model(input_ids=ids, use_cache=False).last_hidden_state
    parameters = list(policy.lora_parameters.values())
    weight = torch.linspace(-1, 1, hidden.numel(), dtype=hidden.dtype).view(hidden.shape)
    return hidden.detach(), torch.autograd.grad((hidden * weight).sum(), parameters)


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_numbers_and_gradients_are_those_of_peft(make_policy, quantization):
    policy = make_policy(quantization)
    ids = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 7, 6, 5]])
    theirs, their_gradients = rows_and_gradients(policy, ids)
    with lean_lora_layers(policy):
        ours, our_gradients = rows_and_gradients(policy, ids)
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)
    for name, a, b in zip(policy.lora_parameters, our_gradients, their_gradients):
        assert (a - b).norm() <= 1e-5 * b.norm(), name
    assert any(gradient.norm() > 0 for gradient in their_gradients)


def test_a_base_in_16_bits_is_added_to_and_rounded_once(make_policy):
    policy = make_policy()
    layers = [module for module in policy.model.modules() if hasattr(module, "lora_A")]
    layer = layers[0]
    layer.base_layer.to(torch.bfloat16)
    x = torch.randn(3, 4, layer.in_features, generator=torch.Generator().manual_seed(0)).bfloat16()
    theirs = layer(x)
    with lean_lora_layers(policy):
        ours = layer(x)
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(ours, theirs) or (ours.float() - theirs.float()).abs().max() <= 0.01 * theirs.float().abs().max()
    assert not torch.equal(ours, layer.base_layer(x))


def test_outside_the_block_the_layers_are_peft_s_own_again(make_policy):
    policy = make_policy()
    with lean_lora_layers(policy):
        changed = [module for module in policy.model.modules() if "forward" in vars(module)]
        with lean_lora_layers(policy):  # within one another
            pass
        assert [module for module in policy.model.modules() if "forward" in vars(module)] == changed
    assert len(changed) > 0
    assert not [module for module in policy.model.modules() if "forward" in vars(module)]


@pytest.mark.parametrize("options", [{"use_dora": True}, {"lora_dropout": 0.5}, {"lora_bias": True}])
def test_other_layers_keep_their_own_forward(options):
    class One(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(8, 8)

    model = get_peft_model(One(), LoraConfig(r=2, target_modules=["inner"], **options))

    class Held:
        pass

    held = Held()
    held.model = model
    with lean_lora_layers(held):
        assert not [module for module in model.modules() if "forward" in vars(module)]


def test_an_adapter_that_is_switched_off_stays_off(make_policy):
    policy = make_policy()
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad(), policy.model.disable_adapter():
        base = policy.causal_lm.model(input_ids=ids, use_cache=False).last_hidden_state
        with lean_lora_layers(policy):
            assert torch.equal(policy.causal_lm.model(input_ids=ids, use_cache=False).last_hidden_state, base)
