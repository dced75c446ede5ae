"""Packages against the supported ranges and against the versions that the tests run with.

A range is what the installed metadata of lean-align declares (outside: fail).  The tested versions are those of
requirements/cpu.txt, which is not in the wheel; a test keeps `TESTED` equal to it (another version: warn).
`packaging` is no dependency of ours by name: transformers, accelerate, datasets and matplotlib all bring it.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, requires

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lean_align.machine.findings import Finding, Machine
from lean_align.machine.needs import recipes_that

TESTED = {
    "accelerate": "1.15.0",
    "bitsandbytes": "0.50.2",
    "click": "8.5.1",
    "datasets": "4.8.5",
    "datasketch": "2.0.0",
    "jinja2": "3.1.6",
    "math-verify": "0.9.0",
    "matplotlib": "3.11.2",
    "numpy": "2.4.6",
    "peft": "0.21.2",
    "pyarrow": "26.0.1",
    "pyyaml": "6.0.3",
    "safetensors": "0.8.0",
    "torch": "2.13.0",
    "tqdm": "4.70.1",
    "transformers": "5.17.0",
    "trl": "1.14.2",
}
OPTIONAL = {"unsloth": "2026.10.9", "vllm": "0.32.0"}
"""Packages of the extra `gpu`, and the versions that fit the tested ones."""
_FOUR_BIT = ("torch", "transformers", "accelerate", "peft", "bitsandbytes")
_WHOLE_ERROR = "python -m lean_align.machine.probes"


def supported_ranges() -> dict[str, str]:
    """Package and range of versions, from the installed metadata of lean-align; empty where it is not installed."""
    try:
        declared = [Requirement(text) for text in requires("lean-align") or ()]
    except PackageNotFoundError:
        return {}
    needed = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in needed}


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
        return Finding(name, "fail", "not installed", f"{tested}", command, recipes_that(lambda *_: True))
    if not SpecifierSet(supported).contains(version, prereleases=True):
        return Finding(name, "fail", version, f"{supported}", command, recipes_that(lambda *_: True))
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
            _mend_four_bit(machine, report.error),
            recipes_that(lambda _, recipe: recipe.model.quantization == "nf4"),
        )
    return Finding(
        "4-bit backward", "ok", f"gradients of {report.values['matrices']} LoRA matrices on {report.values['device']}"
    )


def _mend_four_bit(machine: Machine, error: str) -> str:
    """The command for a package that is at fault by its version; else of the card's memory, or of bitsandbytes."""
    for name in _FOUR_BIT:
        package = check_package(machine, name)
        if package.status == "fail" and package.command:
            return package.command
    if "out of memory" in error:
        return "nvidia-smi  # the processes that hold the card: end them"
    return f"pip install --force-reinstall --no-deps 'bitsandbytes=={TESTED['bitsandbytes']}'"


def check_optional(machine: Machine, name: str) -> Finding:
    """An optional package: absent, or importable and of the version that fits the others."""
    fitting, report = OPTIONAL[name], machine.probes.get(name)
    if report is None:
        command = "pip install 'lean-align[gpu]'" if machine.has_nvidia else None
        return Finding(name, "ok", "not installed; optional: on a card it makes a run faster", fitting, command)
    if report.error is not None:
        return Finding(
            name,
            "fail",
            f"does not import: {report.error}",
            f"{fitting}; `{_WHOLE_ERROR} {name}` shows the whole error",
            _mend_import(name, report.error),
        )
    version = report.values["version"]
    if version is not None and version.partition("+")[0] != fitting:
        return Finding(name, "warn", version, f"{fitting}, which fits the others", f"pip install '{name}=={fitting}'")
    return Finding(name, "ok", version or "imports, version unknown", fitting)


def _mend_import(name: str, error: str) -> str:
    if error.startswith("ModuleNotFoundError"):  # of its own requirements
        return "pip install 'lean-align[gpu]'"
    return f"pip install --force-reinstall --no-deps '{name}=={OPTIONAL[name]}'"
