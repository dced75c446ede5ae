"""The child process: it puts up its own walls, says so, and only then runs what it was given.

Started as `python -c <this file>`, so it imports nothing of ours.  The walls arrive as bytes (`seccomp`, `landlock`)
and are put up here, in a fresh process of one thread, where nothing of the parent's state can be in the way.

The report is one text: READY, then nothing, or one letter of REPORTS with its text.  Before READY no foreign code has
run, so that text is trusted; what follows it is worth what the code that ran is worth.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
from collections.abc import Callable
from typing import Any, NoReturn

READY = "R"
REPORTS: dict[str, Any] = {"V": "value", "E": "error", "M": "memory", "N": "no value"}
MESSAGE_CHARS = 500
MAX_DEPTH = 100
"""Nesting of a value beyond which we do not take it for a literal."""
MAX_INT_BITS = 14_000
"""Beyond about 4300 digits Python refuses to print an int, so such a value would raise in whoever logs it."""

_SET_DEATH_SIGNAL, _SET_DUMPABLE, _SET_SECCOMP, _DROP_FROM_BOUNDS, _SET_NO_NEW_PRIVILEGES = 1, 4, 22, 24, 38
_FILTER_MODE = 2
_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF, _PATH_BENEATH = 444, 445, 446, 1
_CAPABILITY_VERSION = 0x20080522
_CAPABILITIES = 64


class NoLiteral(Exception):
    """A value that cannot be written as a literal."""


def literal_text(value: Any, depth: int = 0) -> str:
    """The value as ASCII text that `literals.parse_literal` reads back; exact types only."""
    kind = type(value)
    if depth > MAX_DEPTH:
        raise NoLiteral(f"a value nested more than {MAX_DEPTH} deep")
    if kind is int and value.bit_length() > MAX_INT_BITS:
        raise NoLiteral(f"an int of more than {MAX_INT_BITS} bits")
    if value is None or kind in (bool, int, float, complex, str, bytes):
        return ascii(value)
    if kind is range and abs(value.stop - value.start) > sys.maxsize:
        raise NoLiteral("a range whose length Python cannot count")
    if kind is range:
        return "range" + literal_text((value.start, value.stop, value.step))
    if kind is dict:
        pairs = ((literal_text(k, depth + 1), literal_text(v, depth + 1)) for k, v in value.items())
        return "{" + ", ".join(f"{k}: {v}" for k, v in pairs) + "}"
    if kind not in (list, tuple, set):
        raise NoLiteral(f"a value of type {kind.__name__}")
    inner = "".join(f"{literal_text(item, depth + 1)}, " for item in value)
    if kind is tuple:
        return f"({inner})"
    return f"[{inner}]" if kind is list else f"{{{inner}}}" if inner else "set()"


def is_literal(value: Any) -> bool:
    """Whether `literal_text` can write the value."""
    try:
        return bool(literal_text(value))
    except NoLiteral:
        return False


def _checked(result: int, what: str) -> int:
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def _prctl(option: int, *arguments: Any) -> int:
    words = [argument if isinstance(argument, ctypes.Array) else ctypes.c_ulong(argument) for argument in arguments]
    return int(_libc.prctl(option, *words, *[ctypes.c_ulong(0)] * (4 - len(words))))


def _syscall(number: int, *arguments: Any) -> int:
    words = [ctypes.c_long(argument) if isinstance(argument, int) else argument for argument in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *words))


def _die_with_parent(parent: int) -> None:
    _checked(_prctl(_SET_DEATH_SIGNAL, signal.SIGKILL), "PR_SET_PDEATHSIG")
    if os.getppid() != parent:  # it died before the line above
        os._exit(1)


def _drop_capabilities() -> None:
    for capability in range(_CAPABILITIES):  # EPERM without CAP_SETPCAP, and EINVAL beyond the last: nothing to drop
        _prctl(_DROP_FROM_BOUNDS, capability)
    header, none = struct.pack("<Ii", _CAPABILITY_VERSION, 0), bytes(24)
    _checked(_libc.capset(header, none), "capset")


def _landlock(attribute: bytes, rules: list[tuple[str, int]]) -> None:
    ruleset = _checked(_syscall(_CREATE_RULESET, attribute, len(attribute), 0), "landlock_create_ruleset")
    for path, rights in rules:
        beneath = os.open(path, os.O_PATH | os.O_CLOEXEC)
        rule = struct.pack("<Qi", rights, beneath)
        _checked(_syscall(_ADD_RULE, ruleset, _PATH_BENEATH, rule, 0), f"landlock_add_rule for {path}")
        os.close(beneath)
    _checked(_syscall(_RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def _seccomp(program: bytes) -> None:
    instructions = ctypes.create_string_buffer(program, len(program))
    head = struct.pack("@HP", len(program) // 8, ctypes.addressof(instructions))
    _checked(_prctl(_SET_SECCOMP, _FILTER_MODE, ctypes.create_string_buffer(head, len(head))), "PR_SET_SECCOMP")


def _put_up_walls(walls: dict[str, Any]) -> None:
    _die_with_parent(walls["parent"])
    for name, limits in walls["limits"].items():
        resource.setrlimit(getattr(resource, name), limits)
    _checked(_prctl(_SET_NO_NEW_PRIVILEGES, 1), "PR_SET_NO_NEW_PRIVS")
    _checked(_prctl(_SET_DUMPABLE, 0), "PR_SET_DUMPABLE")
    _drop_capabilities()
    if walls["landlock"]:
        _landlock(walls["landlock"], walls["rules"])
    _seccomp(walls["seccomp"])


def _evaluate(work: dict[str, str]) -> Any:
    """Positional and keyword arguments of the text, caught by a function that returns them."""
    scope: dict[str, Any] = {"__name__": "benchmark"}
    exec(compile(work["context"], "<function>", "exec"), scope)
    scope[work["name"]] = lambda *args, **kwargs: (args, kwargs)
    return eval(compile(work["source"], "<arguments>", "eval"), scope)


def _call(work: dict[str, str]) -> Any:
    scope: dict[str, Any] = {"__name__": "benchmark"}
    exec(compile(work["source"], "<function>", "exec"), scope)
    args, kwargs = eval(work["arguments"], {"inf": float("inf"), "nan": float("nan")})  # the parent wrote this text
    return scope[work["name"]](*args, **kwargs)


def _outcome(job: Callable[[dict[str, str]], Any], work: dict[str, str]) -> tuple[str, str]:
    try:
        return "V", literal_text(job(work))
    except MemoryError:
        return "M", "MemoryError"
    except NoLiteral as error:
        return "N", f"{error} cannot come back: only literals can"
    except BaseException as error:  # SystemExit too: code that leaves has no value
        return "E", describe(error)


def describe(error: BaseException) -> str:
    """Type and text; the text is the code's own, and reading it can fail."""
    try:
        return f"{type(error).__name__}: {error}"[:MESSAGE_CHARS]
    except BaseException:
        return "an error whose text cannot be read"


def _run_script(work: dict[str, str], report: int) -> None:
    """As Python runs a file: exit status and traceback are the interpreter's."""
    scope = {"__name__": "__main__", "__builtins__": __builtins__}
    try:
        exec(compile(work["source"], "<script>", "exec"), scope)
    except MemoryError:
        scope.clear()
        os.write(report, b"MMemoryError")
        raise


def _report_and_leave(report: int, text: str) -> NoReturn:
    data = text.encode("ascii", "backslashreplace")
    while data:
        data = data[os.write(report, data) :]
    sys.stdout.flush()
    os._exit(0)


def main() -> None:
    """Read the request, put up the walls, say so, run."""
    request, report = int(sys.argv[1]), int(sys.argv[2])
    with open(request, encoding="ascii") as file:
        wanted = eval(file.read())  # written by the parent with repr
    sys.argv[:] = ["<sandbox>"]
    os.environ.clear()
    try:
        _put_up_walls(wanted["walls"])
    except OSError as error:
        _report_and_leave(report, str(error))
    os.write(report, READY.encode())
    work = wanted["work"]
    if work["kind"] == "script":
        return _run_script(work, report)
    letter, text = _outcome(_evaluate if work["kind"] == "arguments" else _call, work)
    _report_and_leave(report, letter + text)


if __name__ == "__main__":
    _libc = ctypes.CDLL(None, use_errno=True)
    main()
