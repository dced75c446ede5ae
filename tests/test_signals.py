"""Perplexity, IFD, ratings, features and reward curves against the plain formula, by hand, and after a kill."""

from __future__ import annotations

import dataclasses
import json
import math

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import torch

from lean_align.artifacts import read_json, read_jsonl, stage_folder, write_jsonl
from lean_align.errors import DataError, ModelError, OutOfMemoryError, StageError
from lean_align.grpo import generated_tokens, reward_curves
from lean_align.pipeline.stage import StageRun
from lean_align.policy.output_layer import OutputLayer
from lean_align.recipe import load_recipe
from lean_align.signals import (
    RATING_PROMPTS,
    HiddenStates,
    check_output_layer,
    completion_features,
    likelihoods,
    question_span,
    ratings,
    sentence_rating,
    token_rating,
)
from lean_align.stages import GRAPH
from lean_align.stages.inputs import sampling_policy
from lean_align.stages.perplexity import read_perplexity
from lean_align.stages.ratings import read_ratings
from lean_align.stages.reward_curves import read_reward_curves
from lean_align.store import open_store
from lean_align.types import Group, Prompt


@pytest.fixture(scope="module")
def policy(make_policy):
    return make_policy()


def literal_losses(policy, row: list[int]) -> torch.Tensor:
    """-log p of every token but the first: one row, no padding, the model's own logits, float64."""
    with torch.no_grad():
        logits = policy.model(input_ids=torch.tensor([row])).logits[0].double()
    return -torch.log_softmax(logits, -1)[:-1].gather(1, torch.tensor(row[1:])[:, None])[:, 0]


def literal_ifd(policy, group: Group, prompt: list[int], template: list[int]) -> float:
    ratios = []
    for completion in group.completions:
        tokens = [*completion.token_ids]
        known = literal_losses(policy, prompt + tokens)[len(prompt) - 1 :].mean()
        alone = literal_losses(policy, template + tokens)[len(template) - 1 :].mean()
        ratios.append((known / alone).item())
    return sum(ratios) / len(ratios)


def with_zero_spread(group: Group) -> Group:
    return Group(group.prompt, tuple(dataclasses.replace(c, reward=1.0) for c in group.completions))


def with_answer(group: Group, answer: str) -> Group:
    return Group(dataclasses.replace(group.prompt, answer=answer), group.completions)


@pytest.mark.parametrize(
    ("prompt", "template", "expected"),
    [
        ([1, 7, 8, 2], [1, 2], range(1, 3)),
        ([1, 7, 2, 2], [1, 2], range(1, 3)),  # a question that ends like the template keeps that token
        ([7, 8], [], range(0, 2)),
        ([1, 9, 5, 2, 3], [1, 4, 2, 3], range(1, 3)),  # 4 merged with the question
        ([1, 1], [1], range(1, 2)),
        ([1, 2], [1, 2], range(2, 2)),
    ],
)
def test_the_tokens_of_a_question_by_hand(prompt, template, expected):
    assert question_span(prompt, template) == expected


def test_likelihoods_are_those_of_the_plain_formula(policy, groups):
    """The demo's template is one token before the question and one after it."""
    for group, found in zip(groups, likelihoods(policy, groups, token_budget=300, logprob_chunk=5), strict=True):
        prompt = policy.encoder.encode(group.prompt)
        template = [prompt[0], prompt[-1]]
        assert template == policy.encoder.encode(Prompt("", "", ""))
        surprise = literal_losses(policy, prompt)[:-1].mean().item()  # all but the answer's header
        assert found.prompt_id == group.prompt.prompt_id
        assert found.perplexity == pytest.approx(math.exp(surprise), rel=1e-5)
        assert found.ifd == pytest.approx(literal_ifd(policy, group, prompt, template), rel=1e-5)


def test_a_prompt_that_begins_with_its_question_gets_an_end_token_in_front(policy, groups):
    plain = dataclasses.replace(policy, encoder=dataclasses.replace(policy.encoder, prompt_format="plain"))
    end, question = policy.eos_token_ids[0], plain.encoder.encode(groups[0].prompt)
    (found,) = likelihoods(plain, groups[:1])
    surprise = literal_losses(policy, [end, *question]).mean().item()
    assert found.perplexity == pytest.approx(math.exp(surprise), rel=1e-5)
    assert found.ifd == pytest.approx(literal_ifd(policy, groups[0], [end, *question], [end]), rel=1e-5)


def test_a_question_without_tokens_is_refused(policy, groups):
    empty = Group(Prompt("p-9", "", "1"), groups[0].completions)
    with pytest.raises(DataError, match="p-9 gives no token"):
        next(likelihoods(policy, [empty]))


def values_of(policy, groups, token_budget):
    found = [
        (a.perplexity, a.ifd, b.rating, *c[1])
        for a, b, c in zip(
            likelihoods(policy, groups, token_budget),
            ratings(policy, groups, token_budget),
            completion_features(policy, groups, token_budget),
            strict=True,
        )
    ]
    return np.array(found)


def test_neither_padding_nor_order_nor_neighbours_change_a_value(policy, groups):
    """A budget of 1 runs each row alone, without padding; one of 10,000 pads all rows of a prompt together."""
    groups = groups[:2]
    alone, together = values_of(policy, groups, 1), values_of(policy, groups, 10_000)
    np.testing.assert_allclose(alone, together, rtol=1e-5, atol=1e-5)
    assert np.array_equal(values_of(policy, groups[::-1], 10_000)[::-1], together)
    assert np.array_equal(values_of(policy, groups[1:2], 10_000)[0], together[1])


def test_a_left_padded_batch_would_be_caught(policy, groups, monkeypatch):
    """The planted fault: padding in front, at positions that shift with the longest row."""
    before = values_of(policy, groups[:1], 10_000)
    forward = HiddenStates._forward

    def shifted(self, batch):
        width = max(map(len, batch))
        padded = [[self.policy.pad_token_id] * (width - len(row)) + [*row] for row in batch]
        states = forward(self, padded)
        return torch.stack([states[i].roll(len(row) - width, 0) for i, row in enumerate(batch)])

    monkeypatch.setattr(HiddenStates, "_forward", shifted)
    assert not np.allclose(values_of(policy, groups[:1], 10_000), before, rtol=1e-3)


def test_a_gold_answer_is_not_looked_at(policy, groups):
    groups = groups[:1]
    other = [with_answer(group, "-1") for group in groups]
    assert np.array_equal(values_of(policy, other, 4096), values_of(policy, groups, 4096))


def test_logits_exist_for_a_chunk_of_positions_at_a_time(policy, groups):
    seen = []
    head = policy.causal_lm.get_output_embeddings()
    hook = head.register_forward_hook(lambda module, inputs, output: seen.append(output.shape[0]))
    try:
        list(likelihoods(policy, groups, logprob_chunk=7))
    finally:
        hook.remove()
    assert max(seen) == 7


def test_a_token_level_rating_by_hand():
    """P = 0.1 0.1 0.2 0.5 0.1: the score is 4; distances 0.4 + 0.4 + 0.3 + 0 + 0.4 = 1.5, over 4 is 0.375; 1.5.

    Two equally probable scores, 1 and 2: the smaller is taken, 1 * (0 + 0.5 + 0.5 + 0.5) / 4 = 0.375.
    """
    assert token_rating([0.1, 0.1, 0.2, 0.5, 0.1]) == pytest.approx(1.5)
    assert token_rating([0.5, 0.5, 0.0, 0.0, 0.0]) == pytest.approx(0.375)
    assert token_rating([0.0, 0.0, 0.0, 0.0, 1.0]) == 5.0
    assert token_rating([0.2] * 5) == 0.0


def test_a_sentence_level_rating_by_hand():
    """Marks 1, 2, 3: mean 2, std sqrt(2 / 3) = 0.816497 without Bessel's correction, 2 / (1 + 0.163299) = 1.719248."""
    assert sentence_rating([1.0, 2.0, 3.0]) == pytest.approx(1.719248, abs=1e-6)
    assert sentence_rating([1.0, 2.0, 3.0], alpha=0.0) == 2.0


def test_ratings_are_those_of_the_plain_formula(policy, groups):
    digits = [policy.encoder.tokenizer.encode(k, add_special_tokens=False)[0] for k in "12345"]
    for group, found in zip(groups, ratings(policy, groups), strict=True):
        marks = []
        for rating_prompt in RATING_PROMPTS:
            question, solution = group.prompt.prompt, group.completions[0].completion
            text = f"{rating_prompt}\n\nProblem:\n{question}\n\nSolution:\n{solution}\n\nScore:\n"
            row = policy.encoder.encode(Prompt("", text, ""))
            with torch.no_grad():
                scores = policy.model(input_ids=torch.tensor([row])).logits[0, -1].double().softmax(-1)[digits]
            marks.append(token_rating((scores / scores.sum()).tolist()))
        assert (found.prompt_id, found.n_cut) == (group.prompt.prompt_id, 0)
        assert found.rating == pytest.approx(sentence_rating(marks), rel=1e-4)


def test_a_completion_too_long_for_the_context_loses_its_beginning(policy, groups):
    """The demo's context is 512 tokens; what is cut off changes nothing, what is left does."""
    first, room = groups[0].completions[0], 512

    def rated(tokens):
        long = dataclasses.replace(first, token_ids=tuple(tokens), n_tokens=len(tokens))
        (found,) = ratings(policy, [Group(groups[0].prompt, (long,))])
        return found

    digit = policy.encoder.tokenizer.encode("7", add_special_tokens=False)
    found, other, longer = rated([*first.token_ids, *digit * room]), rated(digit * 600), rated(digit * 620)
    assert 0 < found.n_cut < room
    assert found.rating == other.rating == longer.rating
    assert longer.n_cut == other.n_cut + 20
    hopeless = Group(dataclasses.replace(groups[0].prompt, prompt="7" * room), groups[0].completions)
    with pytest.raises(ModelError, match="context is 512"):
        next(ratings(policy, [hopeless]))


def test_features_are_the_mean_of_means_over_completion_tokens(policy, groups):
    group = groups[0]
    prompt = policy.encoder.encode(group.prompt)
    means = []
    for completion in group.completions:
        ids = torch.tensor([[*prompt, *completion.token_ids]])
        with torch.no_grad():
            states = policy.model(input_ids=ids, output_hidden_states=True).hidden_states[-1][0]
        means.append(states[len(prompt) :].double().mean(0))
    ((prompt_id, found),) = completion_features(policy, [group])
    assert (prompt_id, found.dtype, found.shape) == (group.prompt.prompt_id, np.float32, (192,))
    np.testing.assert_allclose(found, torch.stack(means).mean(0).numpy(), rtol=1e-5, atol=1e-5)


def test_a_prompt_without_learnability_is_not_run(policy, groups, monkeypatch):
    monkeypatch.setattr(HiddenStates, "of", lambda self, rows: pytest.fail("ran"))
    ((_, found),) = completion_features(policy, [with_zero_spread(groups[0])])
    assert not found.any()


def test_work_that_does_not_fit_is_halved_and_stays_the_same(policy, groups, monkeypatch):
    monkeypatch.setattr("lean_align.signals.states.release_memory", lambda: None)  # slow, and nothing to release
    groups = groups[:2]
    whole = [found.ifd for found in likelihoods(policy, groups)]
    forward = HiddenStates._forward
    told = []

    def small(self, batch):
        if len(batch) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")
        return forward(self, batch)

    monkeypatch.setattr(HiddenStates, "_forward", small)
    assert [found.ifd for found in likelihoods(policy, groups, on_halving=told.append)] == pytest.approx(whole)
    assert [halving.key for halving in told] == ["token_budget"] * len(told)
    assert len(told) <= 3  # 4 rows, then 2, then 1; not again for each prompt
    monkeypatch.setattr(HiddenStates, "_forward", lambda self, batch: forward_fails())
    with pytest.raises(OutOfMemoryError, match="one row of"):
        next(likelihoods(policy, groups))


def forward_fails():
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 3.00 GiB.")


def test_an_output_layer_is_taken_as_it_is_or_refused(make_policy, groups, monkeypatch):
    policy = make_policy()

    def cap(module, inputs, output):
        output.logits = 5 * torch.tanh(output.logits / 5)
        return output

    policy.causal_lm.register_forward_hook(cap)
    check_output_layer(policy, groups[0])
    monkeypatch.setattr(OutputLayer, "__call__", lambda self, states: self.head(states))
    with pytest.raises(ModelError, match="between its layers and its logits"):
        check_output_layer(policy, groups[0])


@pytest.mark.parametrize("signal", [likelihoods, ratings, completion_features])
def test_a_model_that_gives_nan_is_refused(make_policy, groups, signal):
    broken = make_policy(b_scale=float("nan"))
    with pytest.raises(ModelError, match=r"p-0.*diverged"):
        next(signal(broken, groups))


# stages


@pytest.fixture
def run_dir(tmp_path, groups):
    (tmp_path / "data").mkdir()
    (tmp_path / "rollouts").mkdir()
    write_jsonl(tmp_path / "data/train.jsonl", [dataclasses.asdict(group.prompt) for group in groups])
    completions = [dataclasses.asdict(c) for group in groups for c in group.completions]
    write_jsonl(tmp_path / "rollouts/rollouts.jsonl", completions)
    return tmp_path


SETTINGS = {
    "warmup.steps": 0,
    "warmup.micro_batch": 16,
    "model.quantization": "none",
    "rollouts.num_generations": 2,
    "rollouts.max_new_tokens": 8,
    "training.prompts_per_step": 3,
    "training.micro_batch": 3,
    "training.backend": "trl",
    "selection.curve_epochs": 2,
}


def run_stage(run_dir, name, settings=SETTINGS):
    with stage_folder(run_dir, name, {}) as folder:
        GRAPH.by_folder[name].run(StageRun(load_recipe("demo", settings), run_dir, folder, GRAPH))
    return read_json(run_dir / name / "manifest.json")


class _Killed(Exception):
    pass


@pytest.mark.parametrize(
    ("stage", "file"),
    [("perplexity", "perplexity.parquet"), ("ratings", "ratings.parquet"), ("features", "projected.npy")],
)
def test_a_killed_stage_goes_on_and_writes_what_another_would(run_dir, groups, monkeypatch, stage, file):
    manifest = run_stage(run_dir, stage)
    whole = (run_dir / stage / file).read_bytes()
    assert manifest["counts"]["generated_tokens"] == 0
    (run_dir / stage).rename(run_dir / "whole")
    of, n_prompts = HiddenStates.of, len(groups)
    met, stop_after = [], [2]

    def counted(self, rows):
        met.append(len(rows))
        if len(met) > stop_after[0]:
            raise _Killed
        return of(self, rows)

    monkeypatch.setattr(HiddenStates, "of", counted)
    calls = {"perplexity": 2, "ratings": 1, "features": 1}[stage]  # a prompt
    checks = 0 if stage == "features" else 1
    stop_after[0] = checks + 2 * calls
    with pytest.raises(_Killed):
        run_stage(run_dir, stage)
    if stage != "features":
        with (run_dir / f"{stage}.partial/{stage}.jsonl").open("a") as lines:
            lines.write('{"prompt_id": "p-2", "perp')  # torn
    met.clear()
    stop_after[0] = 1000
    run_stage(run_dir, stage)
    assert len(met) == checks + (n_prompts - 2) * calls
    assert (run_dir / stage / file).read_bytes() == whole
    assert sorted(p.name for p in (run_dir / stage).iterdir()) == sorted(p.name for p in (run_dir / "whole").iterdir())


def test_a_finished_stage_reads_back_in_the_order_of_the_pool(run_dir, groups):
    run_stage(run_dir, "perplexity")
    run_stage(run_dir, "ratings")
    perplexity, ifd = read_perplexity(run_dir)
    assert perplexity.shape == ifd.shape == read_ratings(run_dir).shape == (len(groups),)
    assert perplexity.dtype == ifd.dtype == np.float64
    policy = sampling_policy(load_recipe("demo", SETTINGS), run_dir)
    assert ifd.tolist() == pytest.approx([found.ifd for found in likelihoods(policy, groups)], rel=1e-5)


def test_features_keep_the_contract_of_a_store(run_dir, groups):
    rows = [dataclasses.asdict(c) | {"reward": 0.0} for c in groups[1].completions]
    rows = [dataclasses.asdict(c) for g in (groups[0], *groups[2:]) for c in g.completions] + rows
    write_jsonl(run_dir / "rollouts/rollouts.jsonl", rows)
    run_stage(run_dir, "features")
    store = open_store(run_dir / "features", verify=True)
    assert (store.prompt_ids, store.proj_dim) == (tuple(g.prompt.prompt_id for g in groups), 192)
    lengths = np.linalg.norm(np.asarray(store.rows, dtype=np.float64), axis=1)
    np.testing.assert_allclose(lengths, [1, 0, 1, 1], atol=1e-3)
    assert np.array_equal(store.norms > 0, [True, False, True, True])


def test_lines_of_other_prompts_are_refused(run_dir):
    (run_dir / "ratings.partial").mkdir()
    write_jsonl(run_dir / "ratings.partial/ratings.jsonl", [{"prompt_id": "p-3", "rating": 1.0, "n_cut": 0}])
    (run_dir / "ratings.partial/inputs.json").write_text('{"inputs": {}, "wall_seconds": 0.0}')
    with pytest.raises(StageError, match="line 1 is not of the prompt expected there"):
        run_stage(run_dir, "ratings")


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (["p-0", "p-2", "p-1", "p-3"], "at place 1 it has 'p-2', expected 'p-1'"),
        (["p-0", "p-1", "p-2"], "3 prompts, the pool has 4; at place 3 it has nothing, expected 'p-3'"),
        (["p-0", "p-1", "p-2", "p-3", "p-4"], "at place 4 it has 'p-4', expected nothing"),
    ],
)
def test_values_of_another_pool_are_refused(run_dir, ids, message):
    values = [float(i) for i in range(len(ids))]
    for stage, columns in (("perplexity", {"perplexity": values, "ifd": values}), ("ratings", {"rating": values})):
        (run_dir / stage).mkdir()
        table = pyarrow.table({"prompt_id": ids, **columns})
        pyarrow.parquet.write_table(table, run_dir / stage / f"{stage}.parquet")
    (run_dir / "reward_curves").mkdir()
    np.save(run_dir / "reward_curves/reward_curves.npy", np.zeros((len(ids), 2), np.float32))
    (run_dir / "reward_curves/prompt_ids.json").write_text(json.dumps(ids))
    for read in (read_perplexity, read_ratings, read_reward_curves):
        with pytest.raises(DataError, match=message):
            read(run_dir)


def test_reward_curves_by_hand():
    """Passes b, a and a, b, then a of a third, cut into steps of 3 and 2: a has 1/2, 1; b has 0, 1/2."""
    rows = [
        {"prompt_ids": ["b", "a", "a"], "rewards": [[0, 0], [1, 0], [1, 1]], "n_tokens": [[1, 2], [3, 4], [5, 6]]},
        {"prompt_ids": ["b", "a"], "rewards": [[0, 1], [0, 0]], "n_tokens": [[7, 8], [9, 10]]},
    ]
    assert reward_curves(rows, ["a", "b"], 2).tolist() == [[0.5, 1.0], [0.0, 0.5]]
    assert generated_tokens(rows) == 55
    with pytest.raises(StageError, match="1 of 2 prompts were met fewer than 3 times"):
        reward_curves(rows, ["a", "b"], 3)


def test_reward_curves_come_from_a_training_on_the_whole_pool(run_dir, groups):
    """4 prompts twice, 3 a step: 3 steps, whose ninth position is of a third pass."""
    manifest = run_stage(run_dir, "reward_curves")
    folder = run_dir / "reward_curves"
    rows = read_jsonl(folder / "rewards.jsonl")
    assert [len(row["prompt_ids"]) for row in rows] == [3, 3, 3]
    met = [(i, np.mean(r)) for row in rows for i, r in zip(row["prompt_ids"], row["rewards"])]
    curves = read_reward_curves(run_dir)
    assert curves.shape == (4, 2)
    for place, group in enumerate(groups):
        means = [mean for prompt_id, mean in met if prompt_id == group.prompt.prompt_id]
        assert curves[place].tolist() == means[:2]
    counts = manifest["counts"]
    assert (counts["steps"], counts["epochs"], counts["n_prompts"]) == (3, 2, 4)
    assert 18 <= counts["generated_tokens"] <= 18 * 8
    assert {p.name for p in folder.iterdir()} == {
        "backend.json",
        "log.jsonl",
        "manifest.json",
        "prompt_ids.json",
        "reward_curves.npy",
        "rewards.jsonl",
    }
