"""Every problem by every model: completions on disk, and the time that each set took."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from lean_align.artifacts import StageFolder, read_json, write_json, write_jsonl
from lean_align.data import prompt_rows
from lean_align.disk import disk_errors
from lean_align.evaluation.problem_sets import ProblemSet
from lean_align.pipeline.diagnosis import cut_lines
from lean_align.pipeline.engines import sampling_engine
from lean_align.pipeline.halving import recorder
from lean_align.progress import say
from lean_align.recipe import Recipe
from lean_align.types import Prompt

BASE, TRAINED = "base", "trained"
PROBLEMS = "problems"
"""Folder of the benchmarks' problems, below that of the evaluation."""
SECONDS = "wall_seconds_by_set"
_CLOCK = "clock.json"


def sample_sets(
    recipe: Recipe, sets: Sequence[ProblemSet], adapters: Mapping[str, Path | None], folder: StageFolder
) -> None:
    """Write the completions of every set by every model, and go on with what an earlier attempt left.

    Parameters
    ----------
    recipe : Recipe
    sets : sequence of ProblemSet
    adapters : mapping of str to Path or None
        Names of the models, and the adapter of each; None is the base.
    folder : StageFolder
        Gets `<model>/<set>.jsonl`, and in its counts the seconds of each, loading not counted.
    """
    from lean_align.rollouts import complete, read_completions

    cut: dict[str, float] = {}
    end_names: list[str] = []
    record, slots = recorder(folder, "evaluation"), max(s.sampling(recipe).slots for s in sets)
    *_, last = adapters
    for model, adapter in adapters.items():
        if model != last and all(_is_whole(folder.path / model / f"{s.name}.jsonl", s) for s in sets):
            continue  # the model need not be loaded; the last one gives the stage its engine
        say(f"evaluation of {model}")
        (folder.path / model).mkdir(parents=True, exist_ok=True)
        with sampling_engine(
            recipe, folder, adapter, lambda encoder: max(s.longest_sequence(encoder) for s in sets), slots, record
        ) as engine:
            for problems in sets:
                own = engine.with_encoder(problems.encoder(engine.encoder))
                sampling = problems.sampling(recipe)
                path = folder.path / model / f"{problems.name}.jsonl"
                with _clock(folder, f"{model}/{problems.name}"):
                    complete(own, problems.prompts, path, sampling, problems.reward, disk_errors, record)
                finished = [completion.finished for completion in read_completions(path)]
                cut[f"{model}'s on {problems.name}"] = 1 - sum(finished) / len(finished)
            end_names = engine.encoder.end_names
    for line in cut_lines("evaluation", cut, "evaluation.max_new_tokens", end_names):
        say(line)
    folder.counts[SECONDS] = read_json(folder.path / _CLOCK)


def _is_whole(path: Path, problems: ProblemSet) -> bool:
    """Whether a file holds every completion of a set, as after a finished or a lent evaluation."""
    text = path.read_bytes() if path.exists() else b""
    if not text.endswith(b"\n"):
        return False
    try:
        found = Counter(json.loads(line)["prompt_id"] for line in text.splitlines())
    except (ValueError, KeyError, TypeError):
        return False
    return found == {prompt.prompt_id: problems.num_samples for prompt in problems.prompts}


def drop_clock(folder: StageFolder) -> None:
    """The last step of a stage: what it leaves must not depend on how long it took."""
    (folder.path / _CLOCK).unlink()


def keep_problems(problems: Mapping[str, Sequence[Prompt]], folder: StageFolder) -> None:
    """Write the problems that were solved next to the completions."""
    (folder.path / PROBLEMS).mkdir(exist_ok=True)
    for name, found in problems.items():
        write_jsonl(folder.path / PROBLEMS / f"{name}.jsonl", prompt_rows(found))


@contextmanager
def _clock(folder: StageFolder, name: str) -> Iterator[None]:
    """Add the block's seconds to those of earlier attempts, even where it is cut off."""
    path, began = folder.path / _CLOCK, time.monotonic()
    try:
        yield
    finally:
        seconds = read_json(path) if path.exists() else {}
        write_json(path, seconds | {name: round(seconds.get(name, 0.0) + time.monotonic() - began, 3)})
