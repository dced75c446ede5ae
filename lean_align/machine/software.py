"""Python, packages, the 4-bit backward pass and the hub.

A package outside the range that the installed metadata of lean-align declares is a fail; inside it, a version other
than the tested one is a warn.
"""

from __future__ import annotations

from packaging.specifiers import SpecifierSet

from lean_align.machine.findings import MAIN_RECIPE, Finding
from lean_align.machine.inventory import OPTIONAL, TESTED, Machine
from lean_align.machine.probes import shipped

OLDEST_PYTHON, NEWEST_TESTED_PYTHON = (3, 11), (3, 13)
_FOUR_BIT = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")
_WHOLE_ERROR = "python -m lean_align.machine.probes"


def check_python(machine: Machine) -> Finding:
    """Version of Python."""
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    command = "python3.13 -m venv .venv && .venv/bin/pip install ."
    if version < OLDEST_PYTHON:
        return Finding("Python", "fail", machine.python, "3.11 or later", command, tuple(shipped()))
    if version > NEWEST_TESTED_PYTHON:
        return Finding("Python", "warn", machine.python, "3.11 to 3.13, the tested versions", command)
    return Finding("Python", "ok", machine.python)


def check_lean_align(machine: Machine) -> Finding:
    """Whether lean-align itself is installed, so that its ranges are known."""
    version = machine.versions["lean-align"]
    if version is None:
        return Finding(
            "lean-align", "warn", "not installed", "an installed package", "pip install --no-deps --editable ."
        )
    return Finding("lean-align", "ok", version)


def check_package(machine: Machine, name: str) -> Finding:
    """A required package: installed, inside its range, and the tested version."""
    version, tested, supported = machine.versions[name], TESTED[name], machine.ranges.get(name, "")
    command = f"pip install '{name}=={tested}'"
    if version is None:
        return Finding(name, "fail", "not installed", f"{tested}", command, tuple(shipped()))
    if not SpecifierSet(supported).contains(version, prereleases=True):
        return Finding(name, "fail", version, f"{supported}", command, tuple(shipped()))
    if version.partition("+")[0] != tested:  # 2.13.0+cpu is 2.13.0
        return Finding(name, "warn", version, f"{tested}, the tested version", command)
    return Finding(name, "ok", version, tested)


def check_four_bit(machine: Machine) -> Finding:
    """A real backward pass over a 4-bit base."""
    report = machine.probes["bitsandbytes"]
    if report.error is not None:
        return Finding(
            "4-bit backward",
            "fail",
            report.error,
            f"gradients of every LoRA matrix; `{_WHOLE_ERROR} bitsandbytes` shows the whole error",
            _fix_four_bit(machine, report.error),
            tuple(name for name, recipe in shipped().items() if recipe.model.quantization == "nf4"),
        )
    return Finding(
        "4-bit backward", "ok", f"gradients of {report.values['matrices']} LoRA matrices on {report.values['device']}"
    )


def _fix_four_bit(machine: Machine, error: str) -> str:
    """The command for a package that is at fault by its version; else of the card's memory, or of bitsandbytes."""
    for name in _FOUR_BIT:
        package = check_package(machine, name)
        if package.status == "fail" and package.command:
            return package.command
    if "out of memory" in error:
        return "nvidia-smi  # the processes that hold the card: stop them"
    return f"pip install --force-reinstall --no-deps 'bitsandbytes=={TESTED['bitsandbytes']}'"


def check_optional(machine: Machine, name: str) -> Finding:
    """An optional package: absent, or importable and of the version that fits the others."""
    fitting, report = OPTIONAL[name], machine.probes.get(name)
    if report is None:
        command = "pip install 'lean-align[gpu]'" if machine.has_nvidia else None
        used = "trainings" if name == "unsloth" else "rollouts and evaluation"
        return Finding(name, "ok", f"not installed; optional: on a card {used} take it by themselves", fitting, command)
    if report.error is not None:
        return Finding(
            name,
            "fail",
            f"does not import: {report.error}",
            f"{fitting}; `{_WHOLE_ERROR} {name}` shows the whole error",
            _fix_import(name, report.error),
        )
    version = report.values["version"]
    if version is not None and version.partition("+")[0] != fitting:
        return Finding(name, "warn", version, f"{fitting}, which fits the others", f"pip install '{name}=={fitting}'")
    return Finding(name, "ok", version or "imports, version unknown", fitting)


def _fix_import(name: str, error: str) -> str:
    if error.startswith("ModuleNotFoundError"):  # of its own requirements
        return "pip install 'lean-align[gpu]'"
    return f"pip install --force-reinstall --no-deps '{name}=={OPTIONAL[name]}'"


def check_hub(machine: Machine) -> Finding:
    """Whether recipes get their model and data: from the hub, or without it from the cache."""
    report = machine.probes["hub"]
    endpoint, offline = report.values.get("endpoint", "the hub"), report.values.get("offline", False)
    fault = report.error or report.values.get("fault")
    if machine.reaches_hub:
        return Finding("hub", "ok", f"{endpoint} answers")
    got = "offline (HF_HUB_OFFLINE is set)" if offline else f"{endpoint} does not answer: {fault}"
    missing = machine.missing_sources
    stops = tuple(recipe for recipe, sources in missing.items() if sources)
    if not stops:
        command = None if offline else "export HF_HUB_OFFLINE=1"
        return Finding("hub", "ok" if offline else "warn", f"{got}; all is in the cache", "no waiting for it", command)
    on_cpu = [recipe for recipe in machine.on_cpu if recipe in stops]
    recipe = MAIN_RECIPE if MAIN_RECIPE in stops and (machine.cards or not on_cpu) else (on_cpu or stops)[0]
    got = f"{got}; not in the cache: {', '.join(dict.fromkeys(s for recipe in stops for s in missing[recipe]))}"
    expected = "a connection" + (" (unset HF_HUB_OFFLINE)" if offline else "") + ", or local paths"
    return Finding("hub", "fail", got, expected, local_paths(recipe), stops)


def local_paths(recipe: str) -> str:
    """Commands that fetch a recipe's model and data elsewhere, and run it from local paths here."""
    model, data = shipped()[recipe].model.name, shipped()[recipe].data
    # the layout of a data set on the hub: a folder a configuration, a file a split
    train, test = (
        f"./data/{data.config}/{split}-00000-of-00001.parquet" for split in (data.train_split, data.test_split)
    )
    return "\n".join(
        [
            f"hf download {model} --local-dir model  # where there is a connection; then bring the folder here",
            f"hf download {data.train_path} --repo-type dataset --local-dir data  # likewise",
            f"lean-align run {recipe} --set model.name=./model --set data.train_path={train} "
            f"--set data.test_path={test}",
        ]
    )
