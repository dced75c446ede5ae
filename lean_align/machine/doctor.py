"""Every check, in the order in which a reader wants them."""

from __future__ import annotations

from lean_align.machine.findings import Diagnosis, Machine
from lean_align.machine.hardware import card_findings
from lean_align.machine.host import check_cpus, check_memory, check_python, disk_findings
from lean_align.machine.inventory import read_machine
from lean_align.machine.needs import shipped
from lean_align.machine.network import check_hub
from lean_align.machine.software import (
    OPTIONAL,
    TESTED,
    check_four_bit,
    check_lean_align,
    check_optional,
    check_package,
)


def diagnose() -> Diagnosis:
    """Read this machine and examine it."""
    return examine(read_machine())


def examine(machine: Machine) -> Diagnosis:
    """Compare facts with what the shipped recipes need; reads nothing else of the machine.

    Parameters
    ----------
    machine : Machine

    Returns
    -------
    Diagnosis
        `can_run["gsm8k"]` decides the exit status of `lean-align doctor`.
    """
    findings = (
        check_python(machine),
        check_cpus(machine),
        check_memory(machine),
        *card_findings(machine),
        check_lean_align(machine),
        *(check_package(machine, name) for name in TESTED),
        check_four_bit(machine),
        *(check_optional(machine, name) for name in OPTIONAL),
        *disk_findings(machine),
        check_hub(machine),
    )
    return Diagnosis(findings, tuple(shipped()))
