"""The run's results in one object, and a page made from it.  Imports no torch."""

from __future__ import annotations

from lean_align.pipeline.stage import Stage, StageRun
from lean_align.stages.results import write_results

SUMMARY = "summary.json"


def run(stage: StageRun) -> None:
    """Write `RUN/summary.json` and the page."""
    stages = [one.folder for one in stage.graph.needed_stages(stage.recipe)]
    stage.folder.counts |= write_results(stage.recipe, stage.run_dir, stage.folder.path, stages)


STAGE = Stage(
    "report",
    "report",
    "Write summary.json and report/index.html.",
    run,
    ("name", "seed"),
    ("selection", "evaluation"),
    resumable=False,
    beside=(SUMMARY,),
    result=SUMMARY,
    page="index.html",
    uses_torch=False,
    shared=False,
    for_selection=False,
)
