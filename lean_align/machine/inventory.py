"""The facts of a machine: what it has, what is installed, and what its probes say."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from packaging.requirements import Requirement  # transformers, accelerate, datasets and matplotlib all bring it
from packaging.utils import canonicalize_name

from lean_align.machine.plan_records import TOO_MANY_HOURS, Plan
from lean_align.machine.probes import Report, hub_sources, run_probe, shipped
from lean_align.processors import processors
from lean_align.progress import say

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
    "scipy": "1.17.1",
    "torch": "2.13.0",
    "tqdm": "4.70.1",
    "transformers": "5.17.0",
    "trl": "1.14.2",
}
"""Versions that the tests run with: those of requirements/cpu.txt, which the wheel lacks; a test keeps them equal."""
OPTIONAL = {"unsloth": "2026.10.9", "vllm": "0.32.0"}
"""Packages of the extra `gpu`, and the versions that fit the tested ones."""
_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Card:
    """A card that torch sees."""

    name: str
    total_bytes: int
    free_bytes: int
    capability: tuple[int, int]


@dataclass(frozen=True)
class Disk:
    """Where a folder lies, or would lie; `device` is equal for folders that share their free bytes."""

    folder: str
    free_bytes: int
    device: int


@dataclass(frozen=True)
class Machine:
    """Facts of a machine.

    Attributes
    ----------
    python : str
        Version.
    cpus : int
        Cores that this process may use.
    memory_bytes, available_bytes : int or None
        RAM, or the limit that was put on this process; None where the system does not say.
    driver : str or None
        Version of NVIDIA's driver.
    nvidia_devices : int
        NVIDIA's display devices on the bus, with or without a driver.
    visible_devices : str or None
        CUDA_VISIBLE_DEVICES.
    versions : mapping of str to str or None
        Installed packages; None where one is missing.
    ranges : mapping of str to str
        Supported versions, as declared by this installation of lean-align; empty where it is not installed.
    disk : Disk
        Of the current folder.
    cache : Disk or None
        Of the hub's cache; None where it could not be found out.
    probes : mapping of str to Report
        By name; `unsloth` and `vllm` only where they are installed.
    """

    python: str
    cpus: int
    memory_bytes: int | None
    available_bytes: int | None
    driver: str | None
    nvidia_devices: int
    visible_devices: str | None
    versions: Mapping[str, str | None]
    ranges: Mapping[str, str]
    disk: Disk
    cache: Disk | None
    probes: Mapping[str, Report]

    @property
    def has_nvidia(self) -> bool:
        """Whether an NVIDIA card is in the machine, usable or not."""
        return self.driver is not None or self.nvidia_devices > 0

    @property
    def cards(self) -> tuple[Card, ...]:
        """The cards that torch sees."""
        return tuple(
            Card(c["name"], c["total_bytes"], c["free_bytes"], (c["capability"][0], c["capability"][1]))
            for c in self.probes["torch"].values.get("cards", ())
        )

    @cached_property
    def plans(self) -> dict[str, Plan]:
        """What a plan says about each shipped recipe here; a recipe that could not be planned is left out."""
        found = self.probes["plan"].values.get("plans", {})
        return {name: Plan.from_json(plan) for name, plan in found.items()}

    @property
    def on_cpu(self) -> tuple[str, ...]:
        """Recipes whose runs finish without a card; none where a card is seen."""
        return tuple(name for name, p in self.plans.items() if p.device == "cpu" and p.hours <= TOO_MANY_HOURS)

    @property
    def for_cards(self) -> tuple[str, ...]:
        """Recipes that need a card, where this machine has none."""
        return tuple(name for name in shipped() if name not in self.on_cpu)

    @property
    def reaches_hub(self) -> bool:
        """Whether the hub is allowed and answers."""
        report = self.probes["hub"]
        return report.error is None and not report.values.get("offline") and report.values.get("fault") is None

    @property
    def missing_sources(self) -> dict[str, list[str]]:
        """What each recipe takes from the hub and is not in the cache; all of it where the cache could not be read."""
        missing = self.probes["cache"].values.get("missing")
        return {n: list(hub_sources(r)) for n, r in shipped().items()} if missing is None else dict(missing)

    def best_of(self, recipes: tuple[str, ...]) -> str | None:
        """The recipe with the largest model of those that get their model and data here."""
        names = [name for name in recipes if self.reaches_hub or not self.missing_sources[name]]
        return max(names, key=lambda name: self.plans[name].weight_bytes, default=None)


def supported_ranges() -> dict[str, str]:
    """Package and range of versions, from the installed metadata of lean-align; empty where it is not installed."""
    try:
        declared = [Requirement(text) for text in requires("lean-align") or ()]
    except PackageNotFoundError:
        return {}
    needed = [r for r in declared if r.marker is None or r.marker.evaluate({"extra": ""})]
    return {canonicalize_name(requirement.name): str(requirement.specifier) for requirement in needed}


def read_machine() -> Machine:
    """Facts of this machine; a minute on 2 cores, most of it in child processes."""
    probes = _run_probes()
    folder = probes["cache"].values.get("folder")
    memory, available = memory_bytes()
    return Machine(
        python=platform.python_version(),
        cpus=processors(),
        memory_bytes=memory,
        available_bytes=available,
        driver=driver_version(),
        nvidia_devices=nvidia_devices(),
        visible_devices=os.environ.get("CUDA_VISIBLE_DEVICES"),
        versions={name: _version(name) for name in ("lean-align", *TESTED)},
        ranges=supported_ranges(),
        disk=disk_of(Path.cwd()),
        cache=None if folder is None else disk_of(Path(folder)),
        probes=probes,
    )


def _run_probes() -> dict[str, Report]:
    """Every probe in turn; Unsloth and vLLM only where they are installed."""
    reports = {}
    for name in ("torch", "bitsandbytes", *filter(is_installed, OPTIONAL), "cache", "plan", "hub"):
        say(f"doctor: {name}")
        environment = {} if name == "hub" else {"HF_HUB_OFFLINE": "1"}  # no probe but hub's goes to the network
        reports[name] = run_probe(name, environment)
    return reports


def is_installed(module: str) -> bool:
    """Whether there is a module to import; a mere folder of that name, such as a clone, does not count."""
    spec = importlib.util.find_spec(module)
    return spec is not None and spec.origin is not None


def memory_bytes() -> tuple[int | None, int | None]:
    """RAM and what of it is available; where a container has a limit, the limit and what is left of it."""
    if not _MEMINFO.exists():
        return None, None
    fields = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
    total, available = (int(fields[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
    limit = _read(_CGROUP / "memory.max")
    if not limit.isdigit() or int(limit) >= total:
        return total, available
    stat = dict(line.split() for line in _read(_CGROUP / "memory.stat").splitlines())
    used = int(_read(_CGROUP / "memory.current") or 0) - int(stat.get("inactive_file", 0))  # that cache gives way
    return int(limit), max(0, min(available, int(limit) - used))


def driver_version() -> str | None:
    """Version of NVIDIA's driver as nvidia-smi says it; None without a working driver."""
    if shutil.which("nvidia-smi") is None:
        return None
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return next((line.strip() for line in done.stdout.splitlines() if line[:1].isdigit()), None)  # or [N/A]


def nvidia_devices() -> int:
    """NVIDIA's display devices on the PCI bus."""
    return sum(_read(d / "vendor") == _NVIDIA and _read(d / "class").startswith(_DISPLAY) for d in _PCI.glob("*"))


def disk_of(folder: Path) -> Disk:
    """The disk on which a folder lies, or will lie once it is made."""
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    return Disk(str(folder), shutil.disk_usage(there).free, there.stat().st_dev)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
