"""`compare` and `transfer`: selection methods side by side, after training and before it."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from lean_align.cli.common import (
    FOLDER,
    JSON,
    SET,
    folder_named,
    main,
    overrides,
    quiet_stdout,
    show,
    show_lines,
    words,
)


def _numbers(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[int, ...]:
    texts = words(context, parameter, value)
    wrong = [word for word in texts if not (word.isascii() and word.isdigit() and int(word) > 0)]
    if wrong:
        raise click.BadParameter(f"{wrong[0]!r} is not a size; expected whole numbers above 0, such as 50,130,270.")
    return tuple(int(word) for word in texts)


@main.command()
@click.argument("recipe")
@click.option(
    "--methods",
    callback=words,
    help="METHOD, METHOD@N or METHOD+KEY=VALUE, separated by commas; compare.methods of the recipe when not given.",
)
@click.option(
    "--seeds", type=click.IntRange(1), default=3, show_default=True, help="Number of seeds, from the recipe's on."
)
@click.option("--sizes", callback=_numbers, help="Subset sizes, separated by commas; selection.n when not given.")
@click.option("--run-dir", type=FOLDER, help="Folder of the comparison; runs/compare-<recipe> when not given.")
@SET
@JSON
def compare(
    recipe: str,
    methods: tuple[str, ...],
    seeds: int,
    sizes: tuple[int, ...],
    run_dir: Path | None,
    settings: tuple[str, ...],
    as_json: bool,
) -> None:
    """Train on the choices of several selection methods with several seeds, and test the differences.

    Warm-up, rollouts and gradients run once per seed; every training has the same steps, start and problems.
    The base model is evaluated once. The table in DIR/compare/ fills in as trainings end, and is printed at the end;
    the same command continues an interrupted comparison. Exit status 1 when a training failed or was refused.

    Example:

        lean-align compare testbed --methods learnalign,random --seeds 2 --run-dir runs/compare
    """
    from lean_align.compare import compare as compare_methods
    from lean_align.recipe import load_recipe
    from lean_align.report import Comparison, comparison_lines

    loaded = load_recipe(recipe, overrides(settings))
    folder = run_dir or folder_named(f"compare-{loaded.name}", Path("runs"))
    found = compare_methods(loaded, folder, methods, seeds, sizes)
    if as_json:
        show(found)
    else:
        lines = comparison_lines(Comparison.from_json(found))
        click.echo("\n".join([*lines, f"report: {folder / 'compare' / 'index.html'}"]))
    if found["faults"] or found["n_done"] < found["n_cells"]:
        sys.exit(1)


@main.command()
@click.argument("folder", type=FOLDER, metavar="RUN_DIR|COMPARISON_DIR")
@click.option("--target", help="As selection.target: a file, a hub id or testbed:N; the recipe's own when not given.")
@JSON
def transfer(folder: Path, target: str | None, as_json: bool) -> None:
    """Say before any training how far a choice's mean gradient points where a target's does.

    Of a run that has chosen: the cosine for its choice, for a random one and for learnability alone of the same size,
    with 95 % intervals, in a table on a terminal and in the run's report. Rollouts and gradients of the target are made
    where they are not there. Of a finished comparison: the cosine of every method, and its rank correlation with the
    accuracies that were measured.

    Example:

        lean-align transfer runs/demo --target held-out:64
    """
    from lean_align.compare import comparison_transfer, run_transfer
    from lean_align.pipeline.graph import COMPARISON
    from lean_align.report.transfer import comparison_transfer_lines, transfer_lines

    with quiet_stdout():
        if (folder / COMPARISON).is_file():
            ranked = comparison_transfer(folder, target)
            tree, lines = ranked.as_json(), comparison_transfer_lines(ranked)
        else:
            found = run_transfer(folder, target)
            tree, lines = found.as_json(), transfer_lines(found)
    show_lines(tree, lines, as_json)
