"""Python, cores, memory and disks."""

from __future__ import annotations

from lean_align.machine.findings import MAIN_RECIPE, Disk, Finding, Machine
from lean_align.machine.needs import NEEDS, missing_sources, recipes_that, shipped
from lean_align.memory import human_bytes

OLDEST_PYTHON, NEWEST_TESTED_PYTHON = (3, 11), (3, 13)
TESTED_CPUS = 2
_OTHER_RUN_DIR = f"df -h; lean-align run {MAIN_RECIPE} --run-dir /OTHER/DISK/{MAIN_RECIPE}"
_OTHER_CACHE = "df -h; export HF_HOME=/OTHER/DISK/huggingface"


def check_python(machine: Machine) -> Finding:
    """Version of Python."""
    version = tuple(int(part) for part in machine.python.split(".")[:2])
    command = "python3.13 -m venv .venv && .venv/bin/pip install ."
    if version < OLDEST_PYTHON:
        return Finding("Python", "fail", machine.python, "3.11 or later", command, recipes_that(lambda *_: True))
    if version > NEWEST_TESTED_PYTHON:
        return Finding("Python", "warn", machine.python, "3.11 to 3.13, the tested versions", command)
    return Finding("Python", "ok", machine.python)


def check_cpus(machine: Machine) -> Finding:
    """Cores; fewer than the tested number only take longer, and no command adds any."""
    if machine.cpus < TESTED_CPUS:
        return Finding(
            "CPU cores", "warn", str(machine.cpus), f"{TESTED_CPUS}, as the times in the README; it is slower"
        )
    return Finding("CPU cores", "ok", str(machine.cpus))


def check_memory(machine: Machine) -> Finding:
    """RAM: what there is, then what of it other programs hold."""
    total, available = machine.memory_bytes, machine.available_bytes
    needed = {name: needs.memory_bytes for name, needs in NEEDS.items()}
    expected = ", ".join(f"{human_bytes(size)} for {name}" for name, size in needed.items())
    if total is None or available is None:
        return Finding("memory", "warn", "unknown", expected)
    got = f"{human_bytes(total)}, {human_bytes(available)} available"
    short = recipes_that(lambda needs, _: needs.memory_bytes > total)
    if short:
        able = next((name for name in needed if name not in short), None)
        command = f"lean-align run {able}" if able else "free -h  # a machine, or a container's limit, with more"
        return Finding("memory", "fail", got, expected, command, short)
    if available < max(needed.values()):
        command = "ps -eo rss,pid,comm --sort=-rss | head  # the processes that hold the rest: end them"
        return Finding("memory", "warn", got, f"{expected}, available", command)
    return Finding("memory", "ok", got, expected)


def disk_findings(machine: Machine) -> tuple[Finding, ...]:
    """The run folder's disk and the disk of the hub's cache; where it is one, it needs the bytes of both."""
    if machine.cache is None:
        return (check_disk("disk", machine.disk, _needed(machine, True, True), _OTHER_RUN_DIR),)
    shared = machine.cache.device == machine.disk.device
    return (
        check_disk("disk", machine.disk, _needed(machine, True, shared), _OTHER_RUN_DIR),
        check_disk("hub cache", machine.cache, _needed(machine, shared, True), _OTHER_CACHE),
    )


def check_disk(name: str, disk: Disk, needed: dict[str, int], command: str) -> Finding:
    """Free bytes of a disk against what each recipe needs there."""
    got = f"{human_bytes(disk.free_bytes)} free at {disk.folder}"
    short = tuple(recipe for recipe, size in needed.items() if size > disk.free_bytes)
    expected = ", ".join(f"{human_bytes(size)} for {recipe}" for recipe, size in needed.items() if size)
    return Finding(name, "fail" if short else "ok", got, expected, command if short else None, short)


def _needed(machine: Machine, run: bool, download: bool) -> dict[str, int]:
    """Bytes a recipe; a download only where the cache lacks the model."""
    missing = missing_sources(machine)
    fetched = {name: download and shipped()[name].model.name in missing[name] for name in NEEDS}
    return {name: run * needs.run_bytes + fetched[name] * needs.download_bytes for name, needs in NEEDS.items()}
