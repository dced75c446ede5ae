"""The prompt gradient against the literal formula, finite differences and trl's own loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from lean_align.errors import GradientError, ModelError, OutOfMemoryError, RecipeError
from lean_align.gradients import (
    GradientSettings,
    advantages,
    check_log_probs,
    completion_log_probs,
    path_of,
    prompt_gradients,
)
from lean_align.gradients.group import smaller_budget
from lean_align.policy.forward import micro_batches
from lean_align.policy.output_layer import OutputLayer
from lean_align.projection import SjltProjector, make_projector
from lean_align.types import Group


def gradient_of(policy, group: Group, project=None, second_moments=None, **settings) -> torch.Tensor:
    rows = prompt_gradients(policy, [group], project, GradientSettings(**settings), second_moments)
    return next(iter(rows))[1]


def literal_loss(policy, group: Group, temperature: float = 1.0) -> torch.Tensor:
    """METHOD's formula word by word: one completion at a time, full logits, no padding."""
    prompt_ids = policy.encoder.encode(group.prompt)
    rewards = torch.tensor(group.rewards, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    for completion in group.completions:
        advantage = (rewards[completion.index] - rewards.mean()) / (rewards.std(correction=1) + 1e-4)
        ids = torch.tensor([[*prompt_ids, *completion.token_ids]])
        log_probs = torch.log_softmax(policy.model(input_ids=ids).logits[0].double() / temperature, -1)
        for t, token in enumerate(completion.token_ids):
            log_prob = log_probs[len(prompt_ids) - 1 + t, token]
            total = total - advantage * log_prob / len(completion.token_ids) / len(group.completions)
    return total


def literal_log_probs(policy, group: Group, completion) -> torch.Tensor:
    prompt_ids = policy.encoder.encode(group.prompt)
    logits = policy.model(input_ids=torch.tensor([[*prompt_ids, *completion.token_ids]])).logits[0].double()
    chosen = torch.log_softmax(logits, -1)[len(prompt_ids) - 1 : -1]
    return chosen.gather(1, torch.tensor(completion.token_ids)[:, None])[:, 0]


def flat_gradient(policy, loss: torch.Tensor) -> torch.Tensor:
    return torch.cat([g.reshape(-1) for g in torch.autograd.grad(loss, list(policy.lora_parameters.values()))])


def literal_gradient(policy, group: Group, temperature: float = 1.0) -> torch.Tensor:
    return flat_gradient(policy, literal_loss(policy, group, temperature))


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return ((found - expected).norm() / expected.norm()).item()


def test_advantages_by_hand():
    """Rewards 1, 0, 0, 0: mean 1/4; squares 9/16 + 3/16 = 3/4, over 3 is 1/4, so std = 1/2.

    The right one gets 0.75 / 0.5001 = 1.49970006, the others -0.25 / 0.5001 = -0.49990002.
    """
    found = advantages([1.0, 0.0, 0.0, 0.0])
    assert found.tolist() == pytest.approx([1.49970006] + [-0.49990002] * 3, abs=1e-8)


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_equals_the_literal_formula_in_float64(make_policy, groups, temperature, share_prompt):
    policy = make_policy(double=True)
    for group in groups[:2]:
        found = gradient_of(policy, group, temperature=temperature, share_prompt=share_prompt)
        assert relative_error(found, literal_gradient(policy, group, temperature)) < 1e-12


def test_a_planted_fault_of_a_tenth_of_a_percent_is_caught(make_policy, groups):
    policy = make_policy(double=True)
    expected = literal_gradient(policy, groups[0])
    faulty = gradient_of(policy, groups[0]).double()
    faulty[: len(faulty) // 2] *= 1.001
    assert relative_error(faulty, expected) > 1e-4


def test_equals_finite_differences_in_float64(make_policy, groups):
    policy, group = make_policy(double=True), groups[0]
    gradient = gradient_of(policy, group).double()
    direction = torch.randn(len(gradient), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    direction += 3 * gradient / gradient.norm() * direction.norm()  # so that the slope is not lost in rounding

    def moved(step: float) -> float:
        offset = 0
        for parameter in policy.lora_parameters.values():
            piece = direction[offset : offset + parameter.numel()].reshape(parameter.shape)
            parameter.data += step * piece
            offset += parameter.numel()
        with torch.no_grad():
            return literal_loss(policy, group).item()

    step = 3e-8
    up = moved(step)
    down = moved(-2 * step)
    moved(step)
    assert (up - down) / (2 * step) == pytest.approx((gradient @ direction).item(), rel=1e-6)


@pytest.mark.parametrize("loss", ["grpo", "dr_grpo"])
def test_equals_the_gradient_of_trls_own_loss(make_policy, groups, tmp_path, loss):
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    from lean_align.grpo import TrainerSettings, trainer_fields
    from lean_align.recipe import TrainerRecipe

    group, policy = groups[0], make_policy()
    ours = gradient_of(policy, group, loss=loss, max_new_tokens=24)
    settings = TrainerSettings(TrainerRecipe(prompts_per_step=1, micro_batch=4), 4, 24, 1.0, 0, "tests")
    fields = trainer_fields(settings, tmp_path, "cpu", False)
    fields |= {"loss_type": loss}
    dataset = Dataset.from_list([{"prompt": policy.encoder.request(group.prompt), "answer": "1"}])
    trainer = GRPOTrainer(
        policy.model, lambda **kw: [0.0], GRPOConfig(**fields), dataset, processing_class=policy.encoder.tokenizer
    )
    trainer.current_gradient_accumulation_steps = 1
    width = max(c.n_tokens for c in group.completions)
    prompt = torch.tensor([policy.encoder.encode(group.prompt)] * 4)
    inputs = {
        "prompt_ids": prompt,
        "prompt_mask": torch.ones_like(prompt),
        "completion_ids": torch.tensor([[*c.token_ids, *[0] * (width - c.n_tokens)] for c in group.completions]),
        "completion_mask": torch.tensor([[1] * c.n_tokens + [0] * (width - c.n_tokens) for c in group.completions]),
        "advantages": advantages(group.rewards, scale=loss == "grpo").float(),
    }
    trainer.model.eval()
    trainer._compute_loss(trainer.model, inputs).backward()
    theirs = torch.cat([p.grad.reshape(-1) for p in policy.lora_parameters.values()])
    assert relative_error(ours, theirs) < 1e-4


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize(("token_budget", "logprob_chunk"), [(1, 5), (40, 64), (130, 64), (100_000, 1)])
@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-12), (False, 1e-5)])
def test_does_not_depend_on_the_way(
    make_policy, groups, token_budget, logprob_chunk, share_prompt, checkpointing, double, tolerance
):
    """Micro-batches, chunks, a shared prompt and checkpoints: one gradient."""
    policy = make_policy(double=double)
    expected = gradient_of(policy, groups[2], share_prompt=False)
    if checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    found = gradient_of(
        policy, groups[2], token_budget=token_budget, logprob_chunk=logprob_chunk, share_prompt=share_prompt
    )
    assert relative_error(found, expected) < tolerance


@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-12), (False, 1e-5)])
def test_a_row_is_the_same_for_budgets_of_512_2048_and_8192(make_policy, groups, double, tolerance):
    """12 completions of 256 tokens: two, eight or all of them in a micro-batch."""
    policy = make_policy(double=double)
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(5, 200, (12, 256), generator=generator).tolist()
    first = groups[0].completions[0]
    rows = [
        dataclasses.replace(first, index=i, token_ids=tuple(row), n_tokens=256, reward=float(i % 3 == 0))
        for i, row in enumerate(ids)
    ]
    group = Group(groups[0].prompt, tuple(rows))
    found = [gradient_of(policy, group, token_budget=budget) for budget in (512, 2048, 8192)]
    assert [len(micro_batches([256] * 12, budget, padded=False)) for budget in (512, 2048, 8192)] == [6, 2, 1]
    assert relative_error(found[0], found[2]) < tolerance
    assert relative_error(found[1], found[2]) < tolerance


def test_the_comparison_of_ways_sees_a_prompt_without_gradient(make_policy, groups, monkeypatch):
    """Planted: keys and values of the prompt cut out of the graph in every run."""
    from lean_align.gradients import group as module

    policy = make_policy(double=True)
    expected, run_prompt = gradient_of(policy, groups[2]), module.run_prompt

    def cut(*arguments):
        prompt, last_state = run_prompt(*arguments)
        prompt.cut()
        return prompt, last_state

    monkeypatch.setattr(module, "run_prompt", cut)
    assert relative_error(gradient_of(policy, groups[2]), expected) > 1e-3


def test_completions_of_one_token_need_the_prompt_alone(make_policy, groups):
    policy = make_policy(double=True)
    short = tuple(dataclasses.replace(c, token_ids=c.token_ids[:1], n_tokens=1) for c in groups[0].completions)
    mixed = (*short[:2], *groups[0].completions[2:])
    for completions in (short, mixed):
        group = Group(groups[0].prompt, completions)
        assert relative_error(gradient_of(policy, group), literal_gradient(policy, group)) < 1e-12


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("token_budget", [30, 4096])
def test_dr_grpo_equals_its_formula(make_policy, groups, share_prompt, token_budget):
    """- (1/G) sum_g (1/L) sum_t (r_g - mean r) log pi: no division by the spread or by a completion's length."""
    policy, group = make_policy(double=True), groups[0]
    rewards, total = torch.tensor(group.rewards, dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    for completion in group.completions:
        advantage = rewards[completion.index] - rewards.mean()
        total = total - advantage * literal_log_probs(policy, group, completion).sum() / 24 / len(rewards)
    options = {"loss": "dr_grpo", "max_new_tokens": 24, "share_prompt": share_prompt, "token_budget": token_budget}
    found = gradient_of(policy, group, **options)
    assert relative_error(found, flat_gradient(policy, total)) < 1e-12
    assert relative_error(gradient_of(policy, group), literal_gradient(policy, group)) < 1e-12
    assert relative_error(found / found.norm(), gradient_of(policy, group) / gradient_of(policy, group).norm()) > 1e-3


def test_dr_grpo_without_its_length_is_refused(make_policy, groups):
    with pytest.raises(RecipeError, match="max_new_tokens"):
        gradient_of(make_policy(), groups[0], loss="dr_grpo")


@pytest.mark.parametrize(("loss", "length"), [("grpo", None), ("dr_grpo", 24)])
def test_one_correct_is_the_first_correct_completion_with_advantage_one(make_policy, groups, loss, length):
    policy, group = make_policy(double=True), groups[1]  # its rewards are 0, 1, 0, 0
    completion = group.completions[1]
    total = -literal_log_probs(policy, group, completion).sum() / (length or completion.n_tokens)
    found = gradient_of(policy, group, rollouts="one_correct", loss=loss, max_new_tokens=length)
    assert relative_error(found, flat_gradient(policy, total)) < 1e-12


def test_unknown_choices_are_refused(make_policy, groups):
    with pytest.raises(RecipeError, match=r"gradients\.loss is 'ppo'"):
        gradient_of(make_policy(), groups[0], loss="ppo")
    with pytest.raises(RecipeError, match=r"gradients\.rollouts 'best'"):
        gradient_of(make_policy(), groups[0], rollouts="best")


@pytest.mark.parametrize("token_budget", [30, 4096])
def test_preconditioning_divides_by_the_root_of_adams_second_moment(make_policy, groups, token_budget):
    policy = make_policy(double=True)
    generator = torch.Generator().manual_seed(2)
    moments = {n: torch.rand(p.shape, generator=generator).double() for n, p in policy.lora_parameters.items()}
    flat = torch.cat([m.reshape(-1) for m in moments.values()])
    expected = literal_gradient(policy, groups[0]) / (flat.sqrt() + 1e-8)
    found = gradient_of(policy, groups[0], second_moments=moments, token_budget=token_budget)
    assert relative_error(found, expected) < 1e-12


@pytest.mark.parametrize("token_budget", [30, 4096])
def test_at_most_one_parameter_holds_a_gradient(make_policy, groups, token_budget):
    """Looked at when each gradient is read: every other `.grad` is already gone."""
    policy, alive = make_policy(), []

    class Watching(SjltProjector):
        def add_to(self, row, name, gradient):
            alive.append(sum(p.grad is not None for p in policy.lora_parameters.values()))

    sizes = {name: parameter.numel() for name, parameter in policy.lora_parameters.items()}
    gradient_of(policy, groups[0], project=Watching(sizes, 4), token_budget=token_budget)
    passes = len(micro_batches([c.n_tokens for c in groups[0].completions], token_budget, padded=False)) + 1
    # once a backward pass: autograd held no matrix's gradient back until a second pass had added to it
    assert len(alive) == passes * len(policy.lora_parameters)
    assert max(alive) == 0  # the one being read has been taken from its parameter too


@pytest.mark.parametrize("share_prompt", [True, False])
def test_logits_exist_for_one_chunk_only(make_policy, groups, share_prompt):
    policy, sizes = make_policy(), []
    head = policy.causal_lm.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: sizes.append(output.numel()))
    gradient_of(policy, groups[0], logprob_chunk=8, share_prompt=share_prompt)
    hook.remove()
    n_tokens = sum(c.n_tokens for c in groups[0].completions)
    assert sum(sizes) == n_tokens * head.out_features  # each logit once: nothing is computed again
    assert max(sizes) <= 8 * head.out_features


@pytest.mark.parametrize("kind", ["whole", "streamed", "batched"])
def test_rows_do_not_depend_on_which_prompts_are_asked_for(make_policy, groups, kind):
    """Bit for bit: all together, some alone, and from the middle, with the ordinals they have in the run."""
    policy = make_policy()
    silent = Group(groups[0].prompt, tuple(dataclasses.replace(c, reward=0.0) for c in groups[0].completions))
    run = [groups[0], silent, groups[1], groups[2], groups[3]]
    sizes = {name: parameter.numel() for name, parameter in policy.lora_parameters.items()}
    project = {"whole": None, "streamed": make_projector("sjlt", sizes, 64), "batched": Blocks(sizes, 64)}[kind]
    together = list(prompt_gradients(policy, run, project))
    assert [prompt_id for prompt_id, _ in together] == [group.prompt.prompt_id for group in run]
    assert not together[1][1].any()
    later = list(prompt_gradients(policy, run[3:], project, ordinals=[2, 3]))
    first = list(prompt_gradients(policy, run[:3], project, ordinals=[0, 1]))
    for (_, row), (_, expected) in zip([*first, *later], together):
        assert torch.equal(row, expected)


class Blocks:
    """A dense projection of three rows at a time, as a batched projector is seen from here."""

    batch_rows = 3

    def __init__(self, sizes, proj_dim):
        self.proj_dim = proj_dim
        generator = torch.Generator().manual_seed(0)
        self.matrix = torch.randn(sum(sizes.values()), proj_dim, generator=generator)

    def project(self, gradients):
        assert gradients.shape[0] == self.batch_rows
        return gradients @ self.matrix


def test_a_window_that_the_mask_does_not_have_is_not_shared(make_policy, groups, capsys):
    policy = make_policy()
    expected = gradient_of(policy, groups[0], share_prompt=False)
    for module in policy.model.modules():
        if type(module).__name__ == "LlamaAttention":
            forward = module.forward
            module.forward = lambda *a, forward=forward, **kw: forward(*a, **{**kw, "sliding_window": 8})
    assert torch.equal(gradient_of(policy, groups[0]), expected)
    assert "recomputed for each completion" in capsys.readouterr().err
    assert path_of(policy).reason == "the model tells its attention of a window of 8 tokens, its mask has none"


def test_the_model_attends_in_its_own_way_again_afterwards(make_policy, groups):
    policy = make_policy()
    before = policy.causal_lm.config._attn_implementation
    gradient_of(policy, groups[0])
    assert policy.causal_lm.config._attn_implementation == before == "sdpa"


def test_gradient_checkpointing_changes_nothing(make_policy, groups):
    policy = make_policy()
    expected = gradient_of(policy, groups[0])
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    policy.model.train()
    assert relative_error(gradient_of(policy, groups[0]), expected) < 1e-5


@pytest.mark.parametrize(("quantization", "dtype"), [("nf4", "float32"), ("nf4", "bfloat16"), ("none", "float32")])
def test_gradient_after_generate_equals_the_one_before(make_policy, groups, quantization, dtype):
    policy = make_policy(quantization, dtype)
    before = gradient_of(policy, groups[0])
    ids = torch.tensor([policy.encoder.encode(groups[0].prompt)])
    with torch.no_grad():
        policy.model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=4, do_sample=False)
    after = gradient_of(policy, groups[0])
    assert before.norm() > 0
    assert torch.equal(before, after)


def test_projected_row_is_the_projection_of_the_whole_gradient(make_policy, groups):
    policy = make_policy()
    projector = make_projector("sjlt", {n: p.numel() for n, p in policy.lora_parameters.items()}, 512)
    whole, row = gradient_of(policy, groups[1]), gradient_of(policy, groups[1], project=projector)
    assert torch.allclose(projector.project(whole), row, atol=1e-6)


def test_groups_without_spread_are_not_run(make_policy, groups, monkeypatch):
    policy = make_policy()
    same = Group(groups[0].prompt, tuple(dataclasses.replace(c, reward=1.0) for c in groups[0].completions))
    monkeypatch.setattr(policy.causal_lm.base_model, "forward", lambda **kw: pytest.fail("the model was run"))
    gradient = gradient_of(policy, same)
    assert gradient.shape == (sum(p.numel() for p in policy.lora_parameters.values()),)
    assert not gradient.any()


def test_gradients_do_not_leak_from_one_prompt_to_the_next(make_policy, groups):
    policy = make_policy()
    alone = gradient_of(policy, groups[3])
    together = dict(prompt_gradients(policy, groups))
    assert torch.equal(together["p-3"], alone)


def test_a_missing_gradient_is_named(make_policy, groups):
    policy = make_policy()
    name = list(policy.lora_parameters)[4]
    module = policy.model.get_submodule(name.split(".lora_")[0])
    module.forward = lambda x, *a, **k: module.base_layer(x)  # as a fused kernel would bypass it
    with pytest.raises(GradientError, match=rf"{name.split('.lora_')[0]}.*p-0"):
        gradient_of(policy, groups[0])


def test_the_parameter_with_nan_is_named(make_policy, groups):
    policy = make_policy()
    name = list(policy.lora_parameters)[7]
    policy.lora_parameters[name].register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(GradientError, match=rf"the gradient of {name} holds NaN or Inf for p-0 \(1 of"):
        gradient_of(policy, groups[0])


@pytest.mark.parametrize("fault", ["missing", "shape", "nan"])
def test_second_moments_that_do_not_fit_are_named(make_policy, groups, fault):
    policy = make_policy()
    moments = {n: torch.ones_like(p) for n, p in policy.lora_parameters.items()}
    name = list(moments)[3]
    if fault == "missing":
        del moments[name]
    else:
        moments[name] = torch.ones(2, 3) if fault == "shape" else moments[name] * float("nan")
    with pytest.raises(GradientError, match=f"second moments of {name}: got"):
        gradient_of(policy, groups[0], second_moments=moments)


def test_in_bfloat16_the_shared_prompt_is_as_near_to_float32_as_the_plain_way(make_policy, groups):
    """What completions send back to the prompt largely cancels: summed in bfloat16 it would show here."""
    exact = gradient_of(make_policy(), groups[0])
    policy = make_policy(dtype="bfloat16")
    for budget in (30, 4096):
        shared = gradient_of(policy, groups[0], token_budget=budget)
        plain = gradient_of(policy, groups[0], token_budget=budget, share_prompt=False)
        assert relative_error(shared, exact) < 1.5 * relative_error(plain, exact) + 1e-3


def test_too_few_ordinals_are_refused(make_policy, groups):
    with pytest.raises(ValueError, match="got 1 ordinals"):
        list(prompt_gradients(make_policy(), groups[:2], ordinals=[0]))


def test_nan_is_named_with_parameter_and_prompt(make_policy, groups):
    policy = make_policy()
    parameter = next(iter(policy.lora_parameters.values()))
    parameter.data[0, 0] = float("nan")
    with pytest.raises(GradientError, match=r"NaN or Inf for p-2"):
        gradient_of(policy, groups[2])


def with_capped_logits(policy) -> None:
    """Have the model's own forward cap its logits, as Gemma 2 does."""
    model = policy.causal_lm
    plain = type(model).forward

    def capped(self, *args, **kwargs):
        output = plain(self, *args, **kwargs)
        output.logits = 3 * torch.tanh(output.logits / 3)
        return output

    model.forward = capped.__get__(model)


@pytest.mark.parametrize("share_prompt", [True, False])
def test_a_head_that_is_more_than_linear_is_taken_as_it_is(make_policy, groups, share_prompt):
    policy = make_policy(double=True)
    before = literal_gradient(policy, groups[0])
    with_capped_logits(policy)
    check_log_probs(policy, groups[0], share_prompt)
    expected = literal_gradient(policy, groups[0])
    assert relative_error(before, expected) > 0.1
    assert relative_error(gradient_of(policy, groups[0], share_prompt=share_prompt), expected) < 1e-12


def test_logits_that_the_parts_do_not_give_are_refused(make_policy, groups, monkeypatch):
    policy = make_policy()
    assert check_log_probs(policy, groups[0]).name == "shared"
    with_capped_logits(policy)
    monkeypatch.setattr(OutputLayer, "__call__", lambda self, states: self.head(states))  # the cap left out
    with pytest.raises(ModelError, match="LlamaForCausalLM does something between its layers and its logits"):
        check_log_probs(policy, groups[0])


def test_log_probs_are_in_the_order_of_the_completions(make_policy, groups):
    policy, group = make_policy(), groups[0]
    prompt_ids = policy.encoder.encode(group.prompt)
    together, row = completion_log_probs(policy, prompt_ids, group.completions)
    for i, completion in enumerate(group.completions):
        alone, _ = completion_log_probs(policy, prompt_ids, [completion])
        assert torch.allclose(together[row == i], alone, atol=1e-4)


@pytest.mark.parametrize(
    ("lengths", "budget", "expected"),
    [([3, 3, 3], 6, [(0, 2), (2, 3)]), ([9], 1, [(0, 1)]), ([1, 5, 1], 5, [(0, 1), (1, 2), (2, 3)]), ([], 5, [])],
)
def test_micro_batches_keep_to_the_budget(lengths, budget, expected):
    assert [(run.start, run.stop) for run in micro_batches(lengths, budget)] == expected


def out_of_memory_above(n_tokens: int, monkeypatch) -> list[int]:
    """Let the loss of more than `n_tokens` tokens fail as a full card does; the sizes that were tried."""
    from lean_align.gradients import group as module

    backward, tried = module.backward_tokens, []

    def limited(head, tokens, *rest):
        tried.append(len(tokens.targets))
        if len(tokens.targets) > n_tokens:
            raise torch.OutOfMemoryError(
                "CUDA out of memory. Tried to allocate 1.50 GiB. GPU 0 has a total capacity of 23.64 GiB of which "
                "512.00 MiB is free."
            )
        backward(head, tokens, *rest)

    monkeypatch.setattr(module, "backward_tokens", limited)
    return tried


@pytest.mark.parametrize("share_prompt", [True, False])
def test_a_group_that_does_not_fit_is_taken_in_smaller_pieces(make_policy, groups, monkeypatch, share_prompt):
    policy, halvings = make_policy(double=True), []
    settings = GradientSettings(share_prompt=share_prompt)
    expected = dict(prompt_gradients(policy, groups, None, settings))
    longest = max(c.n_tokens for g in groups for c in g.completions)
    tried = out_of_memory_above(longest, monkeypatch)
    found = dict(prompt_gradients(policy, groups, None, settings, on_halving=halvings.append))
    assert max(tried) > longest  # it did run out of memory
    for prompt_id, row in expected.items():
        assert (found[prompt_id] - row).norm() <= 1e-12 * row.norm()
    values = [halving.value for halving in halvings]
    assert values == sorted(set(values), reverse=True)  # kept for the groups that follow, never raised again
    assert halvings[0].work == "gradient of p-0"
    assert str(halvings[0].shortage) == "1.5 GiB more needed, 512.0 MiB free"


def test_a_completion_that_fits_nowhere_is_named_with_the_keys_to_lower(make_policy, groups, monkeypatch):
    policy = make_policy()
    out_of_memory_above(0, monkeypatch)
    with pytest.raises(OutOfMemoryError, match=r"gradient of p-0.*1\.5 GiB.*512\.0 MiB.*gradients\.logprob_chunk"):
        gradient_of(policy, groups[0])
    assert all(p.grad is None for p in policy.lora_parameters.values())


def test_another_error_is_not_taken_for_a_lack_of_memory(make_policy, groups, monkeypatch):
    from lean_align.gradients import group as module

    def broken(*args):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(module, "backward_tokens", broken)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        gradient_of(make_policy(), groups[0])


@pytest.mark.parametrize(
    ("lengths", "budget", "padded", "expected"),
    [
        ([10, 10, 10, 10], 4096, False, 32),  # 64 takes all four, 32 takes three
        ([10, 10, 10, 10], 32, False, 16),
        ([10, 10, 10, 10], 16, False, None),  # each is alone
        ([10, 5], 20, True, 10),
        ([7], 4096, False, None),
    ],
)
def test_the_next_smaller_budget_by_hand(lengths, budget, padded, expected):
    assert smaller_budget(lengths, budget, padded) == expected


def test_a_gradient_that_was_there_is_no_part_of_a_row_and_is_put_back(make_policy, groups):
    policy = make_policy()
    expected = gradient_of(policy, groups[0])
    ids = torch.tensor([policy.encoder.encode(groups[1].prompt)])
    policy.model(input_ids=ids, labels=ids).loss.backward()
    before = {name: parameter.grad.clone() for name, parameter in policy.lora_parameters.items()}
    rows = [row for _, row in prompt_gradients(policy, [groups[0], groups[0]])]
    assert torch.equal(rows[0], expected)
    assert torch.equal(rows[1], expected)
    assert all(torch.equal(parameter.grad, before[name]) for name, parameter in policy.lora_parameters.items())
