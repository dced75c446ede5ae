"""`plan`, `doctor` and `bench`: what this machine can do, and what a run will take."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import click

from lean_align.cli.common import FILE, JSON, SET, main, overrides, show


class Bytes(click.ParamType[Any]):
    """A size with its unit: 24GiB, 8GB, 512MiB."""

    name = "SIZE"
    units: ClassVar[dict[str, int]] = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Bytes."""
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|MiB|GB|MB)", str(value))
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is not a size; expected a number with GiB, MiB, GB or MB, such as 24GiB.")
        return int(float(found[1]) * self.units[found[2]])


@main.command()
@click.argument("recipe")
@click.option(
    "--vram", type=Bytes(), help="Memory of the card to plan for, such as 24GiB; this machine's when not given."
)
@SET
@JSON
def plan(recipe: str, vram: int | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say what each stage of RECIPE will take, before anything is downloaded or run.

    Peak memory, tokens, hours and disk, and the keys to change where it does not fit. Exit status 1 when it does not
    fit as it is; with --json the object's `fits` says so, and the status is 0.

    Example:

        lean-align plan gsm8k --vram 24GiB
    """
    from lean_align.machine.plan import plan_run
    from lean_align.recipe import load_recipe
    from lean_align.stages import GRAPH

    loaded = load_recipe(recipe, overrides(settings))
    found = plan_run(loaded, GRAPH.planned(loaded), vram)
    if as_json:
        show(found.as_json())
    else:
        click.echo("\n".join(found.lines()))
        if not found.fits:
            sys.exit(1)


@main.command()
@JSON
def doctor(as_json: bool) -> None:
    """Say what this machine can do, and the command that fixes what it cannot.

    Exit status 1 when the gsm8k recipe could not run here as shipped.

    Example:

        lean-align doctor
    """
    from lean_align.machine.doctor import diagnose
    from lean_align.machine.findings import MAIN_RECIPE

    diagnosis = diagnose()
    if as_json:
        show(diagnosis.as_json())
    else:
        click.echo("\n".join(diagnosis.lines()))
    if not diagnosis.can_run[MAIN_RECIPE]:
        sys.exit(1)


@main.command()
@click.argument("recipe", default="demo")
@click.option(
    "--prompts", "n_prompts", type=click.IntRange(1), default=16, show_default=True, help="Prompts to sample."
)
@click.option(
    "--steps", type=click.IntRange(2), default=3, show_default=True, help="Training steps; the first is not timed."
)
@click.option(
    "--turns", type=click.IntRange(1), default=1, show_default=True, help="Repeats of each timing; the median is shown."
)
@SET
@click.option(
    "-o",
    "output",
    type=FILE,
    default="lean_align_bench.json",
    show_default=True,
    help="Where to write the figures, to paste into an issue.",
)
@click.option("--training-only", is_flag=True, help="Time the training steps alone.")
@JSON
def bench(
    recipe: str,
    n_prompts: int,
    steps: int,
    turns: int,
    settings: tuple[str, ...],
    output: Path,
    training_only: bool,
    as_json: bool,
) -> None:
    """Measure this machine on RECIPE: rollouts, gradients and training steps, with peak memory.

    transformers and vllm, and lean, trl and unsloth side by side, each in a process of its own; loading is not counted.

    Example:

        lean-align bench gsm8k --prompts 64
    """
    from lean_align.artifacts import write_json
    from lean_align.machine.throughput import measure_throughput
    from lean_align.shortcut.row_files import check_place

    check_place(output)
    found = measure_throughput(recipe, overrides(settings), n_prompts, steps, turns, training_only)
    output.parent.mkdir(parents=True, exist_ok=True)
    write_json(output, found.as_json())
    if as_json:
        show(found.as_json())
    else:
        click.echo("\n".join([*found.lines(), f"written to {output}"]))
