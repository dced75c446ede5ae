"""`evaluate` and `results`: benchmarks, and tables of them."""

from __future__ import annotations

from pathlib import Path

import click

from lean_align.advice import quoted
from lean_align.cli.common import FOLDER, JSON, SET, main, overrides, quiet_stdout, show, show_lines, words


@main.command()
@click.argument("target", metavar="MODEL|RUN_DIR")
@click.option("--adapter", type=FOLDER, help="Folder of a PEFT adapter to put on the model.")
@click.option(
    "--benchmarks", metavar="A,B,...", callback=words, help="gsm8k,math500,amc2023,aime2024,crux when not given."
)
@click.option("--data-dir", type=FOLDER, help="Folder of benchmark files; downloaded from the hub when not given.")
@click.option("--limit", type=click.IntRange(1), help="Problems to take from each benchmark; the same for every model.")
@click.option("-o", "output", type=FOLDER, help="Where to write; evaluations/<model> when not given.")
@click.option("--against", type=FOLDER, help="Output of another evaluation, or a run, to compare with.")
@SET
@click.option("--markdown", is_flag=True, help="Print the table in Markdown, with its notes and sources.")
@JSON
@click.pass_context
def evaluate(
    ctx: click.Context,
    target: str,
    adapter: Path | None,
    benchmarks: tuple[str, ...],
    data_dir: Path | None,
    limit: int | None,
    output: Path | None,
    against: Path | None,
    settings: tuple[str, ...],
    markdown: bool,
    as_json: bool,
) -> None:
    """Solve benchmarks with MODEL (hub id or folder); with a RUN_DIR, run the stage that solves its held-out problems.

    At the end it prints a table with 95 % intervals on a terminal, and JSON where stdout goes elsewhere; results.md
    and results.tex hold the table too. The same command continues an interrupted evaluation. --set takes
    model.quantization, evaluation.num_samples and others; the weights are loaded in bfloat16.

    Example:

        lean-align evaluate Qwen/Qwen2.5-1.5B-Instruct --benchmarks gsm8k,math500 --limit 100
    """
    if (Path(target) / "recipe.yaml").is_file():
        _refuse_options(ctx, target)
        from lean_align.stages import run_stage

        with quiet_stdout():
            counts = run_stage("evaluate", Path(target))
        show(counts)
        return
    from lean_align.evaluation import evaluate_model
    from lean_align.report import Summary, evaluation_lines

    if markdown and as_json:
        raise click.UsageError("got both --markdown and --json; expected only one of them.")
    own = {"evaluation.data_dir": None if data_dir is None else str(data_dir), "evaluation.limit": limit}
    with quiet_stdout():
        found = evaluate_model(target, adapter, benchmarks, output, against, {**own, **overrides(settings)})
    if markdown:
        click.echo(found.table.markdown())
    else:
        show_lines(found.summary, evaluation_lines(Summary.from_json(found.summary)), as_json)


def _refuse_options(ctx: click.Context, run_dir: str) -> None:
    options = [p for p in ctx.command.params if isinstance(p, click.Option) and p.name != "as_json"]
    given = [option.opts[-1] for option in options if ctx.params.get(option.name or "")]
    if given:
        raise click.UsageError(
            f"{run_dir} is a run, whose recipe says what is evaluated; got {given[0]} too. Leave it out, or evaluate "
            f"the recipe's model with --adapter {quoted(Path(run_dir) / 'training' / 'adapter')}."
        )


@main.command()
@click.argument("folders", nargs=-1, required=True, type=FOLDER, metavar="DIR...")
@click.option("--latex", is_flag=True, help="LaTeX (booktabs) instead of Markdown.")
@click.option("--paper/--no-paper", default=True, show_default=True, help="Show the paper's figures below ours.")
def results(folders: tuple[Path, ...], latex: bool, paper: bool) -> None:
    """Put the benchmark results of several runs and evaluations into one table, one row per model.

    A run without benchmarks appears with its held-out set.

    Example:

        lean-align results runs/dapo-math-17k runs/dapo-random
    """
    from lean_align.evaluation import joint_table

    table = joint_table(folders, paper)
    click.echo(table.latex() if latex else table.markdown())
