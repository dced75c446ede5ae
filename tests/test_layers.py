"""A module imports only from a strictly lower layer, and what needs no torch loads none.

The layers are those of ARCHITECTURE.md, with an order inside layer 1: artifacts reads peaks from memory.
"""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "lean_align"
LAYERS = {
    0.0: ("types", "errors"),
    # know nothing but layer 0
    1.0: ("memory", "rng", "progress", "demo", "live_bytes", "choices", "contamination", "processors", "sandbox"),
    1.1: ("advice", "disk", "statistics", "table", "json_records"),
    1.2: ("files",),  # what artifacts gives on: written whole, and read with advice
    1.5: ("artifacts", "recipe"),  # artifacts writes peaks of memory into manifests
    2.0: ("verify", "policy", "projection", "store"),
    2.5: ("data",),  # whether two golds are the same is the verifier's question
    3.0: ("rollouts", "gradients", "scoring", "signals", "benchmarks", "online"),
    3.5: ("prediction",),  # which prompts to sample, from scores
    4.0: ("selection", "grpo"),
    6.0: ("report",),
    6.5: ("machine",),
    7.0: ("pipeline",),
    7.5: ("evaluation",),
    8.0: ("stages",),
    9.0: ("compare", "shortcut", "machine.probes", "machine.throughput", "machine.pieces"),  # which know the stages
    10.0: ("cli",),
    11.0: ("__main__",),
}
LAYER = {module: layer for layer, modules in LAYERS.items() for module in modules}
FILES = sorted(PACKAGE.rglob("*.py"))
LIGHT = ("recipe", "verify", "store", "statistics", "scoring", "prediction", "selection", "report", "pipeline")
LIGHT += ("evaluation", "stages", "compare", "machine.doctor", "shortcut", "online", "cli")
HEAVY = ("torch", "scipy", "transformers", "matplotlib", "trl", "peft", "bitsandbytes")


def module_of(path: Path) -> str:
    """`lean_align/report/svg.py` -> `report.svg`; `lean_align/report/__init__.py` -> `report`."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def layer_of(name: str) -> float:
    """A module's own entry, else its folder's."""
    parts = name.split(".")
    entries = (".".join(parts[:n]) for n in range(len(parts), 0, -1))
    return next((LAYER[entry] for entry in entries if entry in LAYER), float("inf"))


def is_type_checking(node: ast.AST) -> bool:
    if not isinstance(node, ast.If):
        return False
    return getattr(node.test, "id", getattr(node.test, "attr", None)) == "TYPE_CHECKING"


def running_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """Every node below, functions included, but for what only a type checker reads."""
    for child in ast.iter_child_nodes(node):
        if is_type_checking(child):
            for other in child.orelse:  # type: ignore[attr-defined]
                yield from (other, *running_nodes(other))
        else:
            yield child
            yield from running_nodes(child)


def imported_names(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import; `from a import b` is `a.b`, and relative ones are resolved."""
    for node in running_nodes(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) + 1 - node.level] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def upward_imports(source: str, module: str, is_package: bool = False) -> list[str]:
    """Imports that do not go to a strictly lower layer; modules of one folder may know one another."""
    own = module.split(".")[0]
    dotted = f"lean_align.{module}"
    package = dotted if is_package else dotted.rpartition(".")[0]
    wrong = []
    for line, name in imported_names(source, package):
        top, _, rest = name.partition(".")
        if top != "lean_align" or rest.split(".")[0] in (own, "__version__"):
            continue
        if layer_of(rest) >= layer_of(module):
            wrong.append(f"{module}, line {line}: {name}")
    return wrong


def test_every_module_has_a_layer() -> None:
    found = {module_of(path).split(".")[0] for path in FILES} - {"__init__"}
    assert found == {name for name in LAYER if "." not in name}


@pytest.mark.parametrize("path", [f for f in FILES if f != PACKAGE / "__init__.py"], ids=module_of)
def test_imports_go_strictly_downwards(path: Path) -> None:
    assert upward_imports(path.read_text(encoding="utf-8"), module_of(path), path.name == "__init__.py") == []


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("store", "from lean_align.scoring import score_prompts"),
        ("store", "import lean_align.pipeline.run"),
        ("store", "from lean_align import pipeline"),
        ("store", "from lean_align import score_prompts"),
        ("store", "import lean_align"),
        ("store", "from lean_align.policy import Policy"),
        ("store", "def f():\n    if True:\n        from lean_align.cli import main"),
        ("store", "try:\n    from .scoring import learnability\nexcept ImportError:\n    pass"),
        ("report.svg", "from ..pipeline import run"),
        ("report.svg", "from .. import pipeline"),
        ("recipe.fields", "from lean_align.artifacts import write_text"),
        ("memory", "from lean_align.rng import rng_for"),
        ("store", "if TYPE_CHECKING:\n    pass\nelse:\n    from lean_align.scoring import learnability"),
        ("store", "if not TYPE_CHECKING:\n    from lean_align.scoring import learnability"),
    ],
)
def test_the_check_catches_an_import_that_goes_up_or_sideways(module: str, source: str) -> None:
    assert len(upward_imports(source, module)) == 1


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("store", "from lean_align.artifacts import read_json\nfrom lean_align.errors import StoreError"),
        ("report.svg", "from lean_align.report.formatting import count\nfrom .wording import text\nfrom . import page"),
        ("store", "if TYPE_CHECKING:\n    from lean_align.scoring import score_prompts"),
        ("store", "if typing.TYPE_CHECKING:\n    from lean_align.scoring import score_prompts"),
        ("cli", "from lean_align import __version__\nimport numpy as lean_align_numpy"),
        ("artifacts", "from lean_align.memory import peak_rss_bytes"),
    ],
)
def test_the_check_allows_what_is_allowed(module: str, source: str) -> None:
    assert upward_imports(source, module) == []


def test_the_facade_loads_nothing_of_ours_but_the_verifier() -> None:
    """Its other names come on first use; `verify` at once, since function and folder share the name."""
    source = (PACKAGE / "__init__.py").read_text(encoding="utf-8")
    names = [name for _, name in imported_names(source, "lean_align")]
    assert [name for name in names if name.startswith("lean_align")] == ["lean_align.verify.verify"]


def test_every_name_of_the_facade_is_there() -> None:
    """In a process of its own: one of them imports torch."""
    code = "import lean_align as la; assert all(callable(getattr(la, name)) and name in dir(la) for name in la.__all__)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)


@pytest.mark.parametrize("library", ["bitsandbytes", "peft"])
def test_only_policy_imports(library: str) -> None:
    users = {
        module_of(path)
        for path in FILES
        for _, name in imported_names(path.read_text(encoding="utf-8"), f"lean_align.{module_of(path)}")
        if name.split(".")[0] == library
    }
    assert {user.split(".")[0] for user in users} <= {"policy"}


def loaded_by(code: str) -> set[str]:
    """Top names in sys.modules after `code` ran in a fresh process."""
    script = f"{code}\nimport json, sys\nprint(json.dumps(sorted({{name.split('.')[0] for name in sys.modules}})))"
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True, cwd=ROOT)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_light_modules_load_no_heavy_library() -> None:
    loaded = loaded_by("import lean_align, " + ", ".join(f"lean_align.{name}" for name in LIGHT))
    assert loaded.isdisjoint(HEAVY)


def test_reading_a_recipe_loads_no_heavy_library() -> None:
    assert loaded_by("import lean_align as la; la.load_recipe('demo')").isdisjoint(HEAVY)


def test_the_check_of_loaded_libraries_sees_one() -> None:
    assert "colorsys" in loaded_by("import colorsys")


def test_help_exits_with_0() -> None:
    done = subprocess.run([sys.executable, "-m", "lean_align", "--help"], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0
    assert "lean-align run demo" in done.stdout
