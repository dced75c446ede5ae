"""What this machine can do, and the command that fixes what it cannot.

1. `read_machine` reads facts; what may crash or hang (torch, a 4-bit backward, Unsloth, vLLM, the plans, the hub) runs
   in a child process with a time limit (`probes`), so that even a crash is a fact.
2. `examine` compares the facts with what the plans of the shipped recipes need, and reads nothing itself.
"""

from __future__ import annotations

from lean_align.machine.findings import Diagnosis
from lean_align.machine.hardware import card_findings, check_cpus, check_memory, check_plans, disk_findings
from lean_align.machine.inventory import OPTIONAL, TESTED, Machine, read_machine
from lean_align.machine.probes import shipped
from lean_align.machine.software import (
    check_four_bit,
    check_hub,
    check_lean_align,
    check_optional,
    check_package,
    check_python,
)


def diagnose() -> Diagnosis:
    """Read this machine and examine it."""
    return examine(read_machine())


def examine(machine: Machine) -> Diagnosis:
    """Compare facts with what the shipped recipes take; reads nothing else of the machine.

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
        check_plans(machine),
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
