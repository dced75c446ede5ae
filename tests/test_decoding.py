"""The decode loop against transformers' generate, against teacher forcing, and against itself in other company."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace

import pytest
import torch
import zoo
from transformers import AutoConfig, DynamicCache, Qwen2Config, Qwen2ForCausalLM

from lean_align.data import load_rows
from lean_align.errors import ModelError
from lean_align.memory import shortage_of
from lean_align.policy import Policy
from lean_align.policy.families import family_of
from lean_align.recipe import load_recipe
from lean_align.rollouts import Sampling, attention, cache, decode, drawing
from lean_align.rollouts.paths import EQUAL_LENGTHS, PLAIN, REFUSED, WINDOWED, check_prefilled, rollout_path

GREEDY = Sampling(num_generations=1, temperature=0.0, max_new_tokens=24, batch_size=6, seed=0, stage="tests")
SAMPLED = Sampling(num_generations=3, temperature=1.2, max_new_tokens=40, batch_size=12, seed=0, stage="tests")


def tiny_qwen2(**settings) -> Policy:
    """Random weights, large enough that the largest logit is clear; two heads share each key-value head."""
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3, "vocab_size": 97}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 256}
    torch.manual_seed(11)
    model = Qwen2ForCausalLM(Qwen2Config(**sizes, **heads, initializer_range=0.3, **settings)).eval()
    encoder = SimpleNamespace(tokenizer=SimpleNamespace(pad_token_id=0))
    return Policy(model, encoder, torch.device("cpu"), (1, 2, 3, 4, 5))


def random_prompts(n: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(2, 30, (n,), generator=generator).tolist()
    return [torch.randint(6, 97, (length,), generator=generator).tolist() for length in lengths]


def demo_prompts(policy, n: int) -> list[list[int]]:
    texts = [row["prompt"] for row in load_rows(load_recipe("demo").data, "train")[:n]]
    return [list(policy.encoder.tokenizer(text)["input_ids"]) for text in texts]


def noise(prompt: int, index: int, sampling: Sampling = SAMPLED):
    return sampling.noise(f"p{prompt}", index)


def by_generate(policy, ids: list[int], max_new_tokens: int) -> tuple[int, ...]:
    """transformers' own greedy completion of one prompt, without padding."""
    with torch.no_grad():
        sequence = policy.model.generate(
            input_ids=torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.int64),
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=list(policy.eos_token_ids),
            pad_token_id=policy.pad_token_id,
            repetition_penalty=1.0,
        )
    return tuple(sequence[0, len(ids) :].tolist())


@pytest.fixture(scope="module")
def policy(make_policy):
    return make_policy()


@pytest.fixture(scope="module")
def double(make_policy):
    return make_policy(double=True)


@pytest.mark.parametrize("kind", ["demo", "qwen2"])
def test_greedy_completions_are_those_of_generate(policy, kind):
    policy = policy if kind == "demo" else tiny_qwen2()
    encoded = demo_prompts(policy, 40) if kind == "demo" else random_prompts(40)
    assert len({len(ids) for ids in encoded}) > 12
    decoded = decode(policy, encoded, noise, GREEDY)
    assert [group[0] for group in decoded.token_ids] == [by_generate(policy, ids, 24) for ids in encoded]
    assert decoded.shifts > 0
    assert decoded.moves > 0
    assert 10 < decoded.prefills < 40
    assert decoded.row_steps == sum(len(group[0]) - 1 for group in decoded.token_ids)  # no ended row is decoded


def test_rows_never_exceed_the_batch_size_and_fill_it(policy):
    encoded = demo_prompts(policy, 40)
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        begin = cache.SlotCache.begin_step
        patch.setattr(cache.SlotCache, "begin_step", lambda self, device: seen.append(self.rows) or begin(self, device))
        decode(policy, encoded, noise, SAMPLED)
    assert max(seen) == 12
    assert sum(seen) / len(seen) > 7


def test_a_row_is_the_same_alone_and_in_a_crowd(double):
    encoded = demo_prompts(double, 16)
    crowd = decode(double, encoded, noise, SAMPLED)
    wide = decode(double, encoded, noise, dataclasses.replace(SAMPLED, batch_size=48))
    assert wide.token_ids == crowd.token_ids
    assert wide.steps < crowd.steps
    for prompt in range(16):
        alone = decode(double, [encoded[prompt]], lambda _, g, p=prompt: noise(p, g), SAMPLED)
        assert alone.token_ids[0] == crowd.token_ids[prompt]
    assert len({row for group in crowd.token_ids for row in group}) > 30  # they are not all one greedy answer


def test_in_float32_rounding_changes_few_rows(policy):
    encoded = demo_prompts(policy, 16)
    crowd = decode(policy, encoded, noise, SAMPLED).token_ids
    alone = [decode(policy, [encoded[p]], lambda _, g, p=p: noise(p, g), SAMPLED).token_ids[0] for p in range(16)]
    rows = [(a, b) for one, other in zip(crowd, alone) for a, b in zip(one, other)]
    assert sum(a == b for a, b in rows) >= len(rows) - 1


def largest_gap(policy, encoded: list[list[int]], sampling: Sampling, monkeypatch, moves: bool = True) -> float:
    """Largest difference between the logits that drew a token and those of one plain forward pass."""
    used = {}

    def spy(logits, uniforms, *settings):
        used.update(zip(uniforms.tolist(), logits))  # a row's uniform tells which token of which row it is
        return choose(logits, uniforms, *settings)

    choose = drawing.choose_tokens
    monkeypatch.setattr(drawing, "choose_tokens", spy)
    decoded = decode(policy, encoded, noise, sampling)
    if moves:
        assert decoded.shifts > 0
        assert decoded.moves > 0
    gap = 0.0
    for p, ids in enumerate(encoded):
        for g, token_ids in enumerate(decoded.token_ids[p]):
            with torch.no_grad():
                plain = policy.model(input_ids=torch.tensor([[*ids, *token_ids]])).logits[0, len(ids) - 1 : -1]
            drawn = torch.stack([used[u] for u in noise(p, g)[: len(token_ids)].tolist()])
            gap = max(gap, float((drawn - plain).abs().max()))
    return gap


def test_logits_are_those_of_a_plain_forward_pass(double, monkeypatch):
    assert largest_gap(double, demo_prompts(double, 30), SAMPLED, monkeypatch) < 1e-9


def test_logits_of_shared_heads_are_those_of_a_plain_forward_pass(monkeypatch):
    assert largest_gap(tiny_qwen2(), random_prompts(24), SAMPLED, monkeypatch) < 1e-3  # of logits near 30, float32


@pytest.mark.parametrize("fault", ["position", "mask", "shift", "move", "insert"])
def test_the_comparison_of_logits_catches(double, monkeypatch, fault):
    begin, insert = cache.SlotCache.begin_step, cache._SlotLayer.insert

    def wrong_step(self, device):
        mask, positions = begin(self, device)
        return (mask, positions + 1) if fault == "position" else (mask.roll(-1, dims=1) | mask, positions)

    if fault in ("position", "mask"):
        monkeypatch.setattr(cache.SlotCache, "begin_step", wrong_step)
    elif fault == "insert":
        monkeypatch.setattr(cache._SlotLayer, "insert", lambda self, layer, rows: insert(self, layer, rows[::-1]))
    else:
        monkeypatch.setattr(cache._SlotLayer, fault, lambda *a: None)
    assert largest_gap(double, demo_prompts(double, 30), SAMPLED, monkeypatch) > 1e-3


def test_an_end_token_ends_a_row_and_is_its_last(policy):
    decoded = decode(policy, demo_prompts(policy, 12), noise, dataclasses.replace(SAMPLED, max_new_tokens=9))
    rows = [row for group in decoded.token_ids for row in group]
    for row in rows:
        assert len(row) == 9 or row[-1] in policy.eos_token_ids
        assert not any(token in policy.eos_token_ids for token in row[:-1])
    assert {len(row) == 9 for row in rows} == {True, False}


def test_one_new_token_needs_no_cache(policy):
    one = dataclasses.replace(GREEDY, max_new_tokens=1)
    encoded = demo_prompts(policy, 8)
    decoded = decode(policy, encoded, noise, one)
    assert [group[0] for group in decoded.token_ids] == [by_generate(policy, ids, 1) for ids in encoded]
    assert decoded.steps == 0


def test_a_batch_smaller_than_a_group_holds_one_group(policy):
    encoded = demo_prompts(policy, 4)
    small = decode(policy, encoded, noise, dataclasses.replace(SAMPLED, batch_size=1))
    assert small.prefills == 4
    assert [len(group) for group in small.token_ids] == [3] * 4


def test_ended_rows_are_reported_once(policy):
    told: list[int] = []
    decode(policy, demo_prompts(policy, 8), noise, SAMPLED, told.append)
    assert sum(told) == 24
    assert min(told) > 0


def test_a_4_bit_model_decodes_and_still_trains(make_policy):
    policy = make_policy("nf4")
    encoded = demo_prompts(policy, 12)
    ours = [group[0] for group in decode(policy, encoded, noise, GREEDY).token_ids]
    theirs = [by_generate(policy, ids, 24) for ids in encoded]
    assert sum(a == b for a, b in zip(ours, theirs)) >= 11  # kernels for one row and for many round differently
    policy.model(input_ids=torch.tensor([encoded[0]])).logits.logsumexp(-1).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in policy.lora_parameters.values())


def test_grouped_attention_is_sdpa_and_the_model_gets_its_own_back():
    policy = tiny_qwen2()
    generator = torch.Generator().manual_seed(1)
    query = torch.randn(3, 4, 1, 16, generator=generator)
    key, value = (torch.randn(3, 2, 9, 16, generator=generator) for _ in range(2))
    mask = torch.arange(9) >= torch.tensor([0, 3, 8])[:, None, None, None]
    layer = policy.model.model.layers[0].self_attn
    for seen in (mask, None):
        ours, _ = attention.grouped_attention(layer, query, key, value, seen, scaling=0.3)
        theirs, _ = attention.sdpa_attention_forward(layer, query, key, value, seen, scaling=0.3)
        torch.testing.assert_close(ours, theirs)
    with attention.grouped_heads(policy.model):
        assert policy.model.config._attn_implementation == attention.NAME
    assert policy.model.config._attn_implementation == "sdpa"


def test_a_model_in_eager_attention_gives_the_same():
    policy, encoded = tiny_qwen2(), random_prompts(12)
    expected = decode(policy, encoded, noise, GREEDY).token_ids
    policy.model.set_attn_implementation("eager")
    assert decode(policy, encoded, noise, GREEDY).token_ids == expected


def zoo_policy(name: str, **settings) -> Policy:
    tokenizer = zoo.make_tokenizer()
    return Policy(zoo.make_model(name, **settings), SimpleNamespace(tokenizer=tokenizer), torch.device("cpu"), (4,))


def zoo_prompts() -> list[list[int]]:
    """Some longer than the zoo's windows, some shorter, two of one length."""
    generator = torch.Generator().manual_seed(2)
    return [torch.randint(6, 70, (n,), generator=generator).tolist() for n in (33, 31, 20, 20, 9, 4)]


@pytest.mark.parametrize("name", zoo.FAMILIES)
def test_every_family_decodes_as_generate_does(name):
    """Greedy completions of 30 tokens over windows of 24, with rows that join and leave."""
    policy, encoded = zoo_policy(name), zoo_prompts()
    longer = dataclasses.replace(GREEDY, max_new_tokens=30, batch_size=3)
    decoded = decode(policy, encoded, noise, longer)
    assert [group[0] for group in decoded.token_ids] == [by_generate(policy, ids, 30) for ids in encoded]
    assert len(set(decoded.token_ids)) == len(encoded)
    assert decoded.prefills > 1


@pytest.mark.parametrize("name", ["mistral", "gemma2"])
def test_a_window_that_is_passed_over_is_caught(name):
    policy, encoded = zoo_policy(name), zoo_prompts()
    expected = [by_generate(policy, ids, 24) for ids in encoded]
    wide = zoo_policy(name, sliding_window=4096)
    assert [group[0] for group in decode(wide, encoded, noise, GREEDY).token_ids] != expected


@pytest.mark.parametrize("name", ["mistral", "gemma3", "qwen3_5", "lfm2"])
def test_logits_of_windows_and_states_are_those_of_a_plain_forward_pass(name, monkeypatch):
    sampling = dataclasses.replace(SAMPLED, max_new_tokens=20)
    assert largest_gap(zoo_policy(name), zoo_prompts(), sampling, monkeypatch, moves=False) < 2e-3


@pytest.mark.parametrize("name", ["mistral", "qwen3_5", "lfm2"])
def test_company_changes_few_rows_of_windows_and_states(name):
    """In float32, whose rounding depends on the batch."""
    policy, encoded = zoo_policy(name), zoo_prompts()
    crowd = decode(policy, encoded, noise, SAMPLED).token_ids
    alone = [
        decode(policy, [ids], lambda _, g, p=p: noise(p, g), SAMPLED).token_ids[0] for p, ids in enumerate(encoded)
    ]
    rows = [(a, b) for one, other in zip(crowd, alone) for a, b in zip(one, other)]
    assert sum(a == b for a, b in rows) >= len(rows) - 1


def test_a_row_with_a_state_that_ends_leaves_its_batch():
    policy = zoo_policy("lfm2")
    encoded = [ids for ids in zoo_prompts() if len(ids) == 20]
    decoded = decode(policy, encoded, noise, dataclasses.replace(SAMPLED, temperature=2.0))
    rows = [row for group in decoded.token_ids for row in group]
    assert decoded.prefills == 1
    assert len({len(row) for row in rows}) > 1
    assert decoded.row_steps == sum(len(row) - 1 for row in rows)


def by_forward_passes(policy, ids: list[int], max_new_tokens: int) -> tuple[int, ...]:
    """A greedy completion whose every token comes from the whole row."""
    row = list(ids)
    with torch.no_grad():
        while len(row) < len(ids) + max_new_tokens and row[-1] not in policy.eos_token_ids:
            row.append(int(policy.model(input_ids=torch.tensor([row]), use_cache=False).logits[0, -1].argmax()))
    return tuple(row[len(ids) :])


def test_rows_that_outgrow_a_rope_are_those_of_forward_passes_without_a_cache():
    """Phi-3 with 128k turns all positions at another pace beyond 40 tokens here.

    `generate` is no reference: at that length it drops its cache and goes on from the last token alone.
    """
    factors = {"short_factor": [1.0] * 8, "long_factor": [4.0] * 8, "original_max_position_embeddings": 40}
    rope = {"rope_type": "longrope", "rope_theta": 10_000.0, **factors}
    policy = zoo_policy("phi3", sliding_window=None, rope_parameters=rope, original_max_position_embeddings=40)
    encoded = zoo_prompts()
    assert rollout_path(family_of(policy.model.config), 57).name == EQUAL_LENGTHS
    assert rollout_path(family_of(policy.model.config), 40).name == PLAIN
    ours = [group[0] for group in decode(policy, encoded, noise, GREEDY).token_ids]
    assert ours == [by_forward_passes(policy, ids, 24) for ids in encoded]
    plain = zoo_policy("phi3", sliding_window=None)
    assert ours != [group[0] for group in decode(plain, encoded, noise, GREEDY).token_ids]


def path_of(model_type: str, longest: int | None = None, **settings):
    return rollout_path(family_of(AutoConfig.for_model(model_type, **settings)), longest)


def test_the_configuration_tells_how_a_model_is_decoded():
    assert path_of("llama").name == PLAIN
    assert path_of("mistral", 64, sliding_window=64).name == PLAIN
    assert path_of("mistral", 65, sliding_window=64).name == WINDOWED
    assert path_of("qwen3_5_text").name == EQUAL_LENGTHS
    assert path_of("gemma3n_text", num_hidden_layers=20, num_kv_shared_layers=10).name == EQUAL_LENGTHS


@pytest.mark.parametrize(("model_type", "reason"), [("rwkv", "keeps its past in a way of its own")])
def test_what_cannot_be_decoded_is_refused(model_type, reason):
    path = path_of(model_type)
    assert path.name == REFUSED
    with pytest.raises(ModelError, match=reason):
        path.or_refuse()


def test_a_slower_way_is_told_once(capsys):
    for _ in range(2):
        path_of("bamba").or_refuse()
    assert capsys.readouterr().err.count("BambaForCausalLM has layers of kind linear_attention") == 1


def test_a_cache_that_the_model_left_empty_is_refused():
    with pytest.raises(ModelError, match="keys and values of 0 of 3 layers"):
        check_prefilled(tiny_qwen2().model, DynamicCache(), 4)


def test_logits_that_are_not_finite_are_named():
    policy = tiny_qwen2()
    policy.model.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="NaN or infinite at token 1 of a completion"):
        decode(policy, random_prompts(3), noise, GREEDY)


def test_no_memory_for_the_cache_is_known_for_what_it_is():
    prefilled = DynamicCache()
    tiny_qwen2().model(torch.tensor([[9] * 29]), past_key_values=prefilled)
    with pytest.raises(RuntimeError) as caught:
        cache.SlotCache(prefilled, 10**12, 53)
    assert shortage_of(caught.value).needed_bytes > 2**40
