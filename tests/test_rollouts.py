from __future__ import annotations

import contextlib
import dataclasses
import json
import random
import sys
from types import SimpleNamespace

import pytest

from lean_align.errors import OutOfMemoryError, StageError
from lean_align.rng import seed_for
from lean_align.rollouts import (
    Sampling,
    TransformersEngine,
    complete,
    complete_sequentially,
    generate_batch,
    group_completions,
    make_windows,
    read_completions,
)
from lean_align.rollouts.vllm import LoadedVllm, VllmEngine
from lean_align.types import Completion, Prompt
from tests.conftest import QUESTIONS

SAMPLING = Sampling(
    num_generations=3, temperature=1.0, max_new_tokens=12, batch_size=4, seed=4, stage="tests", window=6
)
PROMPTS = [Prompt(f"p-{i}", question, answer) for i, (question, answer) in enumerate(QUESTIONS)]


def reward(gold: str, completion: str) -> float:
    return float(completion.endswith(gold))


def write(policy, path, prompts=PROMPTS, sampling=SAMPLING) -> None:
    complete(TransformersEngine(policy), prompts, path, sampling, reward, lambda path: contextlib.nullcontext())


@pytest.fixture(scope="module")
def policy(make_policy):
    return make_policy()


@pytest.fixture(scope="module")
def whole(policy, tmp_path_factory):
    path = tmp_path_factory.mktemp("rollouts") / "rollouts.jsonl"
    write(policy, path)
    return path.read_bytes()


def test_windows_are_longest_first_with_whole_groups():
    windows = make_windows(PROMPTS, [5, 9, 9, 2], SAMPLING)
    assert [[p.prompt_id for p in window] for window in windows] == [["p-1", "p-2"], ["p-0", "p-3"]]


def test_a_window_holds_a_prompt_at_least():
    small = dataclasses.replace(SAMPLING, window=1)
    assert [len(window) for window in make_windows(PROMPTS, [5, 9, 9, 2], small)] == [1, 1, 1, 1]


def test_windows_do_not_depend_on_the_order_of_the_prompts():
    backwards = make_windows(PROMPTS[::-1], [2, 9, 9, 5], SAMPLING)
    assert backwards == make_windows(PROMPTS, [5, 9, 9, 2], SAMPLING)


def test_every_prompt_gets_its_completions_with_rewards(policy, whole, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(whole)
    groups = group_completions(PROMPTS, read_completions(path))
    assert [g.prompt for g in groups] == PROMPTS
    for group in groups:
        assert [c.index for c in group.completions] == [0, 1, 2]
        for c in group.completions:
            assert c.completion == policy.encoder.decode(c.token_ids)
            assert c.reward == reward(group.prompt.answer, c.completion)
            assert c.n_tokens == len(c.token_ids) <= 12
            assert c.finished == (c.token_ids[-1] in policy.eos_token_ids)
            assert not any(t in policy.eos_token_ids for t in c.token_ids[:-1])


def test_a_completion_at_the_limit_is_marked_truncated(policy, tmp_path):
    write(policy, tmp_path / "r.jsonl", sampling=Sampling(2, 1.0, 2, 8, 0, "short"))
    completions = list(read_completions(tmp_path / "r.jsonl"))
    assert len(completions) == 8
    assert not any(c.finished for c in completions)  # the shortest answer, "#### 9" and its end, has 4 tokens


def test_a_file_cut_anywhere_is_completed_to_the_same_bytes(policy, whole, tmp_path):
    path = tmp_path / "r.jsonl"
    half = len(b"".join(whole.splitlines(keepends=True)[:6]))  # the end of the first of two windows
    drawn = random.Random(1).sample(range(len(whole)), 12)
    for cut in (0, 1, half - 1, half, half + 1, len(whole) - 1, len(whole), *drawn):
        path.write_bytes(whole[:cut])
        write(policy, path)
        assert path.read_bytes() == whole, cut


def test_a_window_that_is_whole_is_kept_and_only_the_rest_is_made(policy, whole, tmp_path, monkeypatch):
    path, made = tmp_path / "r.jsonl", []
    path.write_bytes(b"".join(whole.splitlines(keepends=True)[:8]))  # a window and a third

    def spy(engine, window, *rest):
        made.append([prompt.prompt_id for prompt in window])
        return generate_batch(engine, window, *rest)

    monkeypatch.setattr("lean_align.rollouts.completions.generate_batch", spy)
    write(policy, path)
    assert len(made) == 1
    assert len(made[0]) == 2
    assert path.read_bytes() == whole


def test_progress_goes_on_inside_a_window(policy):
    ended = []
    generate_batch(TransformersEngine(policy), PROMPTS, SAMPLING, reward, ended.append)
    assert sum(ended) == 12
    assert len(ended) > 2


def test_a_finished_file_is_not_made_again(policy, whole, tmp_path, monkeypatch):
    path = tmp_path / "r.jsonl"
    path.write_bytes(whole)
    monkeypatch.setattr("lean_align.rollouts.completions.generate_batch", lambda *a: pytest.fail("generated again"))
    write(policy, path)
    assert path.read_bytes() == whole


def test_completions_of_another_run_are_refused(policy, whole, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(whole)
    with pytest.raises(StageError, match="line 1 is not a completion of this run"):
        write(policy, path, prompts=PROMPTS[:1])


def test_samples_differ_by_seed_and_by_stage(policy):
    def texts(seed: int, stage: str) -> list[str]:
        sampling = Sampling(8, 1.0, 16, 8, seed, stage)
        return [c.completion for c in generate_batch(TransformersEngine(policy), PROMPTS[:1], sampling, reward)]

    assert texts(0, "a") == texts(0, "a")
    assert texts(0, "a") != texts(1, "a")
    assert texts(0, "a") != texts(0, "b")


def test_temperature_zero_is_greedy(policy):
    first, second = (
        generate_batch(TransformersEngine(policy), PROMPTS, Sampling(1, 0.0, 12, 4, s, "g"), reward) for s in (0, 1)
    )
    assert first == second


def test_a_prompt_without_completions_is_named(whole, tmp_path):
    path = tmp_path / "r.jsonl"
    path.write_bytes(whole)
    extra = Prompt("p-9", "?", "1")
    with pytest.raises(StageError, match=r"1 prompts have no completions \(first: p-9\)"):
        group_completions([*PROMPTS, extra], read_completions(path))


def test_a_completion_without_a_prompt_is_named():
    stray = Completion("q", 0, "", (), 0, 0.0, True)
    with pytest.raises(StageError, match="completions of q"):
        group_completions(PROMPTS, iter([stray]))


def test_lines_are_plain_json(whole):
    row = json.loads(whole.splitlines()[0])
    assert list(row) == ["prompt_id", "index", "completion", "token_ids", "n_tokens", "reward", "finished"]


def test_a_window_that_does_not_fit_is_decoded_in_smaller_batches(policy, whole, tmp_path, monkeypatch):
    import torch

    from lean_align.rollouts import completions

    real, tried, halvings = completions.generate_batch, [], []

    def limited(policy, window, sampling, reward, advance):
        tried.append(sampling.batch_size)
        advance(1)  # a row had ended when memory ran out
        if sampling.batch_size > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        advance(-1)
        return real(policy, window, sampling, reward, advance)

    monkeypatch.setattr(completions, "generate_batch", limited)
    path = tmp_path / "r.jsonl"
    large = dataclasses.replace(SAMPLING, batch_size=16)
    complete(
        TransformersEngine(policy), PROMPTS, path, large, reward, lambda path: contextlib.nullcontext(), halvings.append
    )
    assert path.read_bytes() == whole
    assert tried[:3] == [16, 8, 4]
    assert set(tried[3:]) == {4}  # later windows do not try again
    assert [(h.work, h.key, h.value, h.shortage.needed_bytes) for h in halvings] == [
        ("tests", "batch_size", 8, 2 * 2**30),
        ("tests", "batch_size", 4, 2 * 2**30),
    ]


def test_a_prompt_whose_completions_fit_nowhere_says_what_to_lower(policy, tmp_path, monkeypatch):
    def full(*args):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1048576 bytes.")

    monkeypatch.setattr("lean_align.rollouts.completions.generate_batch", full)
    with pytest.raises(OutOfMemoryError, match=r"3 completions of one prompt \(1\.0 MiB more needed.*max_new_tokens"):
        write(policy, tmp_path / "r.jsonl")


SEQUENTIAL = dataclasses.replace(SAMPLING, num_generations=6, window=12)
FIRST = 2


def parity(gold: str, completion: str) -> float:
    """A reward that differs inside some groups and not in others."""
    return float(sum(map(ord, completion)) % 2)


def write_sequentially(policy, path, prompts=PROMPTS, first=FIRST) -> None:
    engine = TransformersEngine(policy)
    complete_sequentially(engine, prompts, path, SEQUENTIAL, first, parity, lambda path: contextlib.nullcontext())


@pytest.fixture(scope="module")
def double(make_policy):
    """In float64 no rounding shows, whatever shares a batch."""
    return make_policy(double=True)


@pytest.fixture(scope="module")
def fixed_lines(double, tmp_path_factory):
    path = tmp_path_factory.mktemp("fixed") / "rollouts.jsonl"
    guard = lambda path: contextlib.nullcontext()  # noqa: E731
    complete(TransformersEngine(double), PROMPTS, path, SEQUENTIAL, parity, guard)
    return path.read_text(encoding="utf-8").splitlines(keepends=True)


@pytest.fixture(scope="module")
def sequential(double, tmp_path_factory):
    path = tmp_path_factory.mktemp("sequential") / "rollouts.jsonl"
    write_sequentially(double, path)
    assert [p.name for p in path.parent.iterdir()] == ["rollouts.jsonl"]
    return path.read_bytes()


def test_a_later_pass_draws_the_completions_of_its_indices(double):
    engine = TransformersEngine(double)
    whole = generate_batch(engine, PROMPTS, SEQUENTIAL, parity)
    later = dataclasses.replace(SEQUENTIAL, num_generations=4, first_index=2)
    assert generate_batch(engine, PROMPTS, later, parity) == [c for c in whole if c.index >= 2]


def test_vllm_seeds_a_later_pass_by_its_indices(monkeypatch):
    asked = []

    def generate(requests, parameters, **options):
        asked.extend(p["seed"] for p in parameters)
        return [SimpleNamespace(outputs=[SimpleNamespace(token_ids=[i])]) for i in range(len(requests))]

    monkeypatch.setitem(sys.modules, "vllm", SimpleNamespace(SamplingParams=dict))
    encoder = SimpleNamespace(encode=lambda prompt: [1])
    engine = VllmEngine(LoadedVllm(SimpleNamespace(generate=generate)), encoder, (2,))
    later = dataclasses.replace(SEQUENTIAL, num_generations=2, first_index=4)
    assert engine.sample(PROMPTS[:2], later) == [[(0,), (1,)], [(2,), (3,)]]
    assert asked == [seed_for(4, "tests", f"p-{p}/{g}") for p in (0, 1) for g in (4, 5)]


def test_sequential_completions_are_those_of_the_fixed_allocation(sequential, fixed_lines):
    """Line for line, in the same order: all of a prompt whose first two rewards differ, else the first two."""
    rows = [json.loads(line) for line in fixed_lines]
    first = {
        p.prompt_id: {r["reward"] for r in rows if r["prompt_id"] == p.prompt_id and r["index"] < FIRST}
        for p in PROMPTS
    }
    assert {len(rewards) for rewards in first.values()} == {1, 2}
    kept = [line for line, r in zip(fixed_lines, rows) if r["index"] < FIRST or len(first[r["prompt_id"]]) == 2]
    assert sequential.decode().splitlines(keepends=True) == kept


def test_groups_of_either_size_are_read(sequential, tmp_path):
    (tmp_path / "r.jsonl").write_bytes(sequential)
    groups = group_completions(PROMPTS, read_completions(tmp_path / "r.jsonl"))
    assert {len(group.completions) for group in groups} == {2, 6}
    for group in groups:
        assert [c.index for c in group.completions] == list(range(len(group.completions)))
        assert (group.learnability > 0) == (len(group.completions) == 6)


def test_both_passes_cut_anywhere_are_completed_to_the_same_bytes(double, sequential, tmp_path):
    lines = sequential.splitlines(keepends=True)
    parts = {"first.jsonl": [], "more.jsonl": []}
    for line in lines:
        parts["first.jsonl" if json.loads(line)["index"] < FIRST else "more.jsonl"].append(line)
    first, more = (b"".join(part) for part in parts.values())
    path = tmp_path / "rollouts.jsonl"
    cuts = [(first[:n], None) for n in (0, 700, len(first) - 1)] + [(first, more[:n]) for n in (0, 900, len(more))]
    for begun, later in cuts:
        path.unlink(missing_ok=True)
        path.with_name("first.jsonl").write_bytes(begun)
        if later is not None:
            path.with_name("more.jsonl").write_bytes(later)
        path.with_name("rollouts.jsonl.tmp").write_bytes(sequential[:100])  # killed while merging
        write_sequentially(double, path)
        assert path.read_bytes() == sequential
        assert [p.name for p in tmp_path.iterdir()] == ["rollouts.jsonl"]


def test_a_kill_after_the_merge_leaves_only_cleaning_up(double, sequential, tmp_path, monkeypatch):
    path = tmp_path / "rollouts.jsonl"
    path.write_bytes(sequential)
    path.with_name("more.jsonl").write_bytes(b"a part")
    monkeypatch.setattr("lean_align.rollouts.completions.generate_batch", lambda *a: pytest.fail("generated again"))
    write_sequentially(double, path)
    assert path.read_bytes() == sequential
    assert not path.with_name("more.jsonl").exists()


def test_a_second_pass_of_other_prompts_is_refused(double, sequential, tmp_path):
    """Planted: a later completion of a prompt whose first rewards are equal."""
    lines = [json.loads(line) for line in sequential.splitlines()]
    stopped = next(r["prompt_id"] for r in lines if sum(o["prompt_id"] == r["prompt_id"] for o in lines) == FIRST)
    stray = {**next(r for r in lines if r["prompt_id"] == stopped), "index": FIRST}
    (tmp_path / "more.jsonl").write_text(json.dumps(stray) + "\n")
    with pytest.raises(StageError, match=r"more.jsonl line 1 is not a completion of this run"):
        write_sequentially(double, tmp_path / "rollouts.jsonl")


def test_where_nothing_is_undecided_the_second_pass_is_empty(double, tmp_path):
    engine, guard = TransformersEngine(double), lambda path: contextlib.nullcontext()
    path = tmp_path / "rollouts.jsonl"
    complete_sequentially(engine, PROMPTS[:1], path, SEQUENTIAL, 3, lambda gold, text: 1.0, guard)
    assert [c.index for c in read_completions(path)] == [0, 1, 2]


@pytest.mark.parametrize("first", [0, 6])
def test_a_first_look_at_nothing_or_all_is_refused(double, tmp_path, first):
    with pytest.raises(ValueError, match=f"first is {first}; expected 1 to 5"):
        write_sequentially(double, tmp_path / "rollouts.jsonl", first=first)
