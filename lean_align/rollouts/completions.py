"""Completions as a JSONL file: one line per completion, written a window at a time, continued after a kill.

`complete_sequentially` draws completions where they can still tell something: a few of every prompt, the others where
their rewards differ.  Pass 1 draws completions 0 .. first - 1 of every prompt, pass 2 completions first .. G - 1 of the
prompts whose first rewards are not all equal.  A completion's noise is that of its index, so each is the one that G
completions of every prompt would have held there, but for rounding: a batch of other rows rounds otherwise.

Each pass has a file of its own, continued after a kill as `complete` does.  Which prompts pass 2 takes
follows from pass 1's file alone.  Both lie in one order, longest prompt first, and are merged line by line.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path

from lean_align.advice import made_anew
from lean_align.errors import OutOfMemoryError, StageError
from lean_align.files import cut_file, whole_rows
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.progress import Progress
from lean_align.rollouts.sampling import Engine, Sampling, make_windows
from lean_align.types import Completion, Group, Prompt

Reward = Callable[[str, str], float]


def generate_batch(
    engine: Engine,
    batch: Sequence[Prompt],
    sampling: Sampling,
    reward: Reward,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Completion]:
    """Sample the completions of some prompts as one window, and give each its reward.

    Parameters
    ----------
    engine : Engine
    batch : sequence of Prompt
    sampling : Sampling
        `window` is not read.
    reward : callable
        (gold, completion) -> 0.0 or 1.0.
    advance : callable
        Told the number of completions that have just ended.

    Returns
    -------
    list of Completion
        Prompt by prompt, index by index.

    Raises
    ------
    ModelError
        When the model is of a kind that the engine does not serve.
    """
    return [
        _completion(engine, prompt, index, token_ids, reward)
        for prompt, group in zip(batch, engine.sample(batch, sampling, advance))
        for index, token_ids in zip(sampling.indices, group, strict=True)
    ]


def complete(
    engine: Engine,
    prompts: Sequence[Prompt],
    path: Path,
    sampling: Sampling,
    reward: Reward,
    guard: Callable[[Path], AbstractContextManager[None]],
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> None:
    """Write one line per completion to `path`, continuing what an earlier run left there.

    Parameters
    ----------
    engine : Engine
    prompts : sequence of Prompt
    path : Path
        A JSONL file; a window that is not there whole is made again.
    sampling : Sampling
        A window is a function of it and the prompts, and so are its completions.
    reward : callable
    guard : callable
        Context manager around each write, which turns a full disk into a message.
    on_halving : callable
        Told when a window ran out of memory and `batch_size` was halved, for it and those that follow: their
        completions are the same but for rounding.

    Raises
    ------
    StageError
        When the file holds completions of other prompts.
    OutOfMemoryError
        When the completions of a single prompt do not fit into memory.
    """
    windows = make_windows(prompts, [len(engine.encoder.encode(prompt)) for prompt in prompts], sampling)
    done = _truncate_to_windows(path, windows, sampling.indices)
    total = len(prompts) * sampling.num_generations
    finished = sum(len(window) for window in windows[:done]) * sampling.num_generations
    with guard(path), path.open("a", encoding="utf-8") as file, Progress(sampling.stage, total, finished) as progress:
        for window in windows[done:]:
            completions, sampling = generate_within_memory(engine, window, sampling, reward, on_halving, progress)
            file.writelines(json.dumps(asdict(c), ensure_ascii=False) + "\n" for c in completions)
            file.flush()
            os.fsync(file.fileno())


def generate_within_memory(
    engine: Engine,
    batch: Sequence[Prompt],
    sampling: Sampling,
    reward: Reward,
    on_halving: Callable[[Halving], None],
    progress: Progress | None = None,
) -> tuple[list[Completion], Sampling]:
    """What `generate_batch` gives, with half the `batch_size` where memory runs out, and the sampling that fitted.

    Raises
    ------
    OutOfMemoryError
        When the completions of a single prompt do not fit into memory.
    """
    before = 0 if progress is None else progress.done
    advance = (lambda n: None) if progress is None else progress.advance
    while isinstance(
        found := within_memory(lambda drawn=sampling: generate_batch(engine, batch, drawn, reward, advance)),  # type: ignore[misc]
        Shortage,
    ):
        if progress is not None:
            progress.advance(before - progress.done)
        release_memory()
        sampling = _halved(sampling, found)
        on_halving(Halving(sampling.stage, "batch_size", sampling.batch_size, found))
    return found, sampling


def _halved(sampling: Sampling, shortage: Shortage) -> Sampling:
    if sampling.slots <= sampling.num_generations:
        raise OutOfMemoryError(
            f"no memory for the {sampling.num_generations} completions of one prompt ({shortage}). What was written "
            f"before is kept. Lower max_new_tokens (now {sampling.max_new_tokens}) or num_generations."
        )
    return replace(sampling, batch_size=max(sampling.num_generations, sampling.batch_size // 2))


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
            raise StageError(f"there are completions of {completion.prompt_id}, which is not a prompt of this run.")
        members[completion.prompt_id].append(completion)
    empty = [prompt_id for prompt_id, found in members.items() if not found]
    if empty:
        raise StageError(f"{len(empty)} prompts have no completions (first: {empty[0]}). Run the rollout stage again.")
    return [Group(p, tuple(sorted(members[p.prompt_id], key=lambda c: c.index))) for p in prompts]


def _completion(engine: Engine, prompt: Prompt, index: int, token_ids: tuple[int, ...], reward: Reward) -> Completion:
    text = engine.encoder.decode(token_ids)
    return Completion(
        prompt_id=prompt.prompt_id,
        index=index,
        completion=text,
        token_ids=token_ids,
        n_tokens=len(token_ids),
        reward=reward(prompt.answer, text),
        finished=token_ids[-1] in engine.eos_token_ids,
    )


def _truncate_to_windows(path: Path, windows: Sequence[Sequence[Prompt]], indices: range) -> int:
    """Cut the file after its last whole window; return how many windows it holds."""
    if not path.exists():
        return 0
    expected = [(prompt.prompt_id, index) for window in windows for prompt in window for index in indices]
    ends: list[int] = []
    for row, end in whole_rows(path):
        found = (row.get("prompt_id"), row.get("index")) if isinstance(row, dict) else None
        if len(ends) >= len(expected) or found != expected[len(ends)]:
            raise StageError(f"{path} line {len(ends) + 1} is not a completion of this run. {made_anew(path)}")
        ends.append(end)
    done, kept = 0, 0
    while done < len(windows) and kept + len(windows[done]) * len(indices) <= len(ends):
        kept += len(windows[done]) * len(indices)
        done += 1
    cut_file(path, ends[kept - 1] if kept else 0)
    return done


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
    """Write one line per completion to `path`, in the form of `complete`, continuing what an earlier run left there.

    Parameters
    ----------
    engine : Engine
    prompts : sequence of Prompt
    path : Path
        Written whole, once both passes are; until then `first.jsonl` and `more.jsonl` lie next to it.
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
            f"{more} and {first} do not have the same prompts in the same order (at {waiting[0]}). {made_anew(more)}"
        )
    partial.replace(path)


def _lines_by_prompt(path: Path) -> Iterator[tuple[str, list[str]]]:
    with path.open(encoding="utf-8") as file:
        for prompt_id, lines in groupby(file, key=lambda line: str(json.loads(line)["prompt_id"])):
            yield prompt_id, list(lines)


def _reward_of(line: str) -> float:
    return float(json.loads(line)["reward"])
