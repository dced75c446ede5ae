"""Planned peaks of memory against measured ones, on this CPU: the stages of two runs, and a group of two large shapes.

A run's peaks are those of its manifests; the plan has its own prompts' lengths. `ratio` is planned over measured, of
the whole process; of a group, the work's own bytes and what it added to the loaded model stand next to it.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from bench.bench_memory import COMPLETIONS, PROMPT_TOKENS, make_model
from bench.cases import CACHE, ROOT, AbsentError, smollm2
from bench.child import in_child
from bench.measure import Row, Settings, attempt, commit
from lean_align.artifacts import read_json, read_jsonl
from lean_align.pipeline.graph import stored_recipe

TARGET = "0.85 to 1.15"
SMALL = {  # the recipe gsm8k-cpu on the embedded problems, of which so weak a model solves some, each trained on once
    "data.train_path": "demo",
    "data.test_path": "demo",
    "data.config": None,
    "data.demo_train": 16,
    "data.demo_test": 64,
    "rollouts.max_new_tokens": 96,
    "warmup.n_prompts": 16,
    "warmup.steps": 4,
    "training.steps": 2,
    "selection.n": 8,
}


def measure(settings: Settings) -> Iterator[Row]:
    folder = CACHE / f"plan-demo-{commit()}"
    yield from _against_run("demo", folder, ["demo"], {})
    if settings.size != "full":
        yield {"case": "smollm2, Qwen2.5-0.5B, Qwen2.5-1.5B", "note": "with --full only"}
        return
    try:
        changes = SMALL | {"model.name": str(smollm2())}
    except AbsentError as error:
        yield {"case": "smollm2", "note": f"skipped: {error}"}
    else:
        yield from _against_run("smollm2", CACHE / f"plan-smollm2-{commit()}", ["gsm8k-cpu"], changes)
        columns = {"case": "smollm2", "what": "one group, budget 1024", "checkpointing": False}
        options = {"model": str(smollm2()), "budget": 1024, "checkpointing": False, "completion_tokens": 96}
        yield attempt(columns, lambda: _against_group(options))
    for shape in ("Qwen2.5-0.5B", "Qwen2.5-1.5B"):
        model = str(make_model(shape, settings.seed))
        for budget, checkpointing in ((4096, True), (1024, True), (4096, False)):
            columns = {"case": shape, "what": f"one group, budget {budget}", "checkpointing": checkpointing}
            options = {"model": model, "budget": budget, "checkpointing": checkpointing, "completion_tokens": 512}
            yield attempt(columns, lambda options=options: _against_group(options))


def _against_run(case: str, folder: Path, recipe: list[str], changes: Row) -> Iterator[Row]:
    sets = [part for key, value in changes.items() for part in ("--set", f"{key}={json.dumps(value)}")]
    command = [sys.executable, "-m", "lean_align", "run", *recipe, "--run-dir", str(folder), *sets]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    planned = in_child("bench_plan:planned", folder=str(folder))
    for stage, planned_bytes in planned.items():
        manifest = folder / stage / "manifest.json"
        row: Row = {"case": case, "what": stage, "planned_bytes": planned_bytes}
        if not manifest.exists():  # so weak a model may solve nothing, and then the run stops
            yield row | {"note": f"not run: {done.stderr.strip().splitlines()[-1][:200]}"}
            continue
        measured = read_json(manifest)["peak_rss_bytes"]
        yield row | {"measured_bytes": measured, "ratio": planned_bytes / measured, "target": TARGET}


def planned(folder: str) -> Row:
    """Planned peak of each stage of a run, by its own prompts' lengths."""
    from lean_align.data import prompts_from_rows
    from lean_align.machine.plan import plan_run
    from lean_align.machine.pool_sizes import Pool
    from lean_align.policy import load_encoder
    from lean_align.stages import GRAPH

    recipe = stored_recipe(Path(folder))
    splits = [prompts_from_rows(read_jsonl(Path(folder) / "data" / f"{name}.jsonl")) for name in ("train", "test")]
    encoder = load_encoder(recipe.model, recipe.data)
    longest = max(len(encoder.encode(prompt)) for split in splits for prompt in split)
    pool = Pool(len(splits[0]), len(splits[1]), longest, "the run's own prompts")
    return {stage.stage: stage.peak_bytes for stage in plan_run(recipe, GRAPH.planned(recipe), pool=pool).stages}


def _against_group(options: Row) -> Row:
    planned = in_child("bench_plan:planned_group", **options)
    found = in_child("bench_memory:group", **options)
    measured = found["loaded_bytes"] + found["added_bytes"]
    return planned | {
        "measured_bytes": measured,
        "ratio": planned["planned_bytes"] / measured,
        "target": TARGET,
        "added_bytes": found["added_bytes"],
    }


def planned_group(model: str, budget: int, checkpointing: bool, completion_tokens: int) -> Row:
    """Planned peak of a process that takes one group's gradient, as `plan` computes it; and the work's part of it."""
    from lean_align.gradients import GradientSettings
    from lean_align.machine.place import process_bytes
    from lean_align.machine.rehearsals import gradient_work
    from lean_align.policy.shapes import shape_policy, weight_bytes
    from lean_align.recipe import load_recipe

    recipe = load_recipe(
        "gsm8k",
        {
            "model.name": model,
            "rollouts.num_generations": COMPLETIONS,
            "rollouts.max_new_tokens": completion_tokens,
            "gradients.token_budget": budget,
            "gradients.gradient_checkpointing": checkpointing,
            "gradients.second_seed": False,
        },
    )
    process = process_bytes().gradients  # before the rehearsal, which adds to this process
    loaded = weight_bytes(shape_policy(recipe.model, recipe.lora, PROMPT_TOKENS))
    settings, shape = GradientSettings.of(recipe), (COMPLETIONS, PROMPT_TOKENS)
    work = gradient_work(recipe.model, recipe.lora, recipe.gradients, settings, *shape).peak_bytes
    return {"planned_bytes": process + loaded + work, "work_bytes": work}
