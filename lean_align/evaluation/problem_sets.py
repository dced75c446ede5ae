"""What a model is evaluated on: the run's held-out set, and benchmarks, each with its prompt, sampling and judge."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import read_jsonl
from lean_align.benchmarks.benchmark import Benchmark
from lean_align.benchmarks.problem_files import benchmark_encoder, choose_problems, load_problems
from lean_align.benchmarks.registry import find_benchmarks
from lean_align.data.preparing import prompts_from_rows
from lean_align.errors import DataError, LeanAlignError, RecipeError
from lean_align.recipe import Recipe
from lean_align.sandbox.support import require_sandbox
from lean_align.types import Prompt
from lean_align.verify import extract_answer, verify

if TYPE_CHECKING:
    from lean_align.policy import PromptEncoder
    from lean_align.rollouts import Sampling


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

    def longest_sequence(self, encoder: PromptEncoder) -> int:
        """Tokens of the longest prompt with a completion."""
        own = self.encoder(encoder)
        return max(len(own.encode(prompt)) for prompt in self.prompts) + self.max_new_tokens

    def sampling(self, recipe: Recipe) -> Sampling:
        """How completions are drawn: with the same noise for every model."""
        from lean_align.rollouts import Sampling

        drawn = self.num_samples, self.max_new_tokens, self.temperature, self.top_p
        return Sampling.of_evaluation(recipe, self.name, *drawn)

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
    name = re.sub(r"[*?\[\]]+", "", name).strip("-_. ") or path.parent.name or "held-out"  # of a pattern of files
    if name in recipe.evaluation.benchmarks:
        raise RecipeError(
            f"data.test_path is {recipe.data.test_path}, which is called {name}, and so is one of "
            "evaluation.benchmarks. Set data.test_path=null, or leave that benchmark out."
        )
    return name


def load_benchmarks(recipe: Recipe) -> dict[str, list[Prompt]]:
    """All problems of the recipe's benchmarks, by name.

    Raises
    ------
    SandboxError
        When a benchmark runs code and this machine has no sandbox for it.
    """
    chosen = find_benchmarks(recipe.evaluation.benchmarks)
    if any(benchmark.runs_code for benchmark in chosen):
        require_sandbox()
    return {benchmark.name: load_problems(benchmark, recipe.evaluation.data_dir) for benchmark in chosen}


def run_sets(recipe: Recipe, test: Path, problems: Mapping[str, list[Prompt]]) -> list[ProblemSet]:
    """The sets of a run: the held-out set of a data stage's file first, then the benchmarks."""
    name = held_out_name(recipe)
    held_out = [] if name is None else [_held_out(recipe, name, prompts_from_rows(read_jsonl(test)))]
    return held_out + benchmark_sets(recipe, problems)


def benchmark_sets(recipe: Recipe, problems: Mapping[str, list[Prompt]]) -> list[ProblemSet]:
    """The recipe's benchmarks."""
    return [benchmark_set(recipe, b, problems[b.name]) for b in find_benchmarks(recipe.evaluation.benchmarks)]


def benchmark_set(recipe: Recipe, benchmark: Benchmark, problems: list[Prompt]) -> ProblemSet:
    """A benchmark with the recipe's limits."""
    settings = recipe.evaluation
    drawn = (settings.num_samples, settings.temperature, settings.top_p) if benchmark.sampled else (1, 0.0, 1.0)
    return ProblemSet(
        benchmark.name,
        tuple(choose_problems(benchmark, problems, settings.limit)),
        lambda encoder: benchmark_encoder(benchmark, encoder),
        _checked(benchmark),
        benchmark.extract,
        *drawn,
        settings.max_new_tokens or benchmark.max_new_tokens,
        {key: getattr(benchmark, key) for key in ("title", "source", "prompt_source", "licence")},
        benchmark.quotable,
    )


def _checked(benchmark: Benchmark) -> Callable[[str, str], float]:
    """The benchmark's reward, which an entry point may have brought, checked to return 0.0 or 1.0."""

    def reward(gold: str, completion: str) -> float:
        try:
            found = benchmark.reward(gold, completion)
        except LeanAlignError:
            raise
        except Exception as error:  # whatever another's code does
            raise DataError(
                f"the reward of {benchmark.name} raised {type(error).__name__}: {error}; expected 0.0 or 1.0 for any "
                "completion. Fix it; what was sampled so far is kept."
            ) from error
        if found not in (0.0, 1.0):
            raise DataError(f"the reward of {benchmark.name} gave {found!r}; expected 0.0 or 1.0. Fix it.")
        return float(found)

    return reward


def check_room(sets: Sequence[ProblemSet], encoder: PromptEncoder, context: int) -> None:
    """Refuse sets with a problem that leaves no room for a completion, before anything is sampled.

    Raises
    ------
    DataError
        Leaving the problem out would make the figure another benchmark's.
    """
    for problems in sets:
        longest = problems.longest_sequence(encoder)
        room = context - longest + problems.max_new_tokens
        if longest > context:
            advice = f"Set evaluation.max_new_tokens to {room} or less, or leave" if room > 0 else "Leave"
            raise DataError(
                f"{problems.name}: its longest prompt has {longest - problems.max_new_tokens} tokens and a completion "
                f"up to {problems.max_new_tokens}, the model's context {context}. {advice} {problems.name} out."
            )


def _held_out(recipe: Recipe, name: str, prompts: list[Prompt]) -> ProblemSet:
    limit = recipe.evaluation.max_new_tokens or recipe.rollouts.max_new_tokens
    return ProblemSet(name, tuple(prompts), lambda encoder: encoder, verify, extract_answer, 1, 0.0, 1.0, limit)
