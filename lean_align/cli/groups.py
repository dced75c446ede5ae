"""The group of all commands: how it lists them, and how an error or an interruption ends."""

from __future__ import annotations

import errno
import os
import shlex
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import click

from lean_align.disk import is_disk_full
from lean_align.errors import REASON_FILE, LeanAlignError, RecipeError
from lean_align.memory import out_of_memory

EVERYDAY = ("run", "plan", "doctor", "select-from", "evaluate", "compare", "transfer", "results", "recipes", "bench")
"""Commands that `--help` lists first; the others are the stages of a run, in order."""
DEBUG = "LEAN_ALIGN_DEBUG"
"""Environment variable by which the processes of a run's stages show tracebacks too."""
_DEBUG_OPTION = "--debug"
_PACKAGE = Path(__file__).parent.parent


class Group(click.Group):
    """Lists everyday commands before stages, and turns errors into one message and an exit status.

    1 is an error, 2 wrong usage or a wrong recipe, 130 an interruption.
    """

    add_stages: Callable[[], None] | None = None
    """Adds the stages' commands; called when one is asked for, since their modules load NumPy and pyarrow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Accept --debug anywhere, and keep the command line for the message that says how to continue."""
        ctx.meta[__name__] = list(args)
        options = args[: args.index("--")] if "--" in args else args
        if _DEBUG_OPTION in options:
            args = [_DEBUG_OPTION, *(word for word in options if word != _DEBUG_OPTION), *args[len(options) :]]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Everyday commands, then stages in the order in which they run."""
        self._add_stages()
        return [*EVERYDAY, *(name for name in self.commands if name not in EVERYDAY)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """A command by its name."""
        if cmd_name not in self.commands:
            self._add_stages()
        return super().get_command(ctx, cmd_name)

    def _add_stages(self) -> None:
        if self.add_stages is not None:
            self.add_stages()
            self.add_stages = None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Two lists, each command with its first sentence."""
        names = self.list_commands(ctx)
        for title, part in (("Commands", names[: len(EVERYDAY)]), ("Stages of a run", names[len(EVERYDAY) :])):
            with formatter.section(title):
                formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=200)) for name in part])

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command."""
        try:
            return super().invoke(ctx)
        except (click.ClickException, click.exceptions.Exit, click.Abort):
            raise
        except KeyboardInterrupt:
            if REASON_FILE not in os.environ:  # the run that started this stage is interrupted too, and says so
                words = shlex.join(["lean-align", *ctx.meta[__name__]])
                click.echo(f"Interrupted. What is finished is kept; to continue: {words}", err=True)
            ctx.exit(130)
        except Exception as error:  # whatever it is, one message; --debug shows where it came from
            if ctx.params.get("debug") or (isinstance(error, OSError) and error.errno == errno.EPIPE):
                raise  # click ends quietly where the reader of a pipe has gone
            _tell(_message(error))
            ctx.exit(2 if isinstance(error, RecipeError) else 1)


def _message(error: Exception) -> str:
    if isinstance(error, LeanAlignError):
        return str(error)
    if (lack := out_of_memory(error)) is not None:
        return str(lack)
    if is_disk_full(error):
        return f"the disk is full ({error}). What was finished is kept: make room, then run the same command again."
    if isinstance(error, OSError) and error.strerror:
        return ": ".join(str(part) for part in (error.strerror, error.filename) if part)
    own = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(_PACKAGE)
    ]
    where = f"{Path(own[-1].filename).relative_to(_PACKAGE.parent)}, line {own[-1].lineno}" if own else "unknown place"
    return (
        f"{type(error).__name__} in {where}: {' '.join(str(error).split()) or 'no message'}\n"
        "This error was not expected. Run the same command with --debug for the whole traceback, and please report it."
    )


def _tell(message: str) -> None:
    """The error, to the user and to the process that waits for this one."""
    click.echo(f"Error: {message}", err=True)
    if REASON_FILE in os.environ:
        with suppress(OSError):  # a full disk
            Path(os.environ[REASON_FILE]).write_text(message, encoding="utf-8", errors="replace")
