"""From sampled completions to a filled store of projected gradients: ours, a loop in the manner of LESS, and bergson.

All load the same model folder, adapter and completions, in bfloat16; loading is not counted. Each measurement is a
fresh process, in turn. LESS takes as many prompts as its loop projects at once, so that trak makes its signs once;
bergson (`projection_target` global, a batch is the 8 completions of a prompt) makes them for every prompt, minutes
each, and takes fewer. `pairwise_cosine_gap` and `norm_ratio` compare a way's rows with ours: projections differ, so a
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
from lean_align.gradients import GradientSettings, advantages
from lean_align.store import open_store

Way = Callable[[Path], Row]


def measure(settings: Settings) -> Iterator[Row]:
    case, reason = (demo_case(16), None) if settings.size != "full" else real_or_demo(16)
    if reason:
        yield {"case": "smollm2", "note": reason}
    yield peers.version_row()
    with tempfile.TemporaryDirectory() as folder:
        for name, target, prompts in (
            ("LESS-style loop with trak", "less_loop:run", settings.pick(2, 16, 16)),
            ("bergson GradientCollector", "bergson_loop:run", settings.pick(1, 2, 1)),
        ):
            few = replace(case, prompts=case.prompts[:prompts])
            yield from _compare(few, name, target, Path(folder) / name, settings)
        options = _options(case, settings)
        yield attempt({"way": "one prompt in float32, unprojected"}, lambda: _agreement(case, options, Path(folder)))


def _options(case: Case, settings: Settings) -> Row:
    proj_dim = settings.pick(64, 8192, 8192)
    return {"dtype": "bfloat16", "proj_dim": proj_dim, "temperature": case.recipe.rollouts.temperature}


def _compare(case: Case, name: str, target: str, folder: Path, settings: Settings) -> Iterator[Row]:
    """Ours and one other way in turn, on the same prompts."""
    options = _options(case, settings)
    own = {"case": case.name, "n_prompts": len(case.prompts)} | {key: options[key] for key in ("dtype", "proj_dim")}
    folder.mkdir()
    groups = _write_groups(case, folder)
    ways: dict[str, Way] = {
        "ours": lambda out: in_child("bench_end_to_end:ours_child", **own, out=str(out)),
        name: lambda out: _theirs(target, case, groups, out, options),
    }
    timings = {way: Timing() for way in ways}
    for _ in range(settings.times(1, 3)):
        for way, work in ways.items():
            (folder / way).mkdir(exist_ok=True)
            _take(timings[way], work, folder / way)
    for way, timing in timings.items():
        row = {"case": case.name, "prompts": len(case.prompts), "proj_dim": options["proj_dim"], "way": way}
        row |= timing.columns(prompts=len(case.prompts)) | {"times_ours": ratio(timing, timings["ours"])}
        if timing.seconds:  # one that failed keeps its own reason
            row = attempt(row, lambda way=way: _against(folder / way, folder / "ours"))
        yield row


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
    ours(policy, groups, GradientSettings.of(found.recipe), proj_dim, Path(folder))
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
    gaps = abs(pairwise_cosines(a) - pairwise_cosines(b))
    return {
        "pairwise_cosine_gap": float(gaps.mean()) if len(gaps) else None,
        "norm_ratio": float(np.median(np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1))),
    }


def _agreement(case: Case, options: Row, folder: Path) -> Row:
    case = replace(case, prompts=case.prompts[:1])
    one = _write_groups(case, folder)
    _theirs("less_loop:run", case, one, folder, options | {"dtype": "float32", "proj_dim": 64})
    mine = unprojected(case.policy("none", "float32"), case.groups(), GradientSettings.of(case.recipe))[0]
    found = cosine(mine, np.load(f"{folder}/first.npy"))
    return {"prompts": 1, "cosine": found, "note": "expected above 0.999: " + ("yes" if found > 0.999 else "NO")}
