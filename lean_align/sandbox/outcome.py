"""Limits of a child process, its outcome, and what the kernel offers."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args

from lean_align.errors import LeanAlignError

Outcome: TypeAlias = Literal["value", "error", "no value", "cpu", "timeout", "memory", "output", "files", "killed"]
OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class SandboxError(LeanAlignError, RuntimeError):
    """The sandbox could not be put up, or was asked for something it cannot do; no code ran."""


@dataclass(frozen=True)
class Limits:
    """What a child process may use.

    Attributes
    ----------
    cpu_seconds : int, at least 1
        Processor time, the interpreter's start of about 0.02 s included; the kernel ends the child at it, or one second
        later where the code ignores the signal.
    wall_seconds : float
        The parent kills at it.  Longer than `cpu_seconds`, so that a busy machine does not change an outcome.
    memory_bytes : int
        Address space (RLIMIT_AS).  The interpreter alone takes about 30 MB of it.
    file_bytes : int
        Size of a file, and of all files together.  At 0 nothing can be written but the standard streams.
    files : int
        Number of files in the throw-away folder.
    output_bytes : int
        Bytes of each of: standard output, standard error, and the value on its way back.
    open_files : int
        File descriptors (RLIMIT_NOFILE); the interpreter needs about 10.

    Raises
    ------
    SandboxError
        For a limit below its smallest useful value.
    """

    cpu_seconds: int = 4
    wall_seconds: float = 12.0
    memory_bytes: int = 512 * 2**20
    file_bytes: int = 0
    files: int = 64
    output_bytes: int = 64 * 2**10
    open_files: int = 32

    def __post_init__(self) -> None:
        for field in fields(self):
            got = getattr(self, field.name)
            if got < 0 or (got == 0 and field.name != "file_bytes"):
                raise SandboxError(f"Limits.{field.name} is {got}; expected more than 0")
        if not isinstance(self.cpu_seconds, int):
            raise SandboxError(f"Limits.cpu_seconds is {self.cpu_seconds}; expected an int: the kernel counts seconds")


@dataclass(frozen=True)
class SandboxResult:
    """The outcome of code run in a child process.

    Attributes
    ----------
    outcome : str
        The first of these that is true:

        - "timeout", "output", "files": the parent killed it at `wall_seconds`, `output_bytes`, `file_bytes` or `files`
        - "cpu": it used up `cpu_seconds`
        - "memory": it met MemoryError and did not catch it
        - "killed": another signal ended it, such as SIGSEGV after a very deep recursion
        - "error": it raised, or its text is no Python; for a script, any exit status but 0
        - "no value": it ended without a result, or with one that is not a literal, or not a single one
        - "value": there is a value
    value : object
        Of None, bool, int, float (inf and nan too), complex, str, bytes, range, and list, tuple, set and dict of
        these, of these very types.  A script's value is what it printed.  None for every other outcome.
    message : str
        Why there is no value, at most 500 characters.  May hold text that the untrusted code chose.
    stdout : str
        What was printed, up to `output_bytes`.
    returncode : int or None
        Exit status, or minus the number of a signal; None where no child was needed.
    wall_seconds : float
    cpu_seconds : float
    peak_rss_bytes : int or None
        None where it is not above this process's own peak: the kernel lets a child begin with its parent's.
    """

    outcome: Outcome
    value: Any = None
    message: str = ""
    stdout: str = ""
    returncode: int | None = None
    wall_seconds: float = 0.0
    cpu_seconds: float = 0.0
    peak_rss_bytes: int | None = None


@dataclass(frozen=True)
class SandboxSupport:
    """What this machine offers for the walls.

    `landlock_abi` is 0 where the kernel has no Landlock.  `missing` says what stands in the way, one sentence each.
    """

    system: str
    architecture: str
    landlock_abi: int
    seccomp: bool
    missing: tuple[str, ...]

    @property
    def available(self) -> bool:
        """Whether code can be run."""
        return not self.missing
