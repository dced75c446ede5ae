"""Sampling with a policy that is trained in the same process: the decode loop, and vLLM that follows it each step.

`follow_seconds` pass between the last change of the weights and the engine's readiness to sample with them: `merged`
puts the merged weights in the place of vLLM's, `request` writes the adapter, which vLLM reads when it is first asked
for it; that is in its `sample_seconds`. A step takes both. Each turn of each way is a process of its own with one step
before those that count; the same prompts, completions as each way draws them. `dtype` is that of the weights that
sample: float32 where vLLM's are merged, else the recipe's. `growth` is memory after the last follow over that after
the first one that counts.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from bench.cases import demo_case, real_case, real_or_demo
from bench.child import ChildError, in_child, status_bytes
from bench.measure import Row, Settings, spread
from lean_align.artifacts import StageFolder
from lean_align.pipeline.engines import live_engine, longest_of
from lean_align.rollouts import Sampling, generate_batch

WAYS = ("transformers", "vllm, merged", "vllm, request")
FOLLOWS = 10  # timed apart from sampling: they are short


def measure(settings: Settings) -> Iterator[Row]:
    if settings.size == "full":
        case, reason = real_or_demo(16)
        if reason:
            yield {"case": "smollm2", "note": reason}
    else:
        case = demo_case(settings.pick(2, 16, 0))
    columns = {"case": case.name, "prompts": len(case.prompts)}
    here = [way for way in WAYS if way == "transformers" or find_spec("vllm")]
    found: dict[str, list[Row]] = {way: [] for way in here}
    failed: dict[str, str] = dict.fromkeys(WAYS[len(here) :], "skipped: vllm is not installed; `make setup-stack`")
    for turn in range(settings.times(2, 3)):
        for way in here:
            if way not in failed:
                try:
                    found[way].append(
                        in_child("bench_live:one_way", name=case.name, prompts=len(case.prompts), way=way, seed=turn)
                    )
                except ChildError as error:
                    failed[way] = f"failed: {error}"
    for way in WAYS:
        yield columns | {"way": way} | _together(found.get(way, [])) | ({"note": failed[way]} if way in failed else {})


def _together(turns: list[Row]) -> Row:
    if not turns:
        return {}
    row: Row = {"dtype": turns[0]["dtype"]}
    for key in ("load_seconds", "follow_seconds", "sample_seconds", "step_seconds", "tokens", "tokens_per_second"):
        values = [turn[key] for turn in turns]
        row[key] = spread(v for value in values for v in (value if isinstance(value, list) else [value]))
    return row | {key: max(turn[key] for turn in turns) for key in ("peak_rss_bytes", "growth_bytes")}


def one_way(name: str, prompts: int, way: str, seed: int) -> Row:
    """In a child: load, a step that does not count, follows alone, and a step that counts."""
    case = real_case(prompts) if name == "smollm2" else demo_case(prompts)
    engine, _, adapter = way.partition(", ")
    settings = replace(case.recipe.rollouts, engine=engine, vllm_adapter=adapter or "auto")
    recipe, policy = replace(case.recipe, rollouts=settings), case.policy()
    sampling = replace(Sampling.of_rollouts(recipe), seed=seed)
    generator = torch.Generator().manual_seed(seed)

    def move() -> None:
        for key, parameter in policy.lora_parameters.items():
            if "lora_B" in key:
                noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
                parameter.data += 1e-5 * noise

    with tempfile.TemporaryDirectory() as temporary:
        folder = StageFolder(Path(temporary), Path(temporary, "stage"), {}, 0.0)
        longest = longest_of(case.prompts, sampling.max_new_tokens)
        began = time.perf_counter()
        with live_engine(recipe, policy, folder, longest, sampling.slots) as (sampler, follow):
            loaded = time.perf_counter() - began

            def step(number: int, count: int) -> tuple[float, float, int]:
                move()
                began = time.perf_counter()
                follow(number)
                followed = time.perf_counter()
                drawn = generate_batch(sampler, case.prompts[:count], sampling, lambda gold, text: 0.0)
                return followed - began, time.perf_counter() - followed, sum(c.n_tokens for c in drawn)

            step(0, 1)
            first, follows = status_bytes("VmRSS"), []
            for number in range(1, FOLLOWS):
                move()
                began = time.perf_counter()
                follow(number)
                follows.append(time.perf_counter() - began)
            growth = status_bytes("VmRSS") - first
            followed, sampled, tokens = step(FOLLOWS, len(case.prompts))
        chosen: dict[str, Any] = folder.counts["engine"]
    return {
        "dtype": chosen.get("dtype", recipe.model.dtype),
        "load_seconds": loaded,
        "follow_seconds": [*follows, followed],
        "sample_seconds": sampled,
        "step_seconds": followed + sampled,
        "tokens": tokens,
        "tokens_per_second": tokens / sampled,
        "peak_rss_bytes": status_bytes("VmHWM"),
        "growth_bytes": growth,
    }
