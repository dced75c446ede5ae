"""`lean-align run demo` from scratch: seconds and peak memory of each stage, from its manifests.

A quick measurement ends with the selection; a full one trains and evaluates too.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator

from bench.cases import demo_folder, run_recipe
from bench.measure import Row, Settings, spread


def measure(settings: Settings) -> Iterator[Row]:
    found: dict[str, list[Row]] = {}
    for _ in range(settings.times(1, 3)):
        folder = demo_folder()  # left there: other benches take its rollouts
        shutil.rmtree(folder, ignore_errors=True)
        run_recipe("demo", folder, settings.pick("data", "select", None))
        for path in folder.glob("**/manifest.json"):
            found.setdefault(str(path.parent.relative_to(folder)), []).append(json.loads(path.read_text()))
    yield {"stage": "all", "seconds": spread(map(sum, zip(*(_values(m, "wall_seconds") for m in found.values()))))}
    for stage, manifests in sorted(found.items(), key=lambda item: -_values(item[1], "wall_seconds")[0]):
        row: Row = {"stage": stage, "seconds": spread(_values(manifests, "wall_seconds"))}
        for key in ("peak_rss_bytes", "peak_vram_bytes"):
            row |= {key: spread(values)} if (values := _values(manifests, key)) else {}
        yield row


def _values(manifests: list[Row], key: str) -> list[float]:
    return [manifest[key] for manifest in manifests if manifest.get(key) is not None]
