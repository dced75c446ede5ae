"""No function of the package takes more than eight arguments: what belongs together comes as one record."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "lean_align"
MOST = 8


def long_signatures(source: str) -> Iterator[str]:
    """Name and number of arguments of each function that takes too many; `self` and `cls` do not count.

    Nor do commands: click gives them one argument an option.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not _is_command(node):
            given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            count = len(given) - (bool(given) and given[0].arg in ("self", "cls"))
            if count > MOST:
                yield f"{node.name} takes {count}"


def _is_command(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    calls = (d.func if isinstance(d, ast.Call) else d for d in node.decorator_list)
    return any(isinstance(call, ast.Attribute) and call.attr in ("command", "group") for call in calls)


def test_no_function_takes_more_than_eight_arguments() -> None:
    found = {
        f"{path.relative_to(PACKAGE)}: {signature}"
        for path in PACKAGE.rglob("*.py")
        for signature in long_signatures(path.read_text(encoding="utf-8"))
    }
    assert found == set()


def test_the_check_counts_what_a_caller_gives() -> None:
    names = ", ".join("abcdefgh")
    method = f"class C:\n    def f(self, {names}): pass\n    async def g(self, {names}, *, i=0): pass"
    assert list(long_signatures(method)) == ["g takes 9"]
    assert list(long_signatures(f"def f({names}, i, /): pass")) == ["f takes 9"]
    assert list(long_signatures(f"@main.command()\n@click.option('-i')\ndef f({names}, i): pass")) == []
    assert list(long_signatures(f"@other\ndef f({names}, i): pass")) == ["f takes 9"]
