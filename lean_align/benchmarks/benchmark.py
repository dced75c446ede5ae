"""What a benchmark is: where its problems come from, how they are put to a model, and what counts as solved."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lean_align.data.answers import float_text
from lean_align.errors import RecipeError
from lean_align.verify import extract_answer, verify

BOXED = "Please reason step by step, and put your final answer within \\boxed{}."
BOXED_SOURCE = (
    "the system prompt of Qwen2.5-Math (arXiv 2409.12122, https://github.com/QwenLM/Qwen2.5-Math), the question as "
    "the user's message"
)
SAMPLED_SOURCE = (
    "avg@k at temperature 0.6 and top_p 0.95 as DeepSeek-R1 is evaluated (arXiv 2501.12948): so few problems make a "
    "greedy share too rough"
)
MAA = "problems (c) MAA: for evaluation alone, not to be passed on"


@dataclass(frozen=True)
class HubSource:
    """A data set on the Hugging Face hub: `dataset`, `config` (null for the only one) and `split`."""

    dataset: str
    config: str | None
    split: str


@dataclass(frozen=True)
class Problem:
    """A row of a benchmark: `prompt` is put to the model, `gold` is what `Benchmark.reward` takes."""

    prompt: str
    gold: str


@dataclass(frozen=True)
class Benchmark:
    r"""A benchmark, as the entry points of the group `lean_align.benchmarks` name it.

    Attributes
    ----------
    name : str
        As on the command line: lower case, digits, "-" and "_".
    title : str
        As in tables.
    hub : HubSource
    file : str
        Path below --data-dir.
    read : callable
        A row of the source -> Problem.  A KeyError says that the row lacks a field.
    extract : callable
        Completion -> the answer in it as written, or None: the share of None is reported.
    reward : callable
        (gold, completion) -> 0.0 or 1.0.  Total: no text makes it raise.
    system_prompt : str or None
        With a chat template.
    prompt_template : str
        Likewise; `{prompt}` stands for the problem's.
    plain_template : str
        Where there is no chat template (data.prompt_format: plain).
    sampled : bool
        avg@k over sampled completions; else pass@1 with greedy decoding.
    max_new_tokens : int
        Longest completion, where evaluation.max_new_tokens is null.
    size, longest_tokens : int
        Problems, and the longest prompt's tokens without template (of SmolLM2's tokenizer), for `lean-align plan`.
    source, prompt_source, licence : str
        Of the problems, of prompt and decoding, and what may be done with the problems; shown under tables.
    runs_code : bool
        `reward` runs code in the sandbox, so that the machine has to offer one.
    quotable : bool
        Whether a report may show problems.
    """

    name: str
    title: str
    hub: HubSource
    file: str
    read: Callable[[Mapping[str, Any]], Problem]
    extract: Callable[[str], str | None]
    reward: Callable[[str, str], float]
    system_prompt: str | None
    prompt_template: str
    plain_template: str
    sampled: bool
    max_new_tokens: int
    size: int
    longest_tokens: int
    source: str
    prompt_source: str
    licence: str
    runs_code: bool = False
    quotable: bool = True

    def __post_init__(self) -> None:
        for key in ("prompt_template", "plain_template"):
            if "{prompt}" not in getattr(self, key):
                raise RecipeError(
                    f"{key} of the benchmark {self.name} is {getattr(self, key)!r}; expected a text with {{prompt}} in "
                    "it, for the problem."
                )


def protocol_of(benchmark: Benchmark) -> dict[str, Any]:
    """What a completion depends on besides model, problem and decoding: where it changes, so do completions."""
    keys = ("system_prompt", "prompt_template", "plain_template", "sampled", "max_new_tokens")
    return {key: getattr(benchmark, key) for key in keys}


def field(row: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that a row has, as text; a whole float as an integer: 142.0 becomes 142.

    Raises
    ------
    KeyError
        When it has none of them.
    """
    value = next((row[name] for name in names if row.get(name) is not None), None)
    if value is None:
        raise KeyError(" or ".join(names))
    return float_text(value) if isinstance(value, float) else str(value).strip()


def question_and_answer(row: Mapping[str, Any]) -> Problem:
    """A row with `problem`, `question` or `prompt`, and `answer`."""
    return Problem(field(row, "problem", "question", "prompt"), field(row, "answer"))


def boxed_maths(sampled: bool = False) -> dict[str, Any]:
    """The fields that maths benchmarks share: rows, instruction and where it stands, verifier, decoding."""
    return {
        "read": question_and_answer,
        "extract": extract_answer,
        "reward": verify,
        "system_prompt": BOXED,
        "prompt_template": "{prompt}",
        "plain_template": f"{{prompt}}\n{BOXED}\n",
        "sampled": sampled,
        "prompt_source": f"{BOXED_SOURCE}; {SAMPLED_SOURCE if sampled else 'greedy'}",
    }
