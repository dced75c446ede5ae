"""What the documentation says is what the project does."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def test_the_page_of_the_command_line_is_current():
    from docs.make_cli import command_line

    assert (ROOT / "docs" / "cli.md").read_text() == command_line(), "run `make docs`"


def test_the_page_of_models_is_current():
    from docs.make_models import models_page

    assert (ROOT / "docs" / "models.md").read_text() == models_page(), "run `make docs`"


def test_the_python_of_the_readme_prints_what_it_says(capsys):
    (block,) = blocks(ROOT / "README.md", "python")
    exec(compile(block, "README.md", "exec"), {})
    printed = capsys.readouterr().out.splitlines()
    assert printed == ["('0', '1')", "1.0"]
    for line in printed:
        assert line in block


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), target


def test_every_command_of_the_readme_parses():
    from lean_align.cli import main
    from lean_align.recipe import load_recipe

    text = "\n".join(blocks(ROOT / "README.md", "console")).replace("\\\n", " ")
    commands = [shlex.split(line[2:], comments=True) for line in text.splitlines() if line.startswith("$ lean-align")]
    assert len(commands) >= 4
    for _, name, *arguments in commands:
        context = main.commands[name].make_context(name, list(arguments))
        if name == "run":
            settings = dict(setting.split("=", 1) for setting in context.params["settings"])
            assert load_recipe(context.params["recipe"], settings)


def test_every_make_target_of_the_readme_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`?make ([a-z-]+)`?", " ".join(page.read_text() for page in PAGES)))
    assert {"demo", "test"} <= named <= targets


def test_functions_named_in_the_method_page_exist():
    from importlib import import_module

    names = re.findall(
        r"`((?:types|scoring|gradients|projection|store|selection)\.[A-Za-z_.]+)`",
        (ROOT / "docs/method.md").read_text(),
    )
    assert len(names) >= 8
    for name in names:
        module, *rest = name.split(".")
        value = import_module(f"lean_align.{module}")
        for part in rest:
            value = getattr(value, part)


def test_the_wheel_and_the_package_agree_on_what_ships():
    text = (ROOT / "pyproject.toml").read_text()
    assert 'recipes = "lean_align/shipped_recipes"' in text
    assert (ROOT / "lean_align" / "demo" / "model" / "model.safetensors").stat().st_size < 8e6


def test_what_the_dockerfile_copies_is_there():
    text = (ROOT / "Dockerfile").read_text()
    copied = [name for line in re.findall(r"^COPY (.+) \S+$", text, re.MULTILINE) for name in line.split()]
    assert len(copied) >= 6
    assert all((ROOT / name).exists() for name in copied)
    build = re.search(r'requires = \["(hatchling==[^"]+)"\]', (ROOT / "pyproject.toml").read_text())
    assert build
    assert build[1] in text
