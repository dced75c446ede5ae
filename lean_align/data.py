"""Prompts from a file, from the hub, or from the generator, with every row that is left out accounted for.

Rules, in order; a row that a rule leaves out goes to `dropped.jsonl` with its reason:

1. a row without a `prompt` (or `question`, or `problem`) and an `answer` is an error: the file is not
   what it should be;
2. an answer that no verifier can read is dropped;
3. the same prompt with the same answer is kept once, the first time;
4. the same prompt with different answers is dropped each time: nobody knows which is right;
5. a prompt that leaves no room for a completion in the model's context is dropped;
6. of what is left, `limit` takes a seeded random subset, in file order.
"""

from __future__ import annotations

import gzip
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lean_align.demo.problems import problem_stream
from lean_align.errors import DataError
from lean_align.recipe import DataRecipe
from lean_align.rng import rng_for
from lean_align.types import Prompt

PROMPT_FIELDS = ("prompt", "question", "problem")
ANSWER_FIELD = "answer"
TRAIN_SEED, TEST_SEED = 1, 2
_LOCAL_SUFFIXES = (".jsonl", ".json", ".parquet", ".gz")


@dataclass(frozen=True)
class PreparedPrompts:
    """Usable prompts of one split, and a row {prompt_id, prompt, answer, reason} for each that is not."""

    prompts: tuple[Prompt, ...]
    dropped: tuple[dict[str, str], ...]


def load_rows(data: DataRecipe, split: str) -> list[dict[str, Any]]:
    """Read the raw rows of a split.

    Parameters
    ----------
    data : DataRecipe
    split : str
        `train` or `test`.

    Returns
    -------
    list of dict
        Rows as they lie in the source.

    Raises
    ------
    DataError
        When the source does not exist, cannot be read, or is empty.
    """
    source = data.train_path if split == "train" else data.test_path
    if source == "demo":
        return list(_demo_rows(data, split))
    if Path(source).suffix in _LOCAL_SUFFIXES or Path(source).exists():
        rows = _read_file(Path(source))
    else:
        rows = _read_hub(source, data.config, data.train_split if split == "train" else data.test_split)
    if not rows:
        raise DataError(f"{source} has no rows; expected one prompt with its answer a row.")
    return rows


def prepare_prompts(
    rows: Iterable[Mapping[str, Any]],
    split: str,
    source: str,
    parse_gold: Callable[[str], str],
    fits: Callable[[Prompt], bool],
    limit: int | None = None,
    seed: int = 0,
) -> PreparedPrompts:
    """Turn raw rows into prompts, by the rules at the top of this module.

    Parameters
    ----------
    rows : iterable of mapping
        Raw rows.
    split : str
        Prefix of the prompt_ids: row 12 of `train` becomes `train-000012`.
    source : str
        Named in errors.
    parse_gold : callable
        Reads an answer; raises DataError where it cannot.
    fits : callable
        Whether a prompt leaves room for a completion in the model's context.
    limit : int, optional
        Size of the seeded random subset to keep.
    seed : int
        Seed of that subset.

    Returns
    -------
    PreparedPrompts

    Raises
    ------
    DataError
        When a row has no prompt or no answer, or when nothing usable is left.
    """
    dropped: list[dict[str, str]] = []
    prompts = _drop_unreadable(_read_prompts(rows, split, source), parse_gold, dropped)
    prompts = _drop_duplicates(prompts, dropped)
    prompts = _drop(
        prompts,
        lambda p: (
            None if fits(p) else "no room for a completion: prompt and rollouts.max_new_tokens exceed the context"
        ),
        dropped,
    )
    if not prompts:
        reasons = sorted({row["reason"] for row in dropped})
        raise DataError(f"{source}: none of its {len(dropped)} rows can be used ({'; '.join(reasons) or 'no rows'}).")
    if limit is not None and limit < len(prompts):
        keep = rng_for(seed, "data.limit", split).permutation(len(prompts))[:limit]
        prompts = [prompts[i] for i in sorted(keep)]
    return PreparedPrompts(tuple(prompts), tuple(dropped))


def prompt_rows(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Prompts as plain rows, to be written."""
    return [{"prompt_id": p.prompt_id, "prompt": p.prompt, "answer": p.answer} for p in prompts]


def prompts_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Prompt]:
    """Prompts from the rows that `prompt_rows` made."""
    return [Prompt(row["prompt_id"], row["prompt"], row["answer"]) for row in rows]


def _demo_rows(data: DataRecipe, split: str) -> Iterator[dict[str, Any]]:
    weights = dict(enumerate(data.demo_grade_weights, start=1))
    test = list(problem_stream(TEST_SEED, data.demo_test, weights))
    if split == "test":
        chosen = test
    else:
        skip = frozenset(problem.question for problem in test)
        chosen = list(problem_stream(TRAIN_SEED, data.demo_train, weights, skip))
    for problem in chosen:
        yield {"prompt": problem.question, "answer": str(problem.answer)}


def _read_file(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise DataError(f"there is no file {path}; expected .jsonl, .json or .parquet with one prompt a row.")
    try:
        if path.suffix == ".parquet":
            import pyarrow.parquet

            return list(pyarrow.parquet.read_table(path).to_pylist())
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8") as file:
            text = file.read()
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}.") from error
    if text.lstrip().startswith("["):
        return list(_parse_json(text, str(path)))
    return [_parse_json(line, f"{path} line {i}") for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def _parse_json(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{where} is not valid JSON: {error}. Expected one JSON object a line.") from error


def _read_hub(name: str, config: str | None, split: str) -> list[dict[str, Any]]:
    import datasets

    try:
        return list(datasets.load_dataset(name, config, split=split))
    except Exception as error:  # the hub client raises a dozen kinds
        raise DataError(
            f"{name!r} is no local file, and the hub did not give it (config {config!r}, split {split!r}): "
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''} "
            "Give the path of a .jsonl, .json or .parquet, or check the name and the connection."
        ) from error


def _read_prompts(rows: Iterable[Mapping[str, Any]], split: str, source: str) -> Iterator[Prompt]:
    for number, row in enumerate(rows):
        where = f"{source}, row {number + 1}"
        if not isinstance(row, Mapping):
            raise DataError(f"{where} is {type(row).__name__}; expected an object with a prompt and an answer.")
        question = next((row[name] for name in PROMPT_FIELDS if row.get(name) is not None), None)
        answer = row.get(ANSWER_FIELD)
        if question is None or not str(question).strip():
            raise DataError(f"{where} has no prompt: got {sorted(row)}, expected one of {', '.join(PROMPT_FIELDS)}.")
        if answer is None or not str(answer).strip():
            raise DataError(
                f"{where} has no answer: got {sorted(row)}, expected a field {ANSWER_FIELD!r} with a value."
            )
        if not isinstance(question, str):
            raise DataError(f"{where}: the prompt is {type(question).__name__}; expected text (one question).")
        yield Prompt(f"{split}-{number:06d}", question.strip(), str(answer).strip())


def _drop(
    prompts: Iterable[Prompt], reason_of: Callable[[Prompt], str | None], dropped: list[dict[str, str]]
) -> list[Prompt]:
    kept = []
    for prompt in prompts:
        reason = reason_of(prompt)
        if reason is None:
            kept.append(prompt)
        else:
            row = {"prompt_id": prompt.prompt_id, "prompt": prompt.prompt, "answer": prompt.answer}
            dropped.append({**row, "reason": reason})
    return kept


def _drop_unreadable(
    prompts: Iterable[Prompt], parse_gold: Callable[[str], str], dropped: list[dict[str, str]]
) -> list[Prompt]:
    golds: dict[str, str] = {}

    def reason_of(prompt: Prompt) -> str | None:
        try:
            golds[prompt.prompt_id] = parse_gold(prompt.answer)
        except DataError as error:
            return f"answer cannot be read: {error}"
        return None

    kept = _drop(prompts, reason_of, dropped)
    return [Prompt(p.prompt_id, p.prompt, golds[p.prompt_id]) for p in kept]


def _drop_duplicates(prompts: list[Prompt], dropped: list[dict[str, str]]) -> list[Prompt]:
    golds: dict[str, set[str]] = defaultdict(set)
    for prompt in prompts:
        golds[prompt.prompt].add(prompt.answer)
    seen: dict[str, str] = {}

    def reason_of(prompt: Prompt) -> str | None:
        if len(golds[prompt.prompt]) > 1:
            return f"answers in conflict for the same prompt: {', '.join(sorted(golds[prompt.prompt]))}"
        first = seen.setdefault(prompt.prompt, prompt.prompt_id)
        return None if first == prompt.prompt_id else f"duplicate of {first}"

    return _drop(prompts, reason_of, dropped)
