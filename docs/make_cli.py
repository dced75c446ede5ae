"""Write docs/cli.md from the command line's own help: python -m docs.make_cli."""

from __future__ import annotations

from pathlib import Path

import click

from lean_align.cli import main
from lean_align.recipe.fields import Recipe

TARGET = Path(__file__).parent / "cli.md"


def command_line() -> str:
    """The page: each command's help, then every recipe key with its default."""
    parts = ["# Command line", "", "Made by `make docs`; do not edit.", "", _help(main, "lean-align")]
    for name, command in ((n, main.commands[n]) for n in sorted(main.list_commands(None))):
        parts += ["", f"## lean-align {name}", "", _help(command, f"lean-align {name}")]
    return "\n".join([*parts, "", "## Recipe keys", "", *recipe_keys(), ""])


def recipe_keys() -> list[str]:
    """A table row a key: name, default, meaning (the line under the field in the source)."""
    import ast
    import dataclasses
    import typing

    folder = Path(__file__).parent.parent / "lean_align" / "recipe"
    sources = [ast.parse(path.read_text()) for path in sorted(folder.glob("*.py"))]
    meanings: dict[str, dict[str, str]] = {}
    for node in (node for source in sources for node in source.body):
        if isinstance(node, ast.ClassDef):
            pairs = zip(node.body, node.body[1:])
            meanings[node.name] = {
                field.target.id: " ".join(line.value.value.split())
                for field, line in pairs
                if isinstance(field, ast.AnnAssign) and isinstance(line, ast.Expr)
            }
    rows = ["| key | default | meaning |", "| --- | --- | --- |"]

    def add(kind: type, prefix: str) -> None:
        hints = typing.get_type_hints(kind)
        for field in dataclasses.fields(kind):
            if dataclasses.is_dataclass(hints[field.name]):
                add(hints[field.name], f"{field.name}.")
                continue
            lines = [
                meanings[c.__name__][field.name] for c in kind.__mro__ if field.name in meanings.get(c.__name__, {})
            ]
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            default = list(default) if isinstance(default, tuple) else default
            rows.append(f"| `{prefix}{field.name}` | `{'null' if default is None else default}` | {lines[0]} |")

    add(Recipe, "")
    return rows


def _help(command: click.Command, name: str) -> str:
    parent = click.Context(main, info_name="lean-align", **main.context_settings)
    last = name.split(" ")[-1]
    context = parent if command is main else click.Context(command, parent=parent, info_name=last)
    context.max_content_width = context.terminal_width = 100
    with context:
        return "```\n" + command.get_help(context) + "\n```"


if __name__ == "__main__":
    TARGET.write_text(command_line())
