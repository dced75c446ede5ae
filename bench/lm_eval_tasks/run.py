"""lm-eval on some problems: `python run.py REQUEST.json`, in the environment of requirements/lm-eval.txt.

Its own `hf` model, tasks, filters and metrics.  What is added only observes: `Recorder` keeps the token ids that go
into `generate` and come out of it, so that prompts and generations can be compared token by token.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lm_eval
import torch
import yaml
from lm_eval.api.instance import Instance
from lm_eval.api.model import LM
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
from scoring import closed, math500_readings

HERE = Path(__file__).parent
THEIR_TASKS = Path(lm_eval.__file__).parent / "tasks"
INCLUDED = {"gsm8k": "gsm8k/gsm8k.yaml", "math500": "minerva_math/minerva_math500.yaml"}
INVALID = "[invalid]"  # what their regex filter gives where nothing matches
SHOWN = ("lm_eval", "torch", "transformers", "datasets", "math-verify", "antlr4-python3-runtime", "sympy")


class Recorder(HFLM):
    """lm-eval's hf model; `seen` holds prompt ids and generated ids of each prompt, padding left out."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.seen: dict[str, tuple[list[int], list[int]]] = {}
        self._strings: list[str] = []

    def tok_batch_encode(self, strings: list[str], *args: Any, **options: Any) -> Any:
        """As theirs, and note which prompts the next batch is made of."""
        self._strings = list(strings)
        return super().tok_batch_encode(strings, *args, **options)

    def _model_generate(self, context: torch.Tensor, *args: Any, **options: Any) -> torch.Tensor:
        found = super()._model_generate(context, *args, **options)
        masks = options["attention_mask"].bool()
        for string, row, mask, whole in zip(self._strings, context, masks, found, strict=True):
            self.seen[string] = row[mask].tolist(), self._until_end(whole[len(row) :].tolist())
        return found

    def _until_end(self, token_ids: list[int]) -> list[int]:
        """Up to the end token at which `generate` stops a row; it fills up with padding."""
        ends = self.model.generation_config.eos_token_id
        ends = [ends] if isinstance(ends, int) else ends or []
        return token_ids[: next((i + 1 for i, token in enumerate(token_ids) if token in ends), len(token_ids))]


class Echo(LM):
    """Answers every problem with the text that it is given, so that their whole scoring runs on known texts."""

    def __init__(self, texts: dict[str, str]) -> None:
        super().__init__()
        self.texts = texts

    def generate_until(self, requests: list[Instance], **options: Any) -> list[str]:
        """The text of each problem."""
        return [self.texts[request.doc["prompt_id"]] for request in requests]

    def loglikelihood(self, requests: list[Instance], **options: Any) -> Any:
        """Not used by any task here."""
        raise NotImplementedError

    def loglikelihood_rolling(self, requests: list[Instance], **options: Any) -> Any:
        """Not used by any task here."""
        raise NotImplementedError


def task_file(name: str, problems: str, folder: Path) -> str:
    """Path of our task, with lm-eval's own included and the problems' file named."""
    added = {"include": str(THEIR_TASKS / INCLUDED[name]), "dataset_kwargs": {"data_files": {"test": problems}}}
    path = folder / f"cross_check_{name}.yaml"
    path.write_text((HERE / f"{name}.yaml").read_text() + yaml.safe_dump(added))
    return str(path)


def evaluate(request: dict[str, Any], model: LM, **options: Any) -> dict[str, Any]:
    """What simple_evaluate returns for the request's tasks."""
    with tempfile.TemporaryDirectory() as folder:
        tasks = [task_file(name, problems, Path(folder)) for name, problems in request["problems"].items()]
        manager = TaskManager(include_defaults=False)
        return lm_eval.simple_evaluate(
            model, tasks=tasks, task_manager=manager, log_samples=True, bootstrap_iters=0, **options
        )


def scored(name: str, found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By problem: the logged sample, and the metrics of all samples, of which there is one for each filter."""
    rows: dict[str, dict[str, Any]] = {}
    for sample in found["samples"][f"cross_check_{name}"]:
        row = rows.setdefault(sample["doc"]["prompt_id"], {"sample": sample, "metrics": {}})
        row["metrics"] |= metrics_of(name, sample)
    return rows


def metrics_of(name: str, sample: dict[str, Any]) -> dict[str, Any]:
    """Verdict and answer read, by metric."""
    if name == "gsm8k":
        read = sample["filtered_resps"][0]
        return {sample["filter"]: {"verdict": float(sample["exact_match"]), "read": None if read == INVALID else read}}
    readings = math500_readings(sample["resps"][0][0])
    return {metric: {"verdict": float(sample[metric]), "read": readings[metric]} for metric in sample["metrics"]}


def generated_rows(name: str, found: dict[str, Any], model: Recorder) -> Iterator[dict[str, Any]]:
    """One row per problem: prompt, generation, metrics."""
    stops = found["configs"][f"cross_check_{name}"]["generation_kwargs"]["until"]
    for prompt_id, row in scored(name, found).items():
        prompt, text = row["sample"]["arguments"][0][0], row["sample"]["resps"][0][0]
        prompt_ids, token_ids = model.seen[prompt]
        fields = {"prompt_id": prompt_id, "benchmark": name, "prompt": prompt, "text": text, "stops": stops}
        fields |= {"prompt_ids": prompt_ids, "token_ids": token_ids, "uncut": model.tok_decode(token_ids)}
        yield fields | {"metrics": row["metrics"]}


def given_rows(request: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Metrics of the sources' own solutions: each problem's, which is right, and its neighbour's in the file.

    Those of MATH500 end as minerva_math's examples do, so that its exact_match finds an answer too.
    """
    for kind, shift in (("the problem's solution", 0), ("another's solution", 1)):
        texts = {}
        for problems in request["problems"].values():
            rows = [json.loads(line) for line in Path(problems).read_text().splitlines()]
            solutions = [closed(row["solution"]) if "solution" in row else row["answer"] for row in rows]
            texts |= {row["prompt_id"]: solutions[(i + shift) % len(rows)] for i, row in enumerate(rows)}
        found = evaluate(request, Echo(texts))
        for name in request["problems"]:
            for prompt_id, row in scored(name, found).items():
                fields = {"prompt_id": prompt_id, "benchmark": name, "texts": kind, "text": texts[prompt_id]}
                yield fields | {"metrics": row["metrics"]}


def main() -> None:
    request = json.loads(Path(sys.argv[1]).read_text())
    torch.set_num_threads(request["threads"])
    names = ("model", "dtype", "batch_size", "device")
    options = {name: request[name] for name in names}
    model, start = Recorder(pretrained=options.pop("model"), **options), time.perf_counter()
    found = evaluate(
        request,
        model,
        system_instruction=request["system_prompt"],
        apply_chat_template=True,
        gen_kwargs={"max_gen_toks": request["max_new_tokens"]},
    )
    result = {"request": request, "versions": {name: version(name) for name in SHOWN}}
    result |= {"seconds": time.perf_counter() - start, "results": found["results"]}
    result["rows"] = [row for name in request["problems"] for row in generated_rows(name, found, model)]
    result["given"] = list(given_rows(request))
    partial = Path(request["output"] + ".tmp")  # a killed write must not be taken for an answer
    partial.write_text(json.dumps(result, default=str))
    partial.replace(request["output"])


if __name__ == "__main__":
    main()
