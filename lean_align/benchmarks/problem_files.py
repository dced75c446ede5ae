"""A benchmark's problems, from a folder of files or from the hub."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.benchmarks.benchmark import Benchmark
from lean_align.data.raw_rows import read_rows
from lean_align.errors import DataError
from lean_align.rng import rng_for
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder


def source_of(benchmark: Benchmark, data_dir: str | Path | None) -> str:
    """The file, or the name on the hub, that a benchmark's problems are read from."""
    return benchmark.hub.dataset if data_dir is None else str(Path(data_dir) / benchmark.file)


def load_problems(benchmark: Benchmark, data_dir: str | Path | None = None) -> list[Prompt]:
    """All problems of a benchmark.

    Parameters
    ----------
    benchmark : Benchmark
    data_dir : path, optional
        Folder with the benchmarks' files; the hub when not given.

    Returns
    -------
    list of Prompt
        prompt_id is the name and the row's number, from 0.

    Raises
    ------
    DataError
        When the source does not exist, or a row lacks a field.
    """
    source = source_of(benchmark, data_dir)
    if data_dir is not None and not Path(source).is_file():
        raise DataError(
            f"there is no {source}; expected the file of {benchmark.name} there. Give the folder that holds "
            f"{benchmark.file} as evaluation.data_dir (--data-dir), or leave it out to load {benchmark.hub.dataset} "
            "from the hub."
        )
    problems = []
    for number, row in enumerate(_rows(benchmark, source, data_dir is None)):
        try:
            problem = benchmark.read(row)
        except KeyError as error:
            raise DataError(
                f"{source}, row {number + 1}: there is no {error.args[0]} among the columns {', '.join(sorted(row))}; "
                f"expected the rows of {benchmark.name} ({benchmark.source})."
            ) from error
        problems.append(Prompt(f"{benchmark.name}-{number:06d}", problem.prompt, problem.gold))
    if not problems:
        raise DataError(f"{source} has no rows; expected those of {benchmark.source}.")
    return problems


def _rows(benchmark: Benchmark, source: str, on_hub: bool) -> Iterator[dict[str, Any]]:
    try:
        yield from read_rows(source, benchmark.hub.config, benchmark.hub.split)
    except DataError as error:
        if not on_hub:
            raise
        raise DataError(
            f"{benchmark.name} could not be loaded from the hub ({error}). Without a connection give a folder with "
            f"{benchmark.file} as evaluation.data_dir (--data-dir)."
        ) from error


def choose_problems(benchmark: Benchmark, problems: list[Prompt], limit: int | None) -> list[Prompt]:
    """A subset in file order, the same whatever a run's seed is, so that models and runs are compared on it."""
    if limit is None or limit >= len(problems):
        return problems
    keep = rng_for(0, "benchmark subset", benchmark.name).permutation(len(problems))[:limit]
    return [problems[i] for i in sorted(keep)]


def benchmark_encoder(benchmark: Benchmark, encoder: PromptEncoder) -> PromptEncoder:
    """The model's own encoder with the benchmark's prompt in place of the recipe's."""
    if encoder.prompt_format == "plain":
        return replace(encoder, system_prompt=None, prompt_template=benchmark.plain_template)
    return replace(encoder, system_prompt=benchmark.system_prompt, prompt_template=benchmark.prompt_template)
