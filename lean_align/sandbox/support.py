"""What this machine offers for the walls.  There is no weaker sandbox to fall back on."""

from __future__ import annotations

import ctypes
import os
import platform
import sys
from functools import lru_cache

from lean_align.sandbox.outcome import SandboxError, SandboxSupport
from lean_align.sandbox.system_calls import ARCHITECTURES

_CREATE_RULESET, _ASK_VERSION = 444, 1
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_ASK_ACTION, _KILL_PROCESS = 2, 0x80000000


@lru_cache
def sandbox_support() -> SandboxSupport:
    """Ask the kernel; nothing is restricted and no process is started.

    Returns
    -------
    SandboxSupport
        `available` is False, with `missing`, where code cannot be run.
    """
    system, architecture = platform.system(), platform.machine()
    known = system == "Linux" and architecture in ARCHITECTURES and sys.maxsize > 2**32
    abi = _landlock_abi() if known else 0
    seccomp = known and _has_seccomp(architecture)
    missing = []
    if not known:
        missing.append(f"Linux on {' or '.join(ARCHITECTURES)}, 64 bit, is needed; this is {system} on {architecture}")
    if known and not abi:
        missing.append("the kernel has no Landlock (Linux 5.13, CONFIG_SECURITY_LANDLOCK, and `landlock` among `lsm=`)")
    if known and not seccomp:
        missing.append("the kernel, or the container, allows no seccomp filter")
    if not sys.executable:
        missing.append("sys.executable is empty, so no other interpreter can be started")
    return SandboxSupport(system, architecture, abi, seccomp, tuple(missing))


def require_sandbox() -> SandboxSupport:
    """The support, or an error that says what is missing.

    Raises
    ------
    SandboxError
    """
    support = sandbox_support()
    if not support.available:
        raise SandboxError(
            f"model-written code cannot be run safely here: {'; '.join(support.missing)}. "
            "Leave the code benchmarks out of evaluation.benchmarks, or run them on a machine that has it"
        )
    return support


def _landlock_abi() -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(ctypes.c_long(_CREATE_RULESET), None, ctypes.c_size_t(0), ctypes.c_uint(_ASK_VERSION))
    return max(int(version), 0)


def _has_seccomp(architecture: str) -> bool:
    libc = ctypes.CDLL(None, use_errno=True)
    action = ctypes.c_uint32(_KILL_PROCESS)
    number = ctypes.c_long(_SECCOMP[architecture])
    asked = libc.syscall(number, ctypes.c_uint(_ASK_ACTION), ctypes.c_uint(0), ctypes.byref(action))
    return int(asked) == 0 and hasattr(os, "memfd_create") and hasattr(os, "pidfd_open")
