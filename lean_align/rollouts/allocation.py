"""Completions where they can still tell something: a few of every prompt, the others where their rewards differ.

Pass 1 draws completions 0 .. first - 1 of every prompt, pass 2 completions first .. G - 1 of the prompts whose first
rewards are not all equal.  A completion's noise is that of its index, so each is the one that G completions of every
prompt would have held there, but for rounding: a batch of other rows rounds otherwise.

Each pass has a file of its own, continued after a kill as `completions.complete` does.  Which prompts pass 2 takes
follows from pass 1's file alone.  Both lie in one order, longest prompt first, and are merged line by line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from lean_align.advice import made_anew
from lean_align.errors import StageError
from lean_align.memory import Halving
from lean_align.rollouts.completions import Reward, complete
from lean_align.rollouts.engines import Engine
from lean_align.rollouts.sampling import Sampling
from lean_align.types import Prompt

FIRST, MORE = "first.jsonl", "more.jsonl"


def complete_sequentially(
    engine: Engine,
    prompts: Sequence[Prompt],
    path: Path,
    sampling: Sampling,
    first: int,
    reward: Reward,
    guard: Callable[[Path], AbstractContextManager[None]],
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> None:
    """Write a line a completion to `path`, in the form of `complete`, continuing what an earlier run left there.

    Parameters
    ----------
    engine : Engine
    prompts : sequence of Prompt
    path : Path
        Written whole, once both passes are; until then `first.jsonl` and `more.jsonl` lie beside it.
    sampling : Sampling
        `num_generations` is what an undecided prompt gets in all (G).
    first : int
        What every prompt gets, in [1, G - 1].
    reward, guard, on_halving
        As for `complete`.

    Raises
    ------
    ValueError
        When `first` is out of range.
    StageError
        When a file holds completions of other prompts.
    OutOfMemoryError
        When the completions of a single prompt do not fit into memory.
    """
    if not 1 <= first < sampling.num_generations:
        raise ValueError(f"first is {first}; expected 1 to {sampling.num_generations - 1}, one less than G.")
    parts = (path.with_name(FIRST), path.with_name(MORE))
    if not path.exists():  # it is renamed into place whole
        passes = (
            replace(sampling, num_generations=first),
            replace(sampling, num_generations=sampling.num_generations - first, first_index=first),
        )
        chosen = prompts
        for part, drawn in zip(parts, passes):
            complete(engine, chosen, part, drawn, reward, guard, on_halving)
            undecided = undecided_prompts(parts[0])
            chosen = [prompt for prompt in prompts if prompt.prompt_id in undecided]
        with guard(path):
            _merge(*parts, path)
    for part in parts:
        part.unlink(missing_ok=True)


def undecided_prompts(path: Path) -> set[str]:
    """Prompts of a file of completions whose rewards are not all equal."""
    return {prompt_id for prompt_id, lines in _lines_by_prompt(path) if len({_reward_of(line) for line in lines}) > 1}


def _merge(first: Path, more: Path, path: Path) -> None:
    """Put each prompt's later completions behind its first ones."""
    partial = path.with_name(path.name + ".tmp")
    later = _lines_by_prompt(more)
    waiting = next(later, None)
    with partial.open("w", encoding="utf-8") as file:
        for prompt_id, lines in _lines_by_prompt(first):
            file.writelines(lines)
            if waiting is not None and waiting[0] == prompt_id:
                file.writelines(waiting[1])
                waiting = next(later, None)
        file.flush()
        os.fsync(file.fileno())
    if waiting is not None:
        raise StageError(
            f"{more} and {first} are not of the same prompts or order (at {waiting[0]}). {made_anew(more)}"
        )
    partial.replace(path)


def _lines_by_prompt(path: Path) -> Iterator[tuple[str, list[str]]]:
    with path.open(encoding="utf-8") as file:
        for prompt_id, lines in groupby(file, key=lambda line: str(json.loads(line)["prompt_id"])):
            yield prompt_id, list(lines)


def _reward_of(line: str) -> float:
    return float(json.loads(line)["reward"])
