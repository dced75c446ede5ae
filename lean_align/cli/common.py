"""What the commands share: the group, how settings are read, and how results are shown."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from lean_align import __version__
from lean_align.artifacts import safe_name
from lean_align.cli.groups import DEBUG, Group


class Location(click.Path):
    """A path; an empty one (an unset shell variable) is refused: it would mean the working directory."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The path as given."""
        if value == "":
            self.fail("it is empty; expected a path.", param, ctx)
        return super().convert(value, param, ctx)


FOLDER = Location(file_okay=False, path_type=Path)
FILE = Location(dir_okay=False, path_type=Path)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
SET = click.option("--set", "settings", multiple=True, metavar="KEY=VALUE", help="Override a recipe key; repeatable.")


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="lean-align")
@click.option("--debug", is_flag=True, envvar=DEBUG, help="Show the traceback of an error, including errors in stages.")
@click.pass_context
def main(ctx: click.Context, debug: bool) -> None:
    """Choose the reasoning prompts worth training on (LearnAlign), then train on them with GRPO.

    Example:

        lean-align run demo
    """
    if debug:
        ctx.with_resource(_in_environment(DEBUG, "1"))


def words(context: click.Context, parameter: click.Parameter, value: str | None) -> tuple[str, ...]:
    """A comma-separated list; empty where the option is not given."""
    if value is None:
        return ()
    found = tuple(word.strip() for word in value.split(",") if word.strip())
    if not found:
        raise click.BadParameter(f"{value!r} names nothing; expected one or more names, separated by commas.")
    return found


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
def _in_environment(name: str, value: str) -> Iterator[None]:
    """Set a variable for the processes that a command starts."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


@contextmanager
def quiet_stdout() -> Iterator[None]:
    """Send what libraries print to stderr: stdout is for the command's own output."""
    stdout, sys.stdout = sys.stdout, sys.stderr
    try:
        yield
    finally:
        sys.stdout = stdout


def show(value: Any) -> None:
    """Print as JSON to stdout."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def on_terminal() -> bool:
    """Whether a person reads stdout; a program gets JSON."""
    return sys.stdout.isatty()


def show_lines(value: Any, lines: Iterable[str], as_json: bool) -> None:
    """Print lines on a terminal; JSON everywhere else, and where it is asked for."""
    if as_json or not on_terminal():
        show(value)
    else:
        click.echo("\n".join(lines))


def folder_named(name: str, parent: Path) -> Path:
    """A folder of its own below `parent`, whatever the name."""
    return parent / safe_name(name)
