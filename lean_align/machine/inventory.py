"""Read the facts of this machine."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lean_align.machine.children import run_probe
from lean_align.machine.findings import Disk, Machine, Report
from lean_align.machine.software import OPTIONAL, TESTED, supported_ranges
from lean_align.processors import processors
from lean_align.progress import say

_PCI = Path("/sys/bus/pci/devices")
_NVIDIA, _DISPLAY = "0x10de", "0x03"
_MEMINFO, _CGROUP = Path("/proc/meminfo"), Path("/sys/fs/cgroup")


def read_machine() -> Machine:
    """Facts of this machine; half a minute on 2 cores, most of it in child processes."""
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
    for name in ("torch", "bitsandbytes", *filter(is_installed, OPTIONAL), "cache", "hub"):
        say(f"doctor: {name}")
        environment = {} if name == "hub" else {"HF_HUB_OFFLINE": "1"}  # no probe but hub's goes to the network
        reports[name] = run_probe(name, environment)
    return reports


def is_installed(module: str) -> bool:
    """Whether there is a module to import; a mere folder of that name, such as a clone, is none."""
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
    """Version of NVIDIA's driver as nvidia-smi says it; None without a driver that works."""
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
