"""A function run in a fresh process, so that its memory is its own; watched, and killed before memory runs out.

`python -m bench.child MODULE:FUNCTION JSON` prints the function's result as JSON on its last line.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from threading import Event, Thread
from typing import Any

from lean_align.memory import human_bytes, peak_rss_bytes, process_environment, return_freed_blocks

CAP_BYTES = 20 * 2**30
ROOT = Path(__file__).parent.parent


class ChildError(Exception):
    """The child ended without a result; the message is the reason."""


def in_child(
    target: str,
    interpreter: Path | str = sys.executable,
    cap_bytes: int = CAP_BYTES,
    timeout: float = 7200,
    **arguments: Any,
) -> dict[str, Any]:
    """Result of bench.MODULE:FUNCTION in a fresh process, in this environment or in another one.

    Raises ChildError when it fails, takes longer than `timeout` seconds or more than `cap_bytes` of memory.
    """
    command = [str(interpreter), "-m", "bench.child", target, json.dumps(arguments)]
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        environment = process_environment(os.environ)  # as in a stage's process
        process = subprocess.Popen(command, stdout=output, stderr=errors, cwd=ROOT, env=environment)
        reason = _watch(process, cap_bytes, timeout)
        output.seek(0), errors.seek(0)
        if reason or process.returncode:
            last = (errors.read().strip() or f"exit status {process.returncode}").splitlines()[-1]
            raise ChildError(reason or last)
        found: dict[str, Any] = json.loads(output.read().splitlines()[-1])
        return found


def _watch(process: subprocess.Popen[bytes], cap_bytes: int, timeout: float) -> str | None:
    deadline = time.monotonic() + timeout
    reason = None
    while process.poll() is None:
        if status_bytes("VmRSS", process.pid) > cap_bytes:
            reason = f"out of memory: passed {human_bytes(cap_bytes)} and was ended"
        elif time.monotonic() > deadline:
            reason = f"took longer than {timeout:.0f} s and was ended"
        if reason:
            process.kill()
            process.wait()
        time.sleep(0.02)
    return reason


def status_bytes(field: str, pid: int | str = "self") -> int:
    """A size from /proc/PID/status: VmRSS (resident), RssAnon (resident, not of files), VmHWM (peak); 0 without it."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(field + ":")), 0)


@contextmanager
def added_memory() -> Iterator[dict[str, int]]:
    """Peak of what the block adds to the resident set: in all, and without mapped files; bytes on a card too.

    Linux: the first is the kernel's own high-water mark, set back at the start; the second is sampled every 2 ms.
    """
    gc.collect()
    return_freed_blocks()  # of loading, before the block begins
    Path("/proc/self/clear_refs").write_text("5")  # VmHWM counts from here
    before, anonymous = status_bytes("VmRSS"), status_bytes("RssAnon")
    highest, done = [anonymous], Event()

    def sample() -> None:
        while not done.wait(0.002):
            highest[0] = max(highest[0], status_bytes("RssAnon"))

    sampler = Thread(target=sample, daemon=True)
    sampler.start()
    found = {"before_bytes": before}
    torch = sys.modules.get("torch")
    card = torch is not None and torch.cuda.is_available()
    if card:
        torch.cuda.reset_peak_memory_stats()
        found["before_vram_bytes"] = torch.cuda.memory_allocated()
    yield found
    done.set()
    sampler.join()
    found |= {"added_bytes": peak_rss_bytes() - before, "added_anonymous_bytes": highest[0] - anonymous}
    if card:
        found["peak_vram_bytes"] = torch.cuda.max_memory_allocated()


if __name__ == "__main__":
    module, function = sys.argv[1].split(":")
    result = getattr(import_module(f"bench.{module}"), function)(**json.loads(sys.argv[2]))
    print(json.dumps(result))
