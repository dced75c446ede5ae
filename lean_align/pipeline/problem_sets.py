"""What a model is evaluated on: the run's held-out set, and benchmarks, each with its prompt, sampling and judge."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import read_jsonl
from lean_align.benchmarks import Benchmark, benchmark_encoder, choose_problems, find_benchmarks
from lean_align.data import prompts_from_rows
from lean_align.errors import DataError, RecipeError
from lean_align.recipe import Recipe
from lean_align.types import Prompt
from lean_align.verify import extract_answer, verify

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder
    from lean_align.rollouts import Sampling

BENCHMARKS = "benchmarks"
"""Folder of the benchmarks' problems, below RUN/data."""


@dataclass(frozen=True)
class ProblemSet:
    """Problems, and how they are put to a model, sampled and judged.

    `facts` are title, source, prompt_source and licence of a benchmark; None of a held-out set.  `quotable`: whether
    a report may show problems.
    """

    name: str
    prompts: tuple[Prompt, ...]
    encoder: Callable[[PromptEncoder], PromptEncoder]
    reward: Callable[[str, str], float]
    extract: Callable[[str], str | None]
    num_samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    facts: dict[str, str] | None = None
    quotable: bool = True

    def longest(self, encoder: PromptEncoder) -> int:
        """Tokens of the longest prompt with a completion."""
        own = self.encoder(encoder)
        return max(len(own.encode(prompt)) for prompt in self.prompts) + self.max_new_tokens

    def sampling(self, model: str, recipe: Recipe) -> Sampling:
        """How a model's completions are drawn."""
        from lean_align.rollouts import Sampling

        settings, stage = recipe.evaluation, f"{self.name} by {model}"
        drawn = self.num_samples, self.temperature, self.max_new_tokens
        return Sampling(*drawn, settings.batch_size, recipe.seed, stage, settings.window, self.top_p)

    def decoding(self) -> dict[str, Any]:
        """Number of samples, temperature, top_p and longest completion, as tables print them."""
        keys = ("num_samples", "temperature", "top_p", "max_new_tokens")
        return {key: getattr(self, key) for key in keys}


def held_out_name(recipe: Recipe) -> str | None:
    """Name of the held-out set: the file's stem or its folder's, or the last part of a hub id; None without one.

    Raises
    ------
    RecipeError
        When a benchmark has the same name: their completions would share a file.
    """
    if recipe.data.test_path is None:
        return None
    path = Path(recipe.data.test_path)
    name = path.parent.name if path.stem in ("test", "train") and path.parent.name else path.stem
    if name in recipe.evaluation.benchmarks:
        raise RecipeError(
            f"data.test_path is {recipe.data.test_path}, which is called {name}, and so is one of "
            "evaluation.benchmarks. Set data.test_path=null, or leave that benchmark out."
        )
    return name


def run_sets(recipe: Recipe, data: Path) -> list[ProblemSet]:
    """The sets of a run, from the folder of its data stage: the held-out set first."""
    name = held_out_name(recipe)
    found = [] if name is None else [_held_out(recipe, name, _read(data / "test.jsonl"))]
    for benchmark in find_benchmarks(recipe.evaluation.benchmarks):
        problems = _read(data / BENCHMARKS / f"{benchmark.name}.jsonl")
        found.append(benchmark_set(recipe, benchmark, problems))
    return found


def benchmark_set(recipe: Recipe, benchmark: Benchmark, problems: list[Prompt]) -> ProblemSet:
    """A benchmark with the recipe's limits."""
    settings = recipe.evaluation
    drawn = (settings.num_samples, settings.temperature, settings.top_p) if benchmark.sampled else (1, 0.0, 1.0)
    return ProblemSet(
        benchmark.name,
        tuple(choose_problems(benchmark, problems, settings.limit)),
        lambda encoder: benchmark_encoder(benchmark, encoder),
        benchmark.reward,
        benchmark.extract,
        *drawn,
        settings.max_new_tokens or benchmark.max_new_tokens,
        {key: getattr(benchmark, key) for key in ("title", "source", "prompt_source", "licence")},
        benchmark.quotable,
    )


def check_room(sets: Sequence[ProblemSet], encoder: PromptEncoder, context: int) -> None:
    """Refuse sets with a problem that leaves no room for a completion, before anything is sampled.

    Raises
    ------
    DataError
        Leaving the problem out would make the figure another benchmark's.
    """
    for problems in sets:
        longest = problems.longest(encoder)
        if longest > context:
            raise DataError(
                f"{problems.name}: its longest prompt has {longest - problems.max_new_tokens} tokens and a completion "
                f"up to {problems.max_new_tokens}, the model's context {context}. Set evaluation.max_new_tokens to "
                f"{max(1, context - longest + problems.max_new_tokens)} or less, or leave {problems.name} out."
            )


def _held_out(recipe: Recipe, name: str, prompts: list[Prompt]) -> ProblemSet:
    limit = recipe.evaluation.max_new_tokens or recipe.rollouts.max_new_tokens
    return ProblemSet(name, tuple(prompts), lambda encoder: encoder, verify, extract_answer, 1, 0.0, 1.0, limit)


def _read(path: Path) -> list[Prompt]:
    return prompts_from_rows(read_jsonl(path))
