"""Peak memory of this process in bytes, what keeps it low, and what an out-of-memory error says."""

from __future__ import annotations

import ctypes
import gc
import os
import re
import resource
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from lean_align.errors import OutOfMemoryError

T = TypeVar("T")

_STATUS, _MEMINFO = Path("/proc/self/status"), Path("/proc/meminfo")
_MAPPINGS, _MADV_DONTNEED = Path("/proc/self/smaps"), 4
_MAPPING = re.compile(r"([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+ *(.*)")
_TUNABLES, _KEPT_APART = "GLIBC_TUNABLES", ("glibc.malloc.tcache_count", "glibc.malloc.mxfast")
_WAITING = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
_UNITS = {"bytes": 1, "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40, "PiB": 2**50}
_ASKED = re.compile(r"(?:tried to|unable to) allocate ([\d.]+) (bytes|[KMGTP]iB)", re.IGNORECASE)
_FREE = re.compile(r"of which ([\d.]+) (bytes|[KMGTP]iB) is free")
# what loading a library, starting a thread or C++ says when the address space is used up
_NO_ROOM = ("failed to map segment", "cannot allocate memory", "can't start new thread", "bad_alloc", "pthread_create")
_PHRASES = ("can't allocate memory", "not enough memory", "CUDA out of memory")


@dataclass(frozen=True)
class Shortage:
    """An allocation that failed: bytes asked for, and bytes that were free; None where unknown."""

    needed_bytes: int | None
    free_bytes: int | None

    def __str__(self) -> str:
        needed, free = ("unknown" if n is None else human_bytes(n) for n in (self.needed_bytes, self.free_bytes))
        return f"{needed} more needed, {free} free"


@dataclass(frozen=True)
class Halving:
    """A piece of work that did not fit, and the setting that was lowered for it and for everything after it."""

    work: str
    key: str
    value: int
    shortage: Shortage


def shortage_of(error: BaseException) -> Shortage | None:
    """What an out-of-memory error of torch, NumPy or Python says; None for any other error."""
    if not _says_shortage(error):
        return None
    text = str(error)
    free = _bytes_in(_FREE, text)
    return Shortage(_bytes_in(_ASKED, text), _available_bytes() if free is None and "CUDA" not in text else free)


def _says_shortage(error: BaseException) -> bool:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return isinstance(error, RuntimeError) and any(phrase in str(error) for phrase in _PHRASES)


def within_memory(work: Callable[[], T]) -> T | Shortage:
    """What some work returns, or what was lacking when it ran out of memory; other errors are raised.

    A caller can release memory then: the error, which holds the tensors of the work, is gone.
    """
    try:
        return work()
    except (RuntimeError, MemoryError) as error:
        shortage = shortage_of(error)
        if shortage is None:
            raise
        return shortage


def out_of_memory(error: BaseException | None) -> OutOfMemoryError | None:
    """The sentence for an error that means that memory, or the address space, ran out; None for any other error."""
    limit, seen = address_space_limit(), error
    while seen is not None:
        if isinstance(seen, OutOfMemoryError):
            return seen
        if limit is not None and isinstance(seen, SystemError):  # of a library that forgot to say what it lacked
            break
        if _says_shortage(seen) or any(phrase in str(seen).lower() for phrase in _NO_ROOM):
            break
        seen = seen.__cause__ or seen.__context__
    else:
        return None
    if limit is not None:  # what is free tells nothing then, and reading it takes memory
        said = str(seen) or type(seen).__name__
        advice = f"The address space is limited to {human_bytes(limit)} (ulimit -v): raise the limit"
    else:
        said, advice = str(shortage_of(seen) or seen), "End other programs or take smaller pieces"
    return OutOfMemoryError(
        f"out of memory: {said}. What was finished before is kept. {advice}, then run the same command again."
    )


def address_space_limit() -> int | None:
    """Bytes of address space that this process may have; None without a limit."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    return None if limit == resource.RLIM_INFINITY else limit


def process_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment that our processes run in: `allocator_environment`, and threads that wait without spinning.

    By default a thread of OpenMP that has nothing to do spins for a while.  Beside any other work each loop then waits
    for a thread that the system has taken off its core.  The small operations of the embedded model are the worst
    case: 4 to 6 times slower beside one busy process, for 2.4 times faster on two cores of its own (docs/results.md).
    Which thread adds what does not change, and so no result.

    Parameters
    ----------
    environment : mapping of str to str
        Where it says how threads are to wait, that is left as it is.
    """
    found = allocator_environment(environment)
    if not any(name in found for name in _WAITING):
        found["OMP_WAIT_POLICY"] = "PASSIVE"
    return found


def allocator_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which glibc's malloc joins every freed block with its neighbours at once.

    By default it keeps small freed blocks apart for later.  Among the tensors of a training step they stay as
    pins, and the next tensors find no hole of their size: peaks up to 1.7 times as large, at no gain in speed
    (docs/results.md).  Read when a process starts.

    Parameters
    ----------
    environment : mapping of str to str
        Tunables that it holds are left as they are.

    Returns
    -------
    dict of str to str
        The same without glibc.
    """
    found = dict(environment)
    if _has_glibc():
        set_already = found.get(_TUNABLES, "")
        missing = [f"{name}=0" for name in _KEPT_APART if f"{name}=" not in set_already]
        if missing:
            found[_TUNABLES] = ":".join([*filter(None, [set_already]), *missing])
    return found


def return_freed_blocks() -> None:
    """Give the pages of freed blocks back to the system, before work whose blocks are far larger; glibc only."""
    if _has_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def forget_mapped_files(ending: str) -> None:
    """Give back the pages of mapped files that were read and not written; they are read again when needed.

    A tensor that still lies in a checkpoint's file keeps the whole file mapped, and with it every page that was read
    to make 4-bit weights.  Linux; elsewhere nothing happens.

    Parameters
    ----------
    ending : str
        Of the files' names.
    """
    if not _MAPPINGS.exists():
        return
    library = ctypes.CDLL(None)
    library.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    for start, stop in _clean_mappings(_MAPPINGS.read_text(), ending):
        library.madvise(start, stop - start, _MADV_DONTNEED)


def _clean_mappings(text: str, ending: str) -> list[tuple[int, int]]:
    """First and last address of the mappings of such files that hold no page of their own, from /proc/PID/smaps."""
    found: list[tuple[int, int]] = []
    here: tuple[int, int] | None = None
    for line in text.splitlines():
        if (header := _MAPPING.match(line)) is not None:
            here = (int(header[1], 16), int(header[2], 16)) if header[3].endswith(ending) else None
        elif here is not None and line.startswith("Anonymous:") and line.split()[1] == "0":
            found.append(here)
    return found


def _has_glibc() -> bool:
    try:
        return (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return False


def release_memory() -> None:
    """Free what nothing refers to any more, on the card too."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()


def _bytes_in(pattern: re.Pattern[str], text: str) -> int | None:
    found = pattern.search(text)
    return None if found is None else int(float(found[1]) * _UNITS[found[2]])


def _available_bytes() -> int | None:
    lines = _MEMINFO.read_text().splitlines() if _MEMINFO.exists() else []
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)


def peak_rss_bytes() -> int:
    """Largest resident set of this process so far, in bytes.

    On Linux `VmHWM` is read: `ru_maxrss` also counts the process that forked this one, so that a
    small stage started by a large parent would report the parent's peak.
    """
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def peak_vram_bytes() -> int | None:
    """Largest allocation on the CUDA device so far, in bytes; None without torch or without a card."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return None
    return int(torch.cuda.max_memory_allocated())


def human_bytes(n: int) -> str:
    """Write a byte count with a binary unit: 1536 -> '1.5 KiB'."""
    size, units = float(n), ["B", "KiB", "MiB", "GiB", "TiB"]
    while size >= 1024 and len(units) > 1:
        size /= 1024
        units.pop(0)
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
