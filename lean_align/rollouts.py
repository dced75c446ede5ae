"""Completions by transformers' `generate`, in batches that are a function of the recipe and the prompts.

Prompts are sorted by length, longest first (so that memory runs out at once or never), and cut into
batches; all completions of a prompt lie in one batch.  A batch draws its noise from (seed, stage, its
prompt_ids), so that a batch made again after a kill gives the same completions, and the file of a
resumed run is that of an uninterrupted one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from lean_align.errors import StageError
from lean_align.policy import Policy, seeded
from lean_align.progress import Progress
from lean_align.rng import seed_for
from lean_align.types import Completion, Group, Prompt

Reward = Callable[[str, str], float]


@dataclass(frozen=True)
class Sampling:
    """How completions are drawn; temperature 0 is greedy decoding."""

    num_generations: int
    temperature: float
    max_new_tokens: int
    batch_size: int
    seed: int
    stage: str


def make_batches(
    prompts: Sequence[Prompt], lengths: Sequence[int], sampling: Sampling
) -> tuple[tuple[Prompt, ...], ...]:
    """Cut prompts into batches of similar length.

    Parameters
    ----------
    prompts : sequence of Prompt
    lengths : sequence of int
        Tokens of each prompt.
    sampling : Sampling
        `batch_size` counts completions; a batch holds at least one prompt.

    Returns
    -------
    tuple of tuple of Prompt
        Longest prompts first; equal lengths by prompt_id.
    """
    per_batch = max(1, sampling.batch_size // sampling.num_generations)
    order = sorted(range(len(prompts)), key=lambda i: (-lengths[i], prompts[i].prompt_id))
    return tuple(
        tuple(prompts[i] for i in order[start : start + per_batch]) for start in range(0, len(order), per_batch)
    )


def generate_batch(policy: Policy, batch: Sequence[Prompt], sampling: Sampling, reward: Reward) -> list[Completion]:
    """Sample the completions of one batch and give each its reward.

    Parameters
    ----------
    policy : Policy
    batch : sequence of Prompt
    sampling : Sampling
    reward : callable
        (gold, completion) -> 0.0 or 1.0.

    Returns
    -------
    list of Completion
        Prompt by prompt, index by index.
    """
    rows = [policy.encoder.encode(prompt) for prompt in batch]
    width = max(len(row) for row in rows)
    pad = policy.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=policy.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=policy.device)
    key = ",".join(prompt.prompt_id for prompt in batch)
    with torch.no_grad(), seeded(seed_for(sampling.seed, sampling.stage, key)):
        sequences = policy.model.generate(
            input_ids=ids, attention_mask=mask, pad_token_id=pad, **_generation_options(policy, sampling)
        )
    sampled = sequences[:, width:].tolist()
    count = sampling.num_generations
    return [
        _completion(policy, prompt, index, sampled[row * count + index], sampling, reward)
        for row, prompt in enumerate(batch)
        for index in range(count)
    ]


def complete(
    policy: Policy,
    prompts: Sequence[Prompt],
    path: Path,
    sampling: Sampling,
    reward: Reward,
    guard: Callable[[Path], AbstractContextManager[None]],
) -> None:
    """Write a line a completion to `path`, continuing what an earlier run left there.

    Parameters
    ----------
    policy : Policy
    prompts : sequence of Prompt
    path : Path
        A JSONL file; a batch that is not there whole is made again.
    sampling : Sampling
    reward : callable
    guard : callable
        Context manager around each write, which turns a full disk into a message.

    Raises
    ------
    StageError
        When the file holds completions of other prompts.
    """
    batches = make_batches(prompts, [len(policy.encoder.encode(prompt)) for prompt in prompts], sampling)
    done = _truncate_to_batches(path, batches, sampling.num_generations)
    total = len(prompts) * sampling.num_generations
    finished = sum(len(batch) for batch in batches[:done]) * sampling.num_generations
    with guard(path), path.open("a", encoding="utf-8") as file, Progress(sampling.stage, total, finished) as progress:
        for batch in batches[done:]:
            completions = generate_batch(policy, batch, sampling, reward)
            file.writelines(json.dumps(asdict(c), ensure_ascii=False) + "\n" for c in completions)
            file.flush()
            os.fsync(file.fileno())
            progress.advance(len(completions))


def read_completions(path: Path) -> Iterator[Completion]:
    """Completions from a file that `complete` wrote."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            yield Completion(**{**row, "token_ids": tuple(row["token_ids"])})


def group_completions(prompts: Sequence[Prompt], completions: Iterator[Completion]) -> list[Group]:
    """Join prompts with their completions, in the order of the prompts.

    Raises
    ------
    StageError
        When a prompt has no completions, or a completion no prompt.
    """
    members: dict[str, list[Completion]] = {prompt.prompt_id: [] for prompt in prompts}
    for completion in completions:
        if completion.prompt_id not in members:
            raise StageError(f"there are completions of {completion.prompt_id}, which is no prompt of this run.")
        members[completion.prompt_id].append(completion)
    empty = [prompt_id for prompt_id, found in members.items() if not found]
    if empty:
        raise StageError(f"{len(empty)} prompts have no completions (first: {empty[0]}). Run the rollout stage again.")
    return [Group(p, tuple(sorted(members[p.prompt_id], key=lambda c: c.index))) for p in prompts]


def _generation_options(policy: Policy, sampling: Sampling) -> dict[str, Any]:
    # every field that a model's own generation_config may set is named: nothing is inherited
    options: dict[str, Any] = {
        "max_new_tokens": sampling.max_new_tokens,
        "eos_token_id": list(policy.eos_token_ids),
        "num_return_sequences": sampling.num_generations,
        "num_beams": 1,
        "repetition_penalty": 1.0,
        "use_cache": True,
    }
    if sampling.temperature == 0:
        return {**options, "do_sample": False, "temperature": None, "top_p": None, "top_k": None}
    return {**options, "do_sample": True, "temperature": sampling.temperature, "top_p": 1.0, "top_k": 0}


def _completion(
    policy: Policy, prompt: Prompt, index: int, sampled: list[int], sampling: Sampling, reward: Reward
) -> Completion:
    ends = [i for i, token in enumerate(sampled) if token in policy.eos_token_ids]
    token_ids = sampled[: ends[0] + 1] if ends else sampled
    text = policy.encoder.decode(token_ids)
    return Completion(
        prompt_id=prompt.prompt_id,
        index=index,
        completion=text,
        token_ids=tuple(token_ids),
        n_tokens=len(token_ids),
        reward=reward(prompt.answer, text),
        finished=bool(ends),
    )


def _truncate_to_batches(path: Path, batches: Sequence[Sequence[Prompt]], count: int) -> int:
    """Cut the file after its last whole batch; return how many batches it holds."""
    if not path.exists():
        return 0
    expected = [(prompt.prompt_id, index) for batch in batches for prompt in batch for index in range(count)]
    ends: list[int] = []
    with path.open("rb") as file:
        for line in file:
            try:
                row = json.loads(line) if line.endswith(b"\n") else None
            except ValueError:
                row = None
            if row is None:  # torn by a kill: this batch is made again
                break
            if len(ends) >= len(expected) or (row["prompt_id"], row["index"]) != expected[len(ends)]:
                raise StageError(f"{path} line {len(ends) + 1} is not a completion of this run. Delete {path}.")
            ends.append(file.tell())
    done, kept = 0, 0
    while done < len(batches) and kept + len(batches[done]) * count <= len(ends):
        kept += len(batches[done]) * count
        done += 1
    with path.open("rb+") as file:
        file.truncate(ends[kept - 1] if kept else 0)
    return done
