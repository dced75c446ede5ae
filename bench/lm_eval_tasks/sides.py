"""Both sides of the cross-check: the problems, our evaluation, lm-eval's, and how close two tokens were."""

from __future__ import annotations

import json
import os
import tempfile
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.lm_eval_tasks import environment
from bench.lm_eval_tasks.findings import Generated, Ours, Theirs
from lean_align.artifacts import file_hash
from lean_align.benchmarks import Benchmark, benchmark_encoder, choose_problems, find_benchmarks, load_problems
from lean_align.benchmarks.benchmark import BOXED
from lean_align.data import load_rows
from lean_align.errors import DataError
from lean_align.policy import load_encoder, load_policy, model_path, resolve_device
from lean_align.recipe import DataRecipe, Recipe, recipe_of
from lean_align.types import Prompt

FIELDS = {"gsm8k": ("question", ("answer",)), "math500": ("problem", ("solution", "answer"))}
"""Of each benchmark: the field that lm-eval's task has the question in, and those that it has the gold in."""


def problems_of(name: str, data_dir: Path, limit: int) -> list[Prompt]:
    """The first problems of `choose_problems`' seeded order, as `lean-align evaluate --limit` takes them."""
    (benchmark,) = find_benchmarks([name])
    return choose_problems(benchmark, load_problems(benchmark, data_dir), limit)


def write_problems(name: str, problems: Sequence[Prompt], data_dir: Path, path: Path) -> None:
    """The same problems as lm-eval's task reads them: our question, the gold's fields as they lie in the source."""
    (benchmark,) = find_benchmarks([name])
    source = data_dir / benchmark.file
    rows, (question, gold) = load_rows(DataRecipe(test_path=str(source)), "test"), FIELDS[name]
    lines = []
    for problem in problems:
        row = rows[int(problem.prompt_id.rpartition("-")[2])]
        if missing := [field for field in gold if field not in row]:
            raise DataError(f"{source}: {problem.prompt_id} has no {', '.join(missing)}, which lm-eval's task reads.")
        lines.append({"prompt_id": problem.prompt_id, question: problem.prompt} | {key: row[key] for key in gold})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def settings(
    model: str, data_dir: Path, problems: Mapping[str, list[Prompt]], given: Namespace, output: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The same settings twice: recipe keys for our side, run.py's request for theirs; problems are written for it."""
    import torch

    overrides = {
        "evaluation.data_dir": str(data_dir.resolve()),
        "evaluation.max_new_tokens": given.max_new_tokens,
        "evaluation.batch_size": given.batch_size,
        "model.dtype": given.dtype,
    }
    files = {name: str(output / f"problems-{name}.jsonl") for name in problems}
    for name, chosen in problems.items():
        write_problems(name, chosen, data_dir, Path(files[name]))
    request = {
        "model": model_path(model),
        "dtype": given.dtype,
        "device": str(resolve_device("auto")),
        "threads": torch.get_num_threads(),
        "batch_size": given.batch_size,
        "max_new_tokens": given.max_new_tokens,
        "system_prompt": BOXED,
        "problems": files,
        "content": {name: file_hash(Path(path)) for name, path in files.items()},
        "environment": file_hash(environment.LOCK),
        "prompt_ids": {name: [problem.prompt_id for problem in chosen] for name, chosen in problems.items()},
    }
    return overrides, request


def our_side(
    model: str, overrides: Mapping[str, Any], problems: Mapping[str, list[Prompt]], output: Path
) -> dict[str, Ours]:
    """Completions of `lean-align evaluate`, made in output/ours-BENCHMARK or read from there."""
    from lean_align.evaluation import evaluate_model
    from lean_align.evaluation.solving import PROBLEMS

    recipe = _recipe(model, "float32")
    encoder, found = load_encoder(recipe.model, recipe.data), {}
    for name, chosen in problems.items():
        (benchmark,) = find_benchmarks([name])
        folder = output / f"ours-{name}"
        evaluate_model(model, None, [name], folder, None, {**overrides, "evaluation.limit": len(chosen)})
        (path,) = (p for p in folder.glob(f"evaluation/*/{name}.jsonl") if p.parent.name != PROBLEMS)
        rows = {row["prompt_id"]: row for row in map(json.loads, path.read_text().splitlines())}
        asked = benchmark_encoder(benchmark, encoder)
        for prompt in chosen:
            found[prompt.prompt_id] = _ours(benchmark, prompt, asked.encode(prompt), rows[prompt.prompt_id])
    return found


def _ours(benchmark: Benchmark, prompt: Prompt, prompt_ids: list[int], row: Mapping[str, Any]) -> Ours:
    generated = Generated(tuple(prompt_ids), tuple(row["token_ids"]), row["completion"])
    return Ours(prompt.prompt_id, benchmark.name, prompt.answer, generated, row["reward"], row["finished"])


def their_side(request: Mapping[str, Any], output: Path) -> tuple[dict[str, Theirs], dict[str, Any]]:
    """lm-eval's generations and metrics, made in its own environment unless the same request was answered before."""
    path, asked = output / "lm_eval.json", output / "request.json"
    whole = {**request, "output": str(path)}
    if not path.exists() or json.loads(path.read_text())["request"] != whole:
        asked.write_text(json.dumps(whole, indent=2))
        command = [str(environment.python()), str(Path(__file__).parent / "run.py"), str(asked)]
        offline = dict.fromkeys(("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"), "1")
        with tempfile.TemporaryDirectory() as cache:  # of the problems, which need not lie in the user's own
            environment.run(command, {**os.environ, **offline, "HF_DATASETS_CACHE": cache})
    answer = json.loads(path.read_text())
    return {row["prompt_id"]: _theirs(row) for row in answer["rows"]}, answer


def _theirs(row: Mapping[str, Any]) -> Theirs:
    generated = Generated(tuple(row["prompt_ids"]), tuple(row["token_ids"]), row["text"])
    metrics = {name: (metric["verdict"], metric["read"]) for name, metric in row["metrics"].items()}
    return Theirs(generated, row["uncut"], tuple(row["stops"]), metrics)


def _recipe(model: str, dtype: str) -> Recipe:
    own = {"model.name": model, "model.quantization": "none", "model.dtype": dtype}
    return recipe_of("cross-check", own)


def token_gaps(model: str, places: Mapping[str, tuple[Sequence[int], int, int]]) -> dict[str, float]:
    """How far below the best logit the worse of two tokens lies, in float32.

    Parameters
    ----------
    model : str
        Loaded in float32, unquantised.
    places : mapping of prompt_id to (token ids before the place, one token, the other)
    """
    import torch

    if not places:
        return {}
    recipe = _recipe(model, "float32")
    policy, found = load_policy(recipe.model, recipe.data), {}
    for prompt_id, (before, one, other) in places.items():
        with torch.no_grad():
            ids = torch.tensor([list(before)], device=policy.device)
            logits = policy.model(input_ids=ids, logits_to_keep=1).logits[0, -1]
        found[prompt_id] = float(logits.max() - torch.minimum(logits[one], logits[other]))
    return found
