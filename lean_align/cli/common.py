"""What the commands share: the group, how settings are read, and how results are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import click

from lean_align import __version__
from lean_align.disk import is_disk_full
from lean_align.errors import REASON_FILE, LeanAlignError, RecipeError
from lean_align.memory import out_of_memory

FOLDER = click.Path(file_okay=False, path_type=Path)
SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")


class Group(click.Group):
    """Turns a lean_align error into one message and exit status 1; wrong usage is 2, as click has it."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except Exception as error:
            message = _sentence(error)
            if message is None or ctx.params.get("debug"):
                raise
            _tell(message)
            ctx.exit(2 if isinstance(error, RecipeError) else 1)
        except KeyboardInterrupt:
            click.echo("Interrupted. What is finished is kept: the same command continues.", err=True)
            ctx.exit(130)


def _sentence(error: Exception) -> str | None:
    """What went wrong, where it is no fault of the program: our own errors, memory, disk and files; None for others."""
    if isinstance(error, LeanAlignError):
        return str(error)
    if (lack := out_of_memory(error)) is not None:
        return str(lack)
    if is_disk_full(error):
        return f"the disk is full ({error}). What was finished is kept: make room, then run the same command again."
    return f"{error.strerror or error}: {error.filename or ''}" if isinstance(error, OSError) else None


def _tell(message: str) -> None:
    """The error, to the user and to the process that waits for this one."""
    click.echo(f"Error: {message}", err=True)
    if REASON_FILE in os.environ:
        with suppress(OSError):  # a full disk
            Path(os.environ[REASON_FILE]).write_text(message, encoding="utf-8")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lean-align")
@click.option("--debug", is_flag=True, help="Show the traceback of an error; goes before the command.")
def main(debug: bool) -> None:
    """Choose the reasoning prompts worth training on (LearnAlign), then train on them with GRPO.

    Example:

        lean-align run demo
    """


def overrides(settings: tuple[str, ...]) -> dict[str, str]:
    """Keys and values of repeated --set KEY=VALUE."""
    pairs = [setting.partition("=") for setting in settings]
    for key, equals, _ in pairs:
        if not equals:
            raise click.BadParameter(
                f"{key!r} has no '='; expected KEY=VALUE, such as data.limit=64", param_hint="--set"
            )
    return {key.strip(): value for key, _, value in pairs}


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Libraries that print to stdout must not break what is printed there."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def show(value: Any) -> None:
    """Print as JSON to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
