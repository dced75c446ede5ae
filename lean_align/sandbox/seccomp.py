"""The filter of system calls, as the bytes of a classic BPF program.

It is a list of what is allowed: a call that a later kernel adds is refused without anyone having to hear of it.

- Another architecture's calls, x32 among them: the process is killed.
- A call of the list, with arguments of the list where it has some: allowed.
- Any other: EPERM, or ENOSYS from `FIRST_NEW_CALL` on.

Source: linux/seccomp.h, linux/filter.h; offsets are those of struct seccomp_data on a little-endian machine.
"""

from __future__ import annotations

import errno
import struct
from functools import lru_cache

from lean_align.sandbox.system_calls import AUDIT_ARCH, FIRST_NEW_CALL, allowed_calls, checked_calls

_LOAD, _AND, _RETURN = 0x20, 0x54, 0x06
_IF_EQUAL, _IF_AT_LEAST = 0x15, 0x35
_NUMBER, _ARCHITECTURE = 0, 4
_KILL, _ERRNO, _ALLOW = 0x80000000, 0x00050000, 0x7FFF0000
_X32 = 0x40000000

_ACCESS_MODE, _O_TRUNC = 0o3, 0o1000
_FCNTL = {"F_DUPFD": 0, "F_GETFD": 1, "F_SETFD": 2, "F_GETFL": 3, "F_DUPFD_CLOEXEC": 1030}
"""Not F_SETOWN and F_SETFL: with O_ASYNC they have the kernel send a signal to any process of the same user."""
_IOCTL = {"TCGETS": 0x5401, "FIONCLEX": 0x5450, "FIOCLEX": 0x5451}


def _instruction(code: int, value: int, if_true: int = 0, if_false: int = 0) -> bytes:
    return struct.pack("<HBBI", code, if_true, if_false, value)


def _load_argument(index: int, upper: bool = False) -> bytes:
    return _instruction(_LOAD, 16 + 8 * index + 4 * upper)


def _return_if(value: int, verdict: int) -> bytes:
    return _instruction(_IF_EQUAL, value, 0, 1) + _instruction(_RETURN, verdict)


def _refuse() -> bytes:
    return _instruction(_RETURN, _ERRNO | errno.EPERM)


def _one_of(index: int, values: dict[str, int]) -> bytes:
    """The kernel reads these arguments as 32 bits, so the upper half does not matter."""
    return _load_argument(index) + b"".join(_return_if(value, _ALLOW) for value in values.values()) + _refuse()


def _no_truncation_of_what_is_read(index: int) -> bytes:
    """O_RDONLY | O_TRUNC empties a file, and Landlock before ABI 3 takes it for reading; so does access mode 3."""
    masked = _load_argument(index) + _instruction(_AND, _ACCESS_MODE | _O_TRUNC)
    refused = _ERRNO | errno.EPERM
    modes = _return_if(_O_TRUNC, refused) + _return_if(_O_TRUNC | 0o3, refused)
    return masked + modes + _instruction(_RETURN, _ALLOW)


def _own_limits_read() -> bytes:
    """Process 0, the caller, and no new limits: a null pointer, of 64 bits."""
    tests = b""
    for load in (_load_argument(0), _load_argument(2), _load_argument(2, upper=True)):
        tests += load + _instruction(_IF_EQUAL, 0, 1, 0) + _refuse()
    return tests + _instruction(_RETURN, _ALLOW)


def _checks() -> dict[str, bytes]:
    return {
        "open": _no_truncation_of_what_is_read(1),
        "openat": _no_truncation_of_what_is_read(2),
        "fcntl": _one_of(1, _FCNTL),
        "ioctl": _one_of(1, _IOCTL),
        "prlimit64": _own_limits_read(),
    }


@lru_cache
def filter_program(architecture: str, left_out: frozenset[str] = frozenset()) -> bytes:
    """Instructions of the filter, 8 bytes each.

    Parameters
    ----------
    architecture : {"x86_64", "aarch64"}
    left_out : frozenset of {"processes", "network", "signals"}
        Walls to leave out.  Only for tests, which show that it is the wall that stops an attack.
    """
    program = _instruction(_LOAD, _ARCHITECTURE) + _instruction(_IF_EQUAL, AUDIT_ARCH[architecture], 1, 0)
    program += _instruction(_RETURN, _KILL) + _instruction(_LOAD, _NUMBER)
    program += _instruction(_IF_AT_LEAST, _X32, 0, 1) + _instruction(_RETURN, _KILL)
    for number in allowed_calls(architecture, left_out).values():
        program += _return_if(number, _ALLOW)
    for name, number in checked_calls(architecture).items():
        check = _checks()[name]
        program += _instruction(_IF_EQUAL, number, 0, len(check) // 8) + check
    program += _instruction(_IF_AT_LEAST, FIRST_NEW_CALL, 0, 1) + _instruction(_RETURN, _ERRNO | errno.ENOSYS)
    return program + _refuse()
