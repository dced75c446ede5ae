"""The plan of a run, made when its prompts are known and compared with what it took when it has ended."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lean_align.artifacts import read_json, write_json
from lean_align.pipeline.stage import StageRun
from lean_align.progress import say
from lean_align.types import Prompt

if TYPE_CHECKING:
    from lean_align.evaluation.problem_sets import ProblemSet
    from lean_align.policy import PromptEncoder

PLAN = "plan.json"


def write_plan(stage: StageRun, encoder: PromptEncoder, train: Sequence[Prompt], sets: Sequence[ProblemSet]) -> None:
    """Write `RUN/plan.json` for the prompts that the run has; say so where a stage does not fit as it is.

    A run does not stop for it: stages halve their piece of work where memory runs out.
    """
    from lean_align.machine.plan import plan_run
    from lean_align.machine.pool_sizes import EvaluationSet, Pool, target_size

    recipe, run_dir = stage.recipe, stage.run_dir
    held_out = [prompt for s in sets if s.facts is None for prompt in s.prompts]
    longest = max(len(encoder.encode(prompt)) for prompt in (*train, *held_out))
    benchmarks = tuple(
        EvaluationSet(len(s.prompts), s.num_samples, s.max_new_tokens, s.longest_sequence(encoder) - s.max_new_tokens)
        for s in sets
        if s.facts is not None
    )
    try:
        n_target, longest_problem, _ = target_size(recipe, from_hub=True) or (0, 0, "")
        longest = max(longest, longest_problem)
        pool = Pool(len(train), len(held_out), longest, "the run's own", benchmarks, n_target)
        plan = plan_run(recipe, stage.graph.planned(recipe), pool=pool)
    except Exception as error:  # whatever a model of an unknown kind does on shapes alone; a target is refused later
        write_json(run_dir / PLAN, {"note": f"no plan: {type(error).__name__}: {error}"})
        return
    write_json(run_dir / PLAN, plan.as_json())
    if not plan.fits:
        say("\n".join(plan.lines()))


def planned_peaks(run_dir: Path) -> dict[str, dict[str, Any]]:
    """By stage, the planned peak under the name of the measured one; empty for a run without a plan."""
    path = run_dir / PLAN
    plan = read_json(path) if path.exists() else {}
    key = "planned_vram_bytes" if plan.get("device") == "cuda" else "planned_rss_bytes"
    return {stage["stage"]: {key: stage["peak_bytes"]} for stage in plan.get("stages", [])}
