"""`lean-align run demo` from nothing: seconds and peak memory of each stage, from its manifests.

A quick measurement ends with the selection; a full one trains and evaluates too.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.cases import ROOT
from bench.measure import Row, Settings, spread


def measure(settings: Settings) -> Iterator[Row]:
    found: dict[str, list[Row]] = {}
    for _ in range(settings.times(1, 3)):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "lean_align", "run", "demo", "--run-dir", folder + "/run"]
            command += [] if settings.size == "full" else ["--stop-after", settings.pick("data", "select", "")]
            done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
            if done.returncode:
                raise RuntimeError(done.stderr.strip().splitlines()[-1])
            for path in Path(folder).glob("run/**/manifest.json"):
                stage = str(path.parent.relative_to(Path(folder) / "run"))
                found.setdefault(stage, []).append(json.loads(path.read_text()))
    yield {"stage": "all", "seconds": spread(map(sum, zip(*(_values(m, "wall_seconds") for m in found.values()))))}
    for stage, manifests in sorted(found.items(), key=lambda item: -_values(item[1], "wall_seconds")[0]):
        row: Row = {"stage": stage, "seconds": spread(_values(manifests, "wall_seconds"))}
        for key in ("peak_rss_bytes", "peak_vram_bytes"):
            row |= {key: spread(values)} if (values := _values(manifests, key)) else {}
        yield row


def _values(manifests: list[Row], key: str) -> list[float]:
    return [manifest[key] for manifest in manifests if manifest.get(key) is not None]
