"""Driver, build of torch, card, its memory and its arithmetic."""

from __future__ import annotations

from lean_align.machine.findings import MAIN_RECIPE, Finding, Machine
from lean_align.machine.needs import NEEDS, recipes_that, runs_on_cpu, shipped
from lean_align.machine.software import TESTED
from lean_align.memory import human_bytes

OLDEST_DRIVER = {12: 525, 13: 580}
"""By CUDA's major version: https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html"""
BFLOAT16_CAPABILITY = (8, 0)
"""Cards before it emulate bfloat16: torch says that they support it."""
_LOWERED = (
    "rollouts.batch_size",
    "gradients.token_budget",
    "warmup.micro_batch",
    "training.micro_batch",
    "evaluation.batch_size",
)


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
        return Finding("driver", "fail", "an NVIDIA card and no driver", expected, install, _recipes_on_cards())
    if machine.driver is None:
        return Finding("driver", "ok", "none, and no NVIDIA card")
    if int(machine.driver.split(".")[0]) < needed:
        return Finding("driver", "fail", machine.driver, f"{needed} or newer", install, _recipes_on_cards())
    return Finding("driver", "ok", machine.driver)


def check_torch_build(machine: Machine) -> Finding:
    """Whether torch imports, and is a CUDA build where there is an NVIDIA card."""
    report = machine.probes["torch"]
    if report.error is not None:
        command = f"pip install --force-reinstall 'torch=={TESTED['torch']}'"
        return Finding("CUDA", "fail", report.error, "torch to import", command, recipes_that(lambda *_: True))
    version, cuda = report.values["version"], report.values["cuda"]
    got = f"torch {version}, CUDA {cuda}" if cuda else f"torch {version}, built without CUDA"
    if machine.has_nvidia and cuda is None and not machine.cards:
        command = f"pip uninstall -y torch && pip install 'torch=={TESTED['torch']}'"
        return Finding("CUDA", "fail", got, "a build with CUDA", command, _recipes_on_cards())
    return Finding("CUDA", "ok", got)


def check_card(machine: Machine) -> Finding:
    """The first card that torch sees: the one that is used."""
    card = machine.cards[0]
    major, minor = card.capability
    more = f"; the first of {len(machine.cards)}" if len(machine.cards) > 1 else ""
    return Finding("card", "ok", f"{card.name}, compute capability {major}.{minor}{more}")


def check_no_card(machine: Machine, cause: str | None) -> Finding:
    """Why torch sees no card; `cause` is the command of a finding that explains it."""
    stops, expected = _recipes_on_cards(), "a card that torch sees"
    if not machine.has_nvidia:
        on_cpu = runs_on_cpu(machine)
        expected = f"a CUDA card with 24 GB; without one: {', '.join(on_cpu)}"
        return Finding("card", "fail", "none", expected, f"lean-align run {on_cpu[-1]}", stops)
    fault = machine.probes["torch"].values.get("fault") or ""
    if cause is None and machine.visible_devices is not None and "No CUDA GPUs" in fault:
        got = f"none, with CUDA_VISIBLE_DEVICES={machine.visible_devices!r}"
        return Finding("card", "fail", got, expected, "unset CUDA_VISIBLE_DEVICES", stops)
    got = f"torch sees none: {fault}" if fault else "torch sees none"
    return Finding("card", "fail", got, expected, cause or "nvidia-smi  # what the driver says; then reboot", stops)


def check_card_memory(machine: Machine) -> Finding:
    """Memory of the card against the recipe as shipped, with the settings for less."""
    card, needs = machine.cards[0], NEEDS[MAIN_RECIPE]
    got = f"{human_bytes(card.total_bytes)}, {human_bytes(card.free_bytes)} free"
    wanted = f"{human_bytes(needs.card_bytes)} for {MAIN_RECIPE} as shipped"
    if card.total_bytes < needs.card_floor_bytes:
        expected = f"{wanted}, {human_bytes(needs.card_floor_bytes)} with lower settings"
        return Finding(
            "card memory", "fail", got, expected, f"lean-align run {runs_on_cpu(machine)[-1]}", _recipes_on_cards()
        )
    if card.total_bytes < needs.card_bytes:
        return Finding("card memory", "warn", got, f"{wanted}; lower settings for less", lowered(card.total_bytes))
    if card.free_bytes < needs.card_bytes:
        command = "nvidia-smi  # the processes that hold the rest: end them"
        return Finding("card memory", "warn", got, f"{wanted}, free", command)
    return Finding("card memory", "ok", got, wanted)


def lowered(card_bytes: int) -> str:
    """The main recipe's command with its batches divided by the power of two that the card is too small."""
    divisor = 1
    while card_bytes * divisor < NEEDS[MAIN_RECIPE].card_bytes:
        divisor *= 2
    settings = []
    for key in _LOWERED:
        section, field = key.split(".")
        value = getattr(getattr(shipped()[MAIN_RECIPE], section), field)
        settings.append(f"--set {key}={max(1, value // divisor)}")
    return " ".join([f"lean-align run {MAIN_RECIPE}", *settings])


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


def _recipes_on_cards() -> tuple[str, ...]:
    return recipes_that(lambda needs, _: needs.card_bytes > 0)
