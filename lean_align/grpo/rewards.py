"""Rewards of a training by step and prompt: `rewards.jsonl`, the same however often the training was killed.

One line per step, `{"step", "prompt_ids", "rewards", "n_tokens"}`: an entry for each prompt of the step, in the order
of training, with a list over its completions.  A prompt that is met twice in a step has two entries.  A step on the
completions of the one before has none.  Where a step refills, `counted` says which prompts its loss is over; where rows
are kept, `rows` has the number of each prompt's, or null.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.artifacts import read_jsonl
from lean_align.errors import StageError
from lean_align.files import cut_file, whole_rows
from lean_align.types import Group

REWARDS = "rewards.jsonl"
TRAINED_TOKENS = "trained_tokens"
"""Key of a log's row: completion tokens whose gradient the step took."""


class RewardLog:
    """Takes a step's rewards in the pieces in which they are sampled, and writes them when the step is over.

    Parameters
    ----------
    path : Path
        Lines that it holds from an earlier attempt are kept up to `steps_done`.
    num_generations : int
    steps_done : int
        Of the checkpoint that the training goes on from.

    Raises
    ------
    StageError
        When the file lacks a step up to there.
    """

    def __init__(self, path: Path, num_generations: int, steps_done: int) -> None:
        self.path, self.num_generations = path, num_generations
        self._pieces: list[tuple[str, list[float], list[int]]] = []
        self._notes: dict[str, dict[int, Any]] = {}
        _keep_steps(path, steps_done)

    def begin_step(self) -> None:
        """Drop what an unfinished step has left."""
        self._pieces.clear()
        self._notes.clear()

    def add(self, prompt_ids: Sequence[str], rewards: Sequence[float], n_tokens: Sequence[int]) -> None:
        """Take completions in the order of the trainer: each prompt's `num_generations` stand together.

        Raises
        ------
        StageError
            When they do not: the rewards of a group would then be another's.
        """
        size = self.num_generations
        for start in range(0, len(prompt_ids), size):
            group = slice(start, start + size)
            if len(prompt_ids[group]) != size or len(set(prompt_ids[group])) > 1:
                raise StageError(
                    f"the trainer gave completions of {sorted(set(prompt_ids[group]))} as one group of {size}; "
                    "expected those of one prompt. Use the tested version of trl (requirements/)."
                )
            self._pieces.append((prompt_ids[start], list(map(float, rewards[group])), list(map(int, n_tokens[group]))))

    def add_group(self, group: Group, counted: bool | None = None) -> None:
        """Take a prompt's completions, and whether the step's loss counts them; None where it counts all."""
        if counted is not None:
            self._notes.setdefault("counted", {})[len(self._pieces)] = counted
        tokens = [completion.n_tokens for completion in group.completions]
        self._pieces.append((group.prompt.prompt_id, list(map(float, group.rewards)), tokens))

    def note_row(self, place: int, row: int) -> None:
        """The step's prompt at `place` has its gradient in this row."""
        self._notes.setdefault("rows", {})[place] = row

    def end_step(self, step: int) -> None:
        """Write the line of a step, counted from 1, and force it to the disk: a checkpoint may follow."""
        ids, rewards, n_tokens = ([piece[i] for piece in self._pieces] for i in range(3))
        row: dict[str, Any] = {"step": step, "prompt_ids": ids, "rewards": rewards, "n_tokens": n_tokens}
        row |= {key: [found.get(place) for place in range(len(ids))] for key, found in self._notes.items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
            file.flush()
            os.fsync(file.fileno())
        self.begin_step()


def recorded(
    reward: Callable[[str, str], float], decode: Callable[[Sequence[int]], str], log: RewardLog
) -> Callable[..., list[float]]:
    """A reward function as trl calls it, columns of the data set as keyword arguments, that fills the log.

    The text is what `decode` makes of the token ids, as in the rollouts.  What trl hands over is another where a
    tokenizer parses its answers: the thoughts of a model are then cut off, and the gradients of the rollouts would be
    those of another reward.
    """

    def correctness(
        answer: Sequence[str], prompt_id: Sequence[str], completion_ids: Sequence[Sequence[int]], **others: Any
    ) -> list[float]:
        rewards = [reward(gold, decode(tokens)) for gold, tokens in zip(answer, completion_ids, strict=True)]
        log.add(prompt_id, rewards, [len(tokens) for tokens in completion_ids])
        return rewards

    return correctness


def read_rewards(folder: Path) -> list[dict[str, Any]]:
    """Rows of a training's `rewards.jsonl`, a step each."""
    return read_jsonl(folder / REWARDS)


def generated_tokens(rows: Sequence[Mapping[str, Any]]) -> int:
    """Tokens that a training sampled; those of steps that a kill undid are not in it."""
    return sum(tokens for row in rows for group in row["n_tokens"] for tokens in group)


def trained_tokens(log: Sequence[Mapping[str, float]]) -> int | None:
    """Completion tokens that a training took gradients of, each as often as it did; None of a log of before."""
    return sum(int(row[TRAINED_TOKENS]) for row in log) if all(TRAINED_TOKENS in row for row in log) else None


def with_all_trained(log: Sequence[Mapping[str, float]], rows: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The log of a trainer that passes over all completions, with the tokens of each step.

    Parameters
    ----------
    log : sequence of mapping
        A row a step.
    rows : sequence of mapping
        Of its `rewards.jsonl`; a step on the completions of the one before has none of its own.
    """
    found, tokens = list[dict[str, float]](), 0
    for logged, row in zip(log, rows, strict=True):
        tokens = generated_tokens([row]) if row["n_tokens"] else tokens
        found.append({**logged, TRAINED_TOKENS: tokens})
    return found


def reward_curves(rows: Sequence[Mapping[str, Any]], prompt_ids: Sequence[str], epochs: int) -> NDArray[np.float64]:
    """Mean reward of each prompt in each pass.

    Parameters
    ----------
    rows : sequence of mapping
        Of `rewards.jsonl`, of a training that passed over all prompts at least `epochs` times.
    prompt_ids : sequence of str
        The prompts trained on, in the order wanted.
    epochs : int
        A pass that had only begun after these is left out.

    Returns
    -------
    (n, epochs) float64, in [0, 1]

    Raises
    ------
    StageError
        When a prompt was met less often.
    """
    met: dict[str, list[float]] = {prompt_id: [] for prompt_id in prompt_ids}
    for row in rows:
        for prompt_id, rewards in zip(row["prompt_ids"], row["rewards"], strict=True):
            met[prompt_id].append(sum(rewards) / len(rewards))
    short = [prompt_id for prompt_id, found in met.items() if len(found) < epochs]
    if short:
        raise StageError(
            f"{len(short)} of {len(met)} prompts were met fewer than {epochs} times in the training (first: "
            f"{short[0]}). Delete the folder of its rewards and run it again."
        )
    return np.array([met[prompt_id][:epochs] for prompt_id in prompt_ids], dtype=np.float64)


def _keep_steps(path: Path, steps_done: int) -> None:
    """Cut the file after the line of a step; later and torn ones are made again."""
    steps, end = 0, 0
    if path.exists():
        for row, stop in whole_rows(path):
            if steps == steps_done or not isinstance(row, dict) or row.get("step") != steps + 1:
                break
            steps, end = steps + 1, stop
    if steps < steps_done:
        raise StageError(
            f"{path} has the rewards of {steps} steps, but the checkpoint next to it was taken after {steps_done}. "
            + made_anew(path.parent)
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    cut_file(path, end)
