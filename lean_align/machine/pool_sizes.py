"""How many prompts a run has, and how long they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from lean_align.benchmarks import find_benchmarks
from lean_align.data import (
    GENERATED,
    PromptRules,
    is_local,
    load_rows,
    named_or_usual,
    prepare_prompts,
    target_rows,
)
from lean_align.errors import RecipeError
from lean_align.policy import load_encoder
from lean_align.policy.shapes import is_local as is_local_model
from lean_align.recipe import Recipe, read_target
from lean_align.selection import recipe_method, rows_set_apart
from lean_align.verify import parse_gold

_CHARACTERS_A_TOKEN = 3.0
"""Fewer than English text has (about 4): lengths are meant as upper bounds."""
_KNOWN_ROWS = {"openai/gsm8k": (7473, 1319, 192), "BytedTsinghua-SIA/DAPO-Math-17k": (17279, 0, 1580)}
"""Usable training rows, test rows, and the longest question in tokens of SmolLM2 (no template, no system prompt)."""
_TEMPLATE_TOKENS = 64
"""A chat template and a short system prompt."""


@dataclass(frozen=True)
class EvaluationSet:
    """Problems that both models solve.

    Attributes
    ----------
    n_problems, num_samples, max_new_tokens : int
        There are num_samples completions per problem, each up to max_new_tokens.
    longest_prompt : int
        In tokens, with template and system prompt.
    """

    n_problems: int
    num_samples: int
    max_new_tokens: int
    longest_prompt: int


@dataclass(frozen=True)
class Pool:
    """Sizes of a run's data.

    Attributes
    ----------
    n_train, n_test : int
        `n_test` counts the held-out set of the data, 0 without one.
    longest_prompt : int
        In tokens, with template and system prompt.
    source : str
        Where the figures come from.
    benchmarks : tuple of EvaluationSet
    n_target : int
        Problems that the selection aims at, 0 where it does not.
    """

    n_train: int
    n_test: int
    longest_prompt: int
    source: str
    benchmarks: tuple[EvaluationSet, ...] = ()
    n_target: int = 0

    def of_target(self) -> Pool:
        """The same with the target's problems in the place of the pool's prompts."""
        return replace(self, n_train=self.n_target)

    def sampled(self, recipe: Recipe) -> Pool:
        """The same with the most prompts that are sampled in the place of all."""
        return replace(self, n_train=recipe.rollouts.sampled_of(self.n_train)[1])

    def evaluation_sets(self, recipe: Recipe) -> tuple[EvaluationSet, ...]:
        """All that the evaluation solves: the held-out set, and the benchmarks."""
        limit = recipe.evaluation.max_new_tokens or recipe.rollouts.max_new_tokens
        held_out = EvaluationSet(self.n_test, 1, limit, self.longest_prompt)
        return (*([held_out] if self.n_test else []), *self.benchmarks)

    def solved(self, recipe: Recipe) -> list[int]:
        """How many problems of each of these sets the evaluation solves: by the base, by the trained model, and of the
        first one by the adapters of steps."""
        sets, steps = self.evaluation_sets(recipe), recipe.evaluated_steps
        from_warmup = recipe.training.init == "warmup"
        own = [step for step in steps if step < recipe.training.steps and (step > 0 or from_warmup)]
        more = [len(own) * min(recipe.evaluation.at_limit, s.n_problems) for s in sets[:1]]
        return [2 * s.n_problems + extra for s, extra in zip(sets, [*more, *[0] * len(sets)])]


def pool_of(recipe: Recipe) -> Pool:
    """Count the recipe's prompts and their tokens, where data and tokenizer are at hand; otherwise take known sizes.

    Raises
    ------
    RecipeError
        When the data are on the hub and not known to the package.
    """
    sources = {"train": recipe.data.train_path, "test": recipe.data.test_path}
    splits = {split: _split(recipe, split, path) for split, path in sources.items() if path is not None}
    limits, apart = {"train": recipe.data.limit, "test": recipe.data.test_limit}, {"train": rows_set_apart(recipe)}
    left = {split: n - apart.get(split, 0) for split, (n, _, _) in splits.items()}
    sizes = {split: min(n, limits[split] or n) for split, n in left.items()}
    n_target = 0
    if (target := target_size(recipe)) is not None:
        n_target, splits = target[0], {**splits, "target": target}
    source = "; ".join(dict.fromkeys(text for _, _, text in splits.values()))
    longest = max(_at_most(recipe, split, longest) for split, (_, longest, _) in splits.items())
    return Pool(sizes["train"], sizes.get("test", 0), longest, source, _known_benchmarks(recipe), n_target)


def target_size(recipe: Recipe, from_hub: bool = False) -> tuple[int, int, str] | None:
    """Problems of the target, the longest in tokens, and how that is known; None where the method does not aim.

    Raises
    ------
    RecipeError
        When they are on the hub, unless `from_hub`: then they are downloaded.
    DataError
        When they cannot be read.
    """
    if "target" not in recipe_method(recipe).needs:
        return None
    target = read_target(str(recipe.selection.target))
    if target.n is not None and rows_set_apart(recipe):
        return target.n, 0, f"{target.n} training rows are the target"
    if target.is_rows and not from_hub and not is_local(target.source):
        raise RecipeError(
            f"selection.target is {target.source!r}, on the hub, so its problems cannot be counted before they are "
            "downloaded. Give a local file to plan with."
        )
    rows = target_rows(recipe, target)
    rules = PromptRules(*named_or_usual(recipe.data, rows), contamination="off")
    return _counted(recipe, rows, "target", str(recipe.selection.target), rules)


def _at_most(recipe: Recipe, split: str, longest: int) -> int:
    limit = None if split == "test" else recipe.data.max_prompt_tokens
    return longest if limit is None else min(longest, limit)


def _known_benchmarks(recipe: Recipe) -> tuple[EvaluationSet, ...]:
    """The recipe's benchmarks, by the sizes that they state themselves."""
    settings, found = recipe.evaluation, []
    for benchmark in find_benchmarks(settings.benchmarks):
        fixed = len(benchmark.prompt_template) + len(benchmark.system_prompt or "")
        found.append(
            EvaluationSet(
                min(benchmark.size, settings.limit or benchmark.size),
                settings.num_samples if benchmark.sampled else 1,
                settings.max_new_tokens or benchmark.max_new_tokens,
                benchmark.longest_tokens + int(fixed / _CHARACTERS_A_TOKEN) + _TEMPLATE_TOKENS,
            )
        )
    return tuple(found)


def _split(recipe: Recipe, split: str, path: str) -> tuple[int, int, str]:
    """Rows, longest prompt in tokens, and how that is known."""
    data = recipe.data
    if path in GENERATED or is_local(path):
        rows = load_rows(data, split, recipe.pool)
        rules = replace(PromptRules.of(recipe, split, rows), contamination="off", limit=None)
        return _counted(recipe, rows, split, path, rules)
    if path in _KNOWN_ROWS:
        n_train, n_test, longest = _KNOWN_ROWS[path]
        template = _estimate(recipe, [""])
        return n_train if split == "train" else n_test, longest + template, f"{path} is known to the package"
    raise RecipeError(
        f"data.{split}_path is {path!r}, on the hub and not known to the package, so its prompts cannot be counted "
        "before they are downloaded. Give a local file to plan with."
    )


def _counted(
    recipe: Recipe, rows: Sequence[Mapping[str, Any]], split: str, source: str, rules: PromptRules
) -> tuple[int, int, str]:
    found = prepare_prompts(rows, split, source, parse_gold, lambda prompt: True, rules)
    texts = [prompt.prompt for prompt in found.prompts]
    if is_local_model(recipe.model):
        encoder = load_encoder(recipe.model, recipe.data)
        return len(texts), max(len(encoder.encode(p)) for p in found.prompts), f"tokens counted in {source}"
    return len(texts), _estimate(recipe, texts), f"characters counted in {source}, {_CHARACTERS_A_TOKEN:g} a token"


def _estimate(recipe: Recipe, texts: Sequence[str]) -> int:
    data = recipe.data
    fixed = len(data.prompt_template) + len(data.system_prompt or "")
    longest = max(map(len, texts))
    return int((fixed + longest) / _CHARACTERS_A_TOKEN) + (_TEMPLATE_TOKENS if data.prompt_format == "chat" else 0)
