"""The command line: a command parses, calls one function, and prints JSON to stdout."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any, ClassVar

import click

from lean_align import __version__
from lean_align.errors import LeanAlignError, RecipeError

_FOLDER = click.Path(file_okay=False, path_type=Path)


class _Group(click.Group):
    """Turns a lean_align error into one message and exit status 1; wrong usage is 2, as click has it."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except LeanAlignError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error}", err=True)
            ctx.exit(2 if isinstance(error, RecipeError) else 1)
        except OSError as error:
            if ctx.params.get("debug"):
                raise
            click.echo(f"Error: {error.strerror or error}: {error.filename or ''}", err=True)
            ctx.exit(1)
        except KeyboardInterrupt:
            click.echo("Interrupted. What is finished is kept: the same command continues.", err=True)
            ctx.exit(130)


@click.group(cls=_Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lean-align")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; goes before the command.")
def main(debug: bool) -> None:
    """Choose the reasoning prompts worth training on (LearnAlign), then train on them with GRPO.

    Example:

        lean-align run demo
    """


@main.command()
@click.argument("recipe")
@click.option("--run-dir", type=_FOLDER, help="Folder of the run; runs/<recipe> when not given.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option("--stop-after", metavar="STAGE", help="Last stage to run, such as rollout or select.")
def run(recipe: str, run_dir: Path | None, settings: tuple[str, ...], stop_after: str | None) -> None:
    """Run every stage of RECIPE, a shipped name or a YAML file; the same command continues a run.

    Example:

        lean-align run demo --set seed=1 --run-dir runs/demo-1
    """
    from lean_align.pipeline import run as run_recipe
    from lean_align.recipe import load_recipe

    loaded = load_recipe(recipe, _overrides(settings))
    _show(run_recipe(loaded, run_dir or Path("runs") / loaded.name, stop_after))


@main.command("select-from")
@click.argument("prompts", type=click.Path(path_type=Path))
@click.option("--model", required=True, help="Hub id, local folder, or demo.")
@click.option("-n", "count", type=click.IntRange(1), required=True, help="How many prompts to choose.")
@click.option("-o", "output", type=click.Path(dir_okay=False, path_type=Path), required=True, help="Where to write.")
@click.option("--run-dir", type=_FOLDER, help="Folder of the run; OUTPUT.run when not given.")
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
def select_from(
    prompts: Path, model: str, count: int, output: Path, run_dir: Path | None, settings: tuple[str, ...]
) -> None:
    """Choose N prompts from a file for a model: warm-up, rollouts, gradients and scores, no final training.

    PROMPTS is .jsonl, .json or .parquet, a row a prompt, with prompt (or question, or problem) and answer.
    Settings are those of the gsm8k recipe (of demo for --model demo); --set changes them.

    Example:

        lean-align select-from my.jsonl --model Qwen/Qwen2.5-1.5B-Instruct -n 500 -o selected.jsonl
    """
    from lean_align.pipeline import select_from_file

    _show(select_from_file(prompts, model, count, output, run_dir, _overrides(settings)))


@main.command()
def recipes() -> None:
    """List the recipes that ship with the package.

    Example:

        lean-align recipes
    """
    from lean_align.recipe import load_recipe, shipped_recipes

    _show(
        {name: {"description": load_recipe(name).description, "path": str(p)} for name, p in shipped_recipes().items()}
    )


class _Bytes(click.ParamType[Any]):
    """A size with its unit: 24GiB, 8GB, 512MiB."""

    name = "SIZE"
    units: ClassVar[dict[str, int]] = {"GiB": 2**30, "MiB": 2**20, "GB": 10**9, "MB": 10**6}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(GiB|MiB|GB|MB)", str(value))
        if found is None or float(found[1]) == 0:
            self.fail(f"{value!r} is no size; expected a number with GiB, MiB, GB or MB, such as 24GiB.")
        return int(float(found[1]) * self.units[found[2]])


@main.command()
@click.argument("recipe")
@click.option(
    "--vram", type=_Bytes(), help="Memory of the card to plan for, such as 24GiB; that of this machine when not given."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def plan(recipe: str, vram: int | None, settings: tuple[str, ...], as_json: bool) -> None:
    """Say what each stage of RECIPE will take, before anything is downloaded or run.

    Peak memory, tokens, hours and disk, and the keys to change where it does not fit.

    Example:

        lean-align plan gsm8k --vram 24GiB
    """
    from lean_align.plan import plan_run
    from lean_align.recipe import load_recipe

    found = plan_run(load_recipe(recipe, _overrides(settings)), vram)
    if as_json:
        _show(found.as_json())
    else:
        click.echo("\n".join(found.lines()))


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Say what this machine can do, and the command that mends what it cannot.

    Exit status 1 when the gsm8k recipe could not run here as it is shipped.

    Example:

        lean-align doctor
    """
    from lean_align.doctor import MAIN_RECIPE, diagnose

    diagnosis = diagnose()
    if as_json:
        _show(diagnosis.as_json())
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
    "--steps", type=click.IntRange(2), default=3, show_default=True, help="Training steps; the first warms up."
)
@click.option(
    "--turns", type=click.IntRange(1), default=1, show_default=True, help="How often each is timed; the median counts."
)
@click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")
@click.option(
    "-o",
    "output",
    type=click.Path(dir_okay=False, path_type=Path),
    default="lean_align_bench.json",
    show_default=True,
    help="Where to write the figures, to paste into an issue.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def bench(
    recipe: str, n_prompts: int, steps: int, turns: int, settings: tuple[str, ...], output: Path, as_json: bool
) -> None:
    """Measure this machine on RECIPE: rollouts, gradients and training steps, with peak memory.

    transformers beside vllm and trl beside unsloth, each in a process of its own; loading is not counted.

    Example:

        lean-align bench gsm8k --prompts 64
    """
    from lean_align.artifacts import write_json
    from lean_align.throughput import measure_throughput

    found = measure_throughput(recipe, _overrides(settings), n_prompts, steps, turns)
    write_json(output, found.as_json())
    if as_json:
        _show(found.as_json())
    else:
        click.echo("\n".join([*found.lines(), f"written to {output}"]))


def _overrides(settings: tuple[str, ...]) -> dict[str, str]:
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise click.BadParameter(
                f"{key!r} has no '='; expected KEY=VALUE, such as data.limit=64", param_hint="--set"
            )
    return {key.strip(): value for key, _, value in pairs}


def _show(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


class _Rows(click.ParamType[Any]):
    """A half-open range of rows as Python slices are written: 0:500, 500:, :500."""

    name = "A:B"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int | None, int | None]:
        first, colon, last = str(value).partition(":")
        if not colon or not all(end == "" or (end.isascii() and end.isdigit()) for end in (first, last)):
            self.fail(f"{value!r} is no range of rows; expected A:B with whole numbers, such as 0:500, 500: or :500.")
        if first and last and int(first) >= int(last):
            self.fail(f"{value!r} holds no row: the second number comes after the last row, so expected A < B.")
        return int(first) if first else None, int(last) if last else None


def _stage_command(name: str, summary: str) -> None:
    @main.command(name, help=f"{summary}\n\nExample:\n\n    lean-align {name} runs/demo", short_help=summary)
    @click.argument("run_dir", type=_FOLDER)
    def command(run_dir: Path, rows: tuple[int | None, int | None] | None = None) -> None:
        from lean_align.pipeline import run_stage

        # libraries that print to stdout must not break the JSON there
        stdout, sys.stdout = sys.stdout, sys.stderr
        try:
            counts = run_stage(name, run_dir, rows)
        finally:
            sys.stdout = stdout
        _show(counts)

    if name == "gradients":
        text = "Only rows A to B - 1, from 0 (:500, 500:); several processes may run, each on rows of its own."
        click.option("--rows", type=_Rows(), help=text)(command)


for _name, _summary in {
    "prepare": "Read the data sets and write the prompts of a run.",
    "warmup": "Train briefly on a random subset.",
    "rollout": "Sample completions for every prompt, and reward them.",
    "gradients": "Take each prompt's gradient, project it, and store it.",
    "score": "Score every prompt.",
    "select": "Choose the prompts to train on.",
    "train": "Train on the chosen prompts with GRPO.",
    "evaluate": "Solve the held-out problems with the base and with the trained model.",
    "report": "Write summary.json and report/index.html.",
}.items():
    _stage_command(_name, _summary)
