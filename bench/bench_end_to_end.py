"""`lean-align run demo` from nothing: seconds and peak memory of each stage, from its manifests."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from bench.measure import spread

RUNS = 1


def measure() -> list[dict[str, Any]]:
    seconds: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    for _ in range(RUNS):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lean_align", "run", "demo", "--run-dir", folder + "/run"]
            subprocess.run(command, check=True, capture_output=True)
            for manifest in Path(folder).glob("run/*/manifest.json"):
                found = json.loads(manifest.read_text())
                seconds.setdefault(manifest.parent.name, []).append(found["wall_seconds"])
                peaks.setdefault(manifest.parent.name, []).append(found["peak_rss_bytes"])
    return [
        {
            "what": f"demo, {stage}",
            "repeats": RUNS,
            "ours_seconds": spread(values),
            "note": f"peak {max(peaks[stage]) / 2**20:.0f} MiB",
        }
        for stage, values in sorted(seconds.items(), key=lambda item: -item[1][0])
    ]
