"""What this machine can do, and the command that mends what it cannot.

1. `read_machine` reads facts; what may crash or hang (torch, a 4-bit backward, Unsloth, vLLM, the hub) runs in a
   child process with a time limit (`probes`), so that its end is a fact as well.
2. `examine` compares the facts with what the shipped recipes need, and reads nothing itself.
"""

from lean_align.doctor.examine import diagnose, examine
from lean_align.doctor.facts import read_machine
from lean_align.doctor.records import MAIN_RECIPE, Card, Diagnosis, Disk, Finding, Machine, Report

__all__ = [
    "MAIN_RECIPE",
    "Card",
    "Diagnosis",
    "Disk",
    "Finding",
    "Machine",
    "Report",
    "diagnose",
    "examine",
    "read_machine",
]
