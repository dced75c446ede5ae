"""`run`, `select-from`, `recipes`, and a command for each stage of a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from lean_align.cli.common import (
    FILE,
    FOLDER,
    JSON,
    SET,
    Location,
    folder_named,
    main,
    overrides,
    quiet_stdout,
    show,
    show_lines,
)
from lean_align.table import Table

if TYPE_CHECKING:
    from lean_align.pipeline.stage import Stage


@main.command()
@click.argument("recipe")
@click.option("--run-dir", type=FOLDER, help="Folder of the run; runs/<recipe> when not given.")
@SET
@click.option("--stop-after", metavar="STAGE", help="Last stage to run, such as rollout or select.")
@JSON
def run(recipe: str, run_dir: Path | None, settings: tuple[str, ...], stop_after: str | None, as_json: bool) -> None:
    """Run every stage of RECIPE, a shipped name or a YAML file; the same command continues a run.

    At the end it prints a table on a terminal, and RUN/summary.json where stdout goes elsewhere.

    Example:

        lean-align run demo --set seed=1 --run-dir runs/demo-1
    """
    from lean_align.recipe import load_recipe
    from lean_align.report import Summary, run_lines
    from lean_align.stages import run as run_recipe

    loaded = load_recipe(recipe, overrides(settings))
    folder = run_dir or folder_named(loaded.name, Path("runs"))
    found = run_recipe(loaded, folder, stop_after)
    if "finished" in found:
        lines = [f"finished: {', '.join(found['finished'])}", f"run folder: {folder}"]
    else:
        lines = [*run_lines(Summary.from_json(found)), f"report: {folder / 'report' / 'index.html'}"]
    show_lines(found, lines, as_json)


@main.command("select-from")
@click.argument("prompts", type=Location(path_type=Path))
@click.option("--model", required=True, help="Hub id, local folder, or demo.")
@click.option("-n", "count", type=click.IntRange(1), required=True, help="How many prompts to choose.")
@click.option(
    "-o",
    "output",
    type=FILE,
    required=True,
    help="Where to write: .jsonl, .json, .parquet, .csv or .tsv.",
)
@click.option("--run-dir", type=FOLDER, help="Folder of the run; OUTPUT.run when not given.")
@SET
def select_from(
    prompts: Path, model: str, count: int, output: Path, run_dir: Path | None, settings: tuple[str, ...]
) -> None:
    """Choose N prompts from a file for a model: warm-up, rollouts, gradients and scores, no final training.

    PROMPTS is .jsonl, .ndjson, .json, .csv, .tsv (each also with .gz), .parquet or .arrow, or a folder of them: one
    row per prompt, with prompt (or question, or problem) and answer; docs/data.md lists what else is read.
    Settings are those of the gsm8k recipe (of demo for --model demo); --set changes them. A different -n with
    the same OUTPUT reuses the rollouts and gradients that are already there.

    Example:

        lean-align select-from my.jsonl --model Qwen/Qwen2.5-1.5B-Instruct -n 500 -o selected.jsonl
    """
    from lean_align.shortcut import select_from_file

    show(select_from_file(prompts, model, count, output, run_dir, overrides(settings)))


@main.command()
@JSON
def recipes(as_json: bool) -> None:
    """List the recipes that ship with the package.

    Example:

        lean-align recipes
    """
    from lean_align.recipe import load_recipe, shipped_recipes

    found = {name: load_recipe(name).description for name in shipped_recipes()}
    paths = {name: str(path) for name, path in shipped_recipes().items()}
    tree = {name: {"description": description, "path": paths[name]} for name, description in found.items()}
    rows = [(name, description.partition(". ")[0]) for name, description in found.items()]
    show_lines(tree, Table.of_texts(("", ""), rows, words=(0, 1)).text(), as_json)


class Rows(click.ParamType[Any]):
    """A half-open range of rows, written like a Python slice: 0:500, 500:, :500."""

    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, int | None]:
        """First row and the one after the last; None where it is left open."""
        first, colon, last = str(value).partition(":")
        if not colon or not all(end == "" or (end.isascii() and end.isdigit()) for end in (first, last)):
            self.fail(f"{value!r} is not a range of rows; expected A:B in whole numbers, such as 0:500, 500: or :500.")
        if first and last and int(first) >= int(last):
            self.fail(f"{value!r} is an empty range: B is the row after the last one, so expected A < B.")
        return int(first) if first else None, int(last) if last else None


def _stage_command(stage: Stage) -> None:
    text = f"{stage.help}\n\nExample:\n\n    lean-align {stage.command} runs/demo"

    @main.command(stage.command, help=text, short_help=stage.help)
    @click.argument("run_dir", type=FOLDER)
    def command(run_dir: Path, rows: tuple[int | None, int | None] | None = None) -> None:
        from lean_align.stages import run_stage

        with quiet_stdout():
            counts = run_stage(stage.command, run_dir, rows)
        show(counts)

    if stage.run_rows is not None:
        text = "Only rows A to B - 1, counted from 0 (or :500, 500:); several processes may run, each on its own rows."
        click.option("--rows", type=Rows(), help=text)(command)


def _add_stage_commands() -> None:
    from lean_align.stages import GRAPH

    for stage in GRAPH.stages:
        if stage.command not in main.commands:  # evaluate, which solves benchmarks outside a run too
            _stage_command(stage)


main.add_stages = _add_stage_commands
