"""Cores, memory, disks, driver and cards, checked against what the plans of the shipped recipes need."""

from __future__ import annotations

from collections.abc import Mapping

from lean_align.machine.findings import MAIN_RECIPE, Finding, Status
from lean_align.machine.inventory import TESTED, Disk, Machine
from lean_align.machine.plan_records import Plan
from lean_align.machine.probes import shipped
from lean_align.memory import human_bytes

TESTED_CPUS = 2
OLDEST_DRIVER = {12: 525, 13: 580}
"""By CUDA's major version: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
BFLOAT16_CAPABILITY = (8, 0)
"""Cards before it emulate bfloat16: torch says that they support it."""
_OTHER_RUN_DIR = f"df -h; lean-align run {MAIN_RECIPE} --run-dir /OTHER/DISK/{MAIN_RECIPE}"
_OTHER_CACHE = "df -h; export HF_HOME=/OTHER/DISK/huggingface"


def check_plans(machine: Machine) -> Finding:
    """Whether it is known what the shipped recipes take."""
    report = machine.probes["plan"]
    faults = [f"none of {name}: {fault}" for name, fault in report.values.get("faults", {}).items()]
    if report.error is not None:
        faults = [f"none: {report.error}"]
    if not faults:
        return Finding("plan", "ok", f"made of {', '.join(machine.plans)}")
    expected = "what each shipped recipe takes; a run works without a plan"
    return Finding("plan", "warn", "; ".join(faults), expected, f"lean-align plan {MAIN_RECIPE}")


def check_cpus(machine: Machine) -> Finding:
    """Cores; fewer than the tested number only take longer, and no command adds any."""
    if machine.cpus < TESTED_CPUS:
        return Finding(
            "CPU cores", "warn", str(machine.cpus), f"{TESTED_CPUS}, as for the times in the README; fewer are slower"
        )
    return Finding("CPU cores", "ok", str(machine.cpus))


def check_memory(machine: Machine) -> Finding:
    """RAM: what there is, then what of it other programs hold."""
    total, available, plans = machine.memory_bytes, machine.available_bytes, machine.plans
    expected = ", ".join(f"{human_bytes(plan.ram_bytes)} for {name}" for name, plan in plans.items())
    if total is None or available is None:
        return Finding("memory", "warn", "unknown", expected or "what a recipe takes")
    got = f"{human_bytes(total)}, {human_bytes(available)} available"
    fits = {name: _fit_in_memory(plan, total) for name, plan in plans.items()}
    if any(fits.values()) or None in fits.values():
        return _finding_on_fit("memory", got, expected, fits, machine)
    if available < max((plan.ram_bytes for plan in plans.values()), default=0):
        command = "ps -eo rss,pid,comm --sort=-rss | head  # the processes that hold the rest: stop them"
        return Finding("memory", "warn", got, f"{expected}, available", command)
    return Finding("memory", "ok", got, expected)


def _fit_in_memory(plan: Plan, total: int) -> str | None:
    """As `Plan.fit`; of a card's plan, and within a container's limit, it is the process that has to fit."""
    if plan.device == "cpu" and total >= plan.limit_bytes:
        return plan.fit
    return "" if plan.ram_bytes <= total else None


def disk_findings(machine: Machine) -> tuple[Finding, ...]:
    """The run folder's disk and the disk of the hub's cache; one disk for both needs the bytes of both."""
    if machine.cache is None:
        return (_check_disk("disk", machine.disk, _needed(machine, True, True), _OTHER_RUN_DIR),)
    shared = machine.cache.device == machine.disk.device
    return (
        _check_disk("disk", machine.disk, _needed(machine, True, shared), _OTHER_RUN_DIR),
        _check_disk("hub cache", machine.cache, _needed(machine, shared, True), _OTHER_CACHE),
    )


def _check_disk(name: str, disk: Disk, needed: Mapping[str, int], command: str) -> Finding:
    """Free bytes of a disk against what each recipe needs there."""
    got = f"{human_bytes(disk.free_bytes)} free at {disk.folder}"
    short = tuple(recipe for recipe, size in needed.items() if size > disk.free_bytes)
    expected = ", ".join(f"{human_bytes(size)} for {recipe}" for recipe, size in needed.items() if size)
    return Finding(name, "fail" if short else "ok", got, expected, command if short else None, short)


def _needed(machine: Machine, run: bool, download: bool) -> dict[str, int]:
    """Bytes per recipe; a download only where the cache lacks the model."""
    missing = machine.missing_sources
    fetched = {name: download and shipped()[name].model.name in missing[name] for name in shipped()}
    return {name: run * plan.disk_bytes + fetched[name] * plan.download_bytes for name, plan in machine.plans.items()}


def card_findings(machine: Machine) -> tuple[Finding, ...]:
    """Every finding on cards; memory and bfloat16 only where torch sees one."""
    driver, build = check_driver(machine), check_torch_build(machine)
    if machine.cards:
        return driver, build, check_card(machine), check_card_memory(machine), check_bfloat16(machine)
    cause = next((finding.command for finding in (driver, build) if finding.status == "fail"), None)
    return driver, build, check_no_card(machine, cause)


def check_driver(machine: Machine) -> Finding:
    """NVIDIA's driver, and whether it is new enough for the CUDA of this torch."""
    needed = OLDEST_DRIVER.get(_cuda_major(machine), 0)
    install = f"sudo apt-get install nvidia-driver-{needed or max(OLDEST_DRIVER.values())}  # on Ubuntu; then reboot"
    if machine.cards:  # it serves, whatever its number
        return Finding("driver", "ok", machine.driver or "its version is unknown")
    if machine.driver is None and machine.nvidia_devices:
        expected = "NVIDIA's driver; a container gets it with --gpus all"
        return Finding("driver", "fail", "an NVIDIA card without a driver", expected, install, machine.for_cards)
    if machine.driver is None:
        return Finding("driver", "ok", "none, and no NVIDIA card")
    if int(machine.driver.split(".")[0]) < needed:
        return Finding("driver", "fail", machine.driver, f"{needed} or newer", install, machine.for_cards)
    return Finding("driver", "ok", machine.driver)


def check_torch_build(machine: Machine) -> Finding:
    """Whether torch imports, and is a CUDA build where there is an NVIDIA card."""
    report = machine.probes["torch"]
    if report.error is not None:
        command = f"pip install --force-reinstall 'torch=={TESTED['torch']}'"
        return Finding("CUDA", "fail", report.error, "torch to import", command, tuple(shipped()))
    version, cuda = report.values["version"], report.values["cuda"]
    got = f"torch {version}, CUDA {cuda}" if cuda else f"torch {version}, built without CUDA"
    if machine.has_nvidia and cuda is None and not machine.cards:
        command = f"pip uninstall -y torch && pip install 'torch=={TESTED['torch']}'"
        return Finding("CUDA", "fail", got, "a build with CUDA", command, machine.for_cards)
    return Finding("CUDA", "ok", got)


def check_card(machine: Machine) -> Finding:
    """The first card that torch sees: the one that is used."""
    card = machine.cards[0]
    major, minor = card.capability
    more = f"; the first of {len(machine.cards)}" if len(machine.cards) > 1 else ""
    return Finding("card", "ok", f"{card.name}, compute capability {major}.{minor}{more}")


def check_no_card(machine: Machine, cause: str | None) -> Finding:
    """Why torch sees no card; `cause` is the command of a finding that explains it."""
    stops, expected = machine.for_cards, "a card that torch sees"
    if not machine.has_nvidia:
        able = machine.best_of(machine.on_cpu) or "demo"
        expected = f"a CUDA card with 24 GB; without one: {able}"
        return Finding("card", "fail", "none", expected, f"lean-align run {able}", stops)
    fault = machine.probes["torch"].values.get("fault") or ""
    if cause is None and machine.visible_devices is not None and "No CUDA GPUs" in fault:
        got = f"none, with CUDA_VISIBLE_DEVICES={machine.visible_devices!r}"
        return Finding("card", "fail", got, expected, "unset CUDA_VISIBLE_DEVICES", stops)
    got = f"torch sees none: {fault}" if fault else "torch sees none"
    return Finding("card", "fail", got, expected, cause or "nvidia-smi  # what the driver says; then reboot", stops)


def check_card_memory(machine: Machine) -> Finding:
    """Memory of the card against what the recipes take there: as shipped, with other settings, or not at all."""
    card, plans = machine.cards[0], machine.plans
    got = f"{human_bytes(card.total_bytes)}, {human_bytes(card.free_bytes)} free"
    main = plans.get(MAIN_RECIPE)
    if main is None:
        return Finding("card memory", "warn", got, f"what {MAIN_RECIPE} takes, which is not known without its plan")
    wanted = f"{human_bytes(main.peak_bytes)} for {MAIN_RECIPE} as shipped"
    if main.fits and card.free_bytes < main.peak_bytes:
        command = "nvidia-smi  # the processes that hold the rest: stop them"
        return Finding("card memory", "warn", got, f"{wanted}, free", command)
    return _finding_on_fit("card memory", got, wanted, {name: plan.fit for name, plan in plans.items()}, machine)


def _finding_on_fit(name: str, got: str, expected: str, fits: Mapping[str, str | None], machine: Machine) -> Finding:
    """What fits as shipped, with the options given, or not at all (None)."""
    stops = tuple(recipe for recipe, options in fits.items() if options is None)
    lowered = {recipe: options for recipe, options in fits.items() if options}
    expected += f"; lower settings for {', '.join(lowered)}" if lowered else ""
    expected += f"; more for {', '.join(stops)}" if stops else ""
    commands = [f"lean-align run {recipe} {options}" for recipe, options in lowered.items()]
    if stops:
        able = machine.best_of(tuple(recipe for recipe, options in fits.items() if options == ""))
        commands.insert(0, f"lean-align run {able}" if able else "free -h  # a machine, or a limit, with more memory")
    status: Status = "fail" if stops else "warn" if lowered else "ok"
    return Finding(name, status, got, expected, "\n".join(commands) or None, stops)


def check_bfloat16(machine: Machine) -> Finding:
    """Whether the card computes in bfloat16, the recipe's type."""
    card = machine.cards[0]
    if card.capability < BFLOAT16_CAPABILITY:
        got = f"emulated: compute capability {card.capability[0]}.{card.capability[1]}"
        command = f"lean-align run {MAIN_RECIPE} --set model.dtype=float32"
        return Finding("bfloat16", "warn", got, "8.0 or higher; float32 may be faster, and takes more memory", command)
    return Finding("bfloat16", "ok", "in the card's hardware")


def _cuda_major(machine: Machine) -> int:
    return int(str(machine.probes["torch"].values.get("cuda") or "0").split(".")[0])
