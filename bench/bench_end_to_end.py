"""From sampled completions to a filled store of projected gradients: ours, a loop in the manner of LESS, and bergson.

All load the same model folder, adapter and completions, in bfloat16; loading is not counted. Each measurement is a
fresh process, in turn. `pairwise_cosine_gap` and `norm_ratio` compare a way's rows with ours: projections differ, so a
gap near 1 / sqrt(proj_dim) and a ratio near 1 say that the same gradients were taken. The last row compares the
unprojected gradient of one prompt in float32.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from bench import peers
from bench.cases import Case, demo_case, real_case, real_or_demo
from bench.child import in_child
from bench.measure import Row, Settings, Timing, attempt, cosine, failure, pairwise_cosines, ratio
from bench.passes import ours, unprojected
from lean_align.gradients import advantages
from lean_align.store import open_store

Way = Callable[[Path], Row]


def measure(settings: Settings) -> Iterator[Row]:
    case, reason = (demo_case(2), None) if settings.size != "full" else real_or_demo(16)
    if reason:
        yield {"case": "smollm2", "note": reason}
    yield peers.version_row()
    proj_dim = settings.pick(64, 1024, 8192)
    with tempfile.TemporaryDirectory() as folder:
        groups = _write_groups(case, Path(folder))
        options = {"dtype": "bfloat16", "proj_dim": proj_dim, "temperature": case.recipe.rollouts.temperature}
        timings = {"ours": Timing(), "LESS-style loop with trak": Timing(), "bergson GradientCollector": Timing()}
        own = {"case": case.name, "n_prompts": len(case.prompts), "dtype": "bfloat16", "proj_dim": proj_dim}
        ways: list[Way] = [
            lambda out: in_child("bench_end_to_end:ours_child", **own, out=str(out)),
            lambda out: _theirs("less_loop:run", case, groups, out, options),
            lambda out: _theirs("bergson_loop:run", case, groups, out, options),
        ]
        for _ in range(settings.times(1, 3)):
            for (name, timing), way in zip(timings.items(), ways):
                (out := Path(folder) / name).mkdir(exist_ok=True)
                _take(timing, way, out)
        for name, timing in timings.items():
            row = {"case": case.name, "prompts": len(case.prompts), "proj_dim": proj_dim, "way": name}
            row |= timing.columns(prompts=len(case.prompts)) | {"times_ours": ratio(timing, timings["ours"])}
            if timing.seconds:  # one that failed keeps its own reason
                row = attempt(row, lambda n=name: _against(Path(folder) / n, Path(folder) / "ours"))
            yield row
        yield attempt({"way": "one prompt in float32, unprojected"}, lambda: _agreement(case, groups, options, folder))


def _take(timing: Timing, way: Way, out: Path) -> None:
    if timing.failure:
        return
    try:
        found = way(out)
    except Exception as error:
        timing.failure = failure(error)
    else:
        timing.seconds.append(found["seconds"])
        timing.peak_vram_bytes = found.get("peak_vram_bytes")


def ours_child(case: str, n_prompts: int, dtype: str, proj_dim: int, out: str) -> Row:
    """Our stage in a process of its own; leaves rows.npy with the norms put back."""
    from bench.less_loop import vram

    found = _find(case, n_prompts)
    groups, policy = found.groups(), found.policy("none", dtype)
    folder = tempfile.mkdtemp(dir=out)
    start = time.perf_counter()
    settings = replace(found.recipe.gradients, proj_dim=proj_dim)
    ours(policy, groups, found.recipe.rollouts.temperature, settings, Path(folder))
    seconds = time.perf_counter() - start
    store = open_store(folder)
    np.save(f"{out}/rows.npy", np.asarray(store.rows, np.float32) * np.asarray(store.norms)[:, None])
    return {"seconds": seconds} | vram()


def _find(name: str, n_prompts: int) -> Case:
    return demo_case(n_prompts) if name == "demo" else real_case(n_prompts)


def _write_groups(case: Case, folder: Path) -> Path:
    encoder = case.policy().encoder
    groups = [
        {
            "prompt": encoder.encode(group.prompt),
            "completions": [list(completion.token_ids) for completion in group.completions],
            "advantages": advantages(group.rewards).tolist(),
        }
        for group in case.groups()
    ]
    path = folder / "groups.json"
    path.write_text(json.dumps(groups))
    return path


def _theirs(target: str, case: Case, groups: Path, out: Path, options: Row) -> Row:
    from lean_align.policy import model_path

    model = model_path(case.recipe.model.name)
    places = {"model": model, "adapter": str(case.adapter), "groups": str(groups), "out": str(out)}
    return in_child(target, interpreter=peers.python(), **places, **options)


def _against(theirs: Path, ours_folder: Path) -> Row:
    a, b = (np.load(folder / "rows.npy") for folder in (theirs, ours_folder))
    return {
        "pairwise_cosine_gap": float(abs(pairwise_cosines(a) - pairwise_cosines(b)).mean()),
        "norm_ratio": float(np.median(np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))),
    }


def _agreement(case: Case, groups: Path, options: Row, folder: str) -> Row:
    one = Path(folder) / "one.json"
    one.write_text(json.dumps(json.loads(groups.read_text())[:1]))
    _theirs("less_loop:run", case, one, Path(folder), options | {"dtype": "float32", "proj_dim": 64})
    policy, temperature = case.policy("none", "float32"), case.recipe.rollouts.temperature
    mine = unprojected(policy, case.groups()[:1], temperature, case.recipe.gradients)[0]
    found = cosine(mine, np.load(f"{folder}/first.npy"))
    return {"prompts": 1, "cosine": found, "note": "expected above 0.999: " + ("yes" if found > 0.999 else "NO")}
