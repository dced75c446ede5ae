"""What the documentation says is what the project does."""

from __future__ import annotations

import re
import shlex
import sys
import tomllib
import types
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from docs.make_architecture import LAYERS, architecture

ROOT = Path(__file__).parent.parent
DOCS = sorted((ROOT / "docs").glob("*.md"))
PAGES = [*(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "recipes/README.md")), *DOCS]
RUN_ELSEWHERE = {
    "selection.md": "test_selection_methods.py",
    "sandbox.md": "test_sandbox.py",
    "online.md": "test_online_stream.py",
}


def name_of(page: Path) -> str:
    return str(page.relative_to(ROOT))


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.DOTALL)


def without_blocks(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)


def commands_of(page: Path) -> list[str]:
    """Command lines of the console blocks, a line each."""
    text = "\n".join(blocks(page, "console")).replace("\\\n", " ")
    return [line[2:] for line in text.splitlines() if line.startswith("$ ")]


def anchors(page: Path) -> set[str]:
    """Names that a link may lead to: of the headings, as GitHub makes them, and those that are given by hand."""
    headings = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    made = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return made | set(re.findall(r'<a id="([^"]+)">', page.read_text()))


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().split()) <= 800


def test_the_index_leads_to_every_page():
    index = (ROOT / "docs" / "README.md").read_text()
    for page in DOCS:
        assert page.name == "README.md" or f"]({page.name})" in index, page.name


def test_the_page_of_the_command_line_is_current():
    from docs.make_cli import command_line

    assert (ROOT / "docs" / "cli.md").read_text() == command_line(), "run `make docs`"


def test_the_page_of_models_is_current():
    from docs.make_models import models_page

    assert (ROOT / "docs" / "models.md").read_text() == models_page(), "run `make docs`"


def test_the_page_of_the_architecture_is_current():
    assert (ROOT / "docs" / "architecture.md").read_text() == architecture(), "run `make docs`"


def test_the_architecture_has_a_sentence_for_each_room():
    rows = re.findall(r"^\| [\d.]+ \| `([\w.]+)` \| .+\. \|$", architecture(), re.MULTILINE)
    assert sorted(rows) == sorted(room for rooms in LAYERS.values() for room in rooms)


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    for target, anchor in re.findall(r"\]\(([^)#]*)#?([^)]*)\)", without_blocks(page)):
        if target.startswith("http"):
            continue
        leads_to = page.parent / target if target else page
        assert leads_to.exists(), target
        assert not anchor or anchor in anchors(leads_to), f"{target}#{anchor}"


def test_a_link_to_an_anchor_that_is_not_there_is_seen(tmp_path):
    page = tmp_path / "page.md"
    page.write_text('# What is it?\n\n<a id="short"></a>\n\n## A long heading\n\n```\n# no heading\n```\n')
    assert anchors(page) == {"what-is-it", "short", "a-long-heading"}


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_every_command_parses(page):
    from lean_align.cli import main
    from lean_align.recipe import load_recipe

    shipped = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    lines = [shlex.split(line.rstrip("&"), comments=True) for line in commands_of(page)]
    found = [words[words.index("lean-align") + 1 :] for words in lines if "lean-align" in words]
    found += [words[1:] for words in lines if words[0].endswith("/lean-align")]
    assert len(found) >= (5 if page == ROOT / "README.md" else 0)
    for name, *arguments in found:
        context = main.get_command(None, name).make_context(name, list(arguments))
        if name == "run" and context.params["recipe"] in shipped:
            settings = dict(setting.split("=", 1) for setting in context.params["settings"])
            settings = {key: value for key, value in settings.items() if value not in ("shortest", "hard-first")}
            assert load_recipe(context.params["recipe"], settings)


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$ )make ([a-z-]+)", "\n".join(p.read_text() for p in PAGES), re.MULTILINE))
    assert {"demo", "test"} <= named <= targets


@pytest.fixture
def examples(tmp_path, monkeypatch) -> dict[str, Any]:
    """A folder to work in with the files that the pages read, and names that they take for given."""
    from lean_align.artifacts import write_json
    from lean_align.store import StoreWriter

    monkeypatch.chdir(tmp_path)
    Path("selected.jsonl").write_text('{"prompt": "1 + 1?", "answer": "2", "prompt_id": "train-000000", "rank": 1}\n')
    ids = [f"train-{i:06d}" for i in range(80)]
    for name, kind, width in (("demo", "sjlt", 8), ("rademacher", "rademacher", 8192)):
        folder = tmp_path / "runs" / name / "gradients"
        with StoreWriter.open(folder, ids, width) as writer:
            for row in range(len(ids)):
                writer.write(row, np.random.default_rng(row).standard_normal(width))
        write_json(folder / "projection.json", {"projection": {"kind": kind}})
    kept = tmp_path / "runs" / "demo" / "training"
    with StoreWriter.open(kept / "rows", ["0/0", "0/1"], 8) as writer:
        for row in range(2):
            writer.write(row, np.random.default_rng(row).standard_normal(8))
    (kept / "rewards.jsonl").write_text('{"step": 1, "prompt_ids": ["a", "b", "c"], "rows": [0, null, 1]}\n')
    return {"success_rate": np.linspace(0.1, 0.9, len(ids))}


PYTHON_PAGES = [page for page in PAGES if blocks(page, "python") and page.name not in RUN_ELSEWHERE]


@pytest.mark.parametrize("page", PYTHON_PAGES, ids=name_of)
def test_the_python_of_a_page_prints_what_it_says(page, examples, capsys):
    """What a comment of the page promises behind a print is what is printed."""
    names = examples | {"__name__": page.name}
    for block in blocks(page, "python"):
        exec(compile(block, page.name, "exec"), names)
        printed = capsys.readouterr().out.splitlines()
        promised = re.findall(r"^print\(.*\)  # (.+)$", block, re.MULTILINE)
        assert all(said.endswith(line) for said, line in zip(promised, printed)), (promised, printed)
        assert not promised or len(promised) == len(printed)


def test_python_that_another_test_runs_is_run_there():
    for name, test in RUN_ELSEWHERE.items():
        assert blocks(ROOT / "docs" / name, "python")
        assert name in (ROOT / "tests" / test).read_text()


def test_verl_can_read_what_the_page_converts(examples):
    import pyarrow.parquet

    (block,) = [block for block in blocks(ROOT / "docs" / "your_data.md", "python") if "verl_row" in block]
    exec(compile(block, "your_data.md", "exec"), examples)
    (row,) = pyarrow.parquet.read_table("selected.parquet").to_pylist()
    assert row["prompt"] == [{"role": "user", "content": "1 + 1?"}]
    assert row["reward_model"]["ground_truth"] == "2"
    assert row["data_source"]


def test_the_package_of_the_page_on_extending_is_found(monkeypatch):
    """Its entry points lead to a method and a benchmark of their names."""
    from lean_align.benchmarks import find_benchmarks
    from lean_align.benchmarks import registry as benchmarks
    from lean_align.selection import SelectionPool, find_method, select_prompts
    from lean_align.selection import registry as methods

    page = ROOT / "docs" / "extend.md"
    module = types.ModuleType("my_package")
    exec(compile(blocks(page, "python")[0], "my_package.py", "exec"), module.__dict__)
    monkeypatch.setitem(sys.modules, "my_package", module)
    project = tomllib.loads(blocks(page, "toml")[0])["project"]
    for registry in (methods, benchmarks):
        points = [EntryPoint(*point, registry.GROUP) for point in project["entry-points"][registry.GROUP].items()]
        monkeypatch.setattr(registry, "entry_points", lambda group, points=points: points)

    pool = SelectionPool(("a", "b"), ("?", "?"), 0, n_tokens=np.array([5.0, 3.0]), rewards=((0.0, 1.0), (0.0, 1.0)))
    selection, _ = select_prompts(find_method("shortest"), pool, 1)
    assert selection.prompt_ids == ("b",)
    (benchmark,) = find_benchmarks(["minutes"])
    problem = benchmark.read({"text": "Half an hour is how long?", "minutes": 30})
    assert benchmark.reward(problem.gold, "The answer is 30.") == 1.0


@pytest.mark.parametrize("page", [p for p in PAGES if p.name not in ("extend.md", "CHANGELOG.md")], ids=name_of)
def test_source_files_that_are_named_exist(page):
    for path in re.findall(r"`([a-z_]+(?:/[a-z_]+)+\.py)`", page.read_text()):
        assert (ROOT / path).exists() or (ROOT / "lean_align" / path).exists(), path


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
