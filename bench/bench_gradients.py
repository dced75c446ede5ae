"""The gradient stage against the passes it is made of, and against the naive way.

`ours`: prompt_gradients with the sjlt projector, and the store. `bare`: the same forward and backward passes, nothing
else. `naive`: prompt and completion padded, 8 in one batch, logits of all positions. Completions are sampled from the
model; their rewards are planted, 0 and 1 in turn, so that every group has a gradient. Tokens are those of completions.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.cases import Case, real_or_demo
from bench.measure import Row, Settings, failed_rows, in_turn, ratio
from bench.passes import bare, completion_tokens, naive, ours
from lean_align.gradients import GradientSettings

PROJ_DIM = 8192
TARGETS = {("ours", "bare"): "at most 1.10", ("naive", "ours"): "at least 1.6"}


def measure(settings: Settings) -> Iterator[Row]:
    case, reason = real_or_demo(settings.pick(1, 2, 16), settings.pick(16, 100, 100))
    if reason:
        yield {"case": "smollm2", "note": reason}
    for quantization in ("none", "nf4"):
        columns = {"case": case.name, "base": "NF4" if quantization == "nf4" else "bfloat16"}
        for row in failed_rows(_base(case, quantization, settings), "gradients"):
            yield columns | row


def _base(case: Case, quantization: str, settings: Settings) -> Iterator[Row]:
    groups = case.groups()
    if quantization == "nf4":  # fewer prompts, except in full
        groups = groups[: settings.pick(1, 1, 16)]
    policy, temperature = case.policy(quantization, "bfloat16"), case.recipe.rollouts.temperature
    how = GradientSettings.of(case.recipe)

    def whole() -> None:
        with tempfile.TemporaryDirectory() as folder:
            ours(policy, groups, how, PROJ_DIM, Path(folder))

    ways = {
        "ours": whole,
        "bare": lambda: bare(policy, groups, how),
        "naive": lambda: naive(policy, groups, temperature),
    }
    bare(policy, groups[:1], how)
    timings = in_turn(ways, settings.times(2, 5), warm_up=False)
    for way, timing in timings.items():
        yield {"prompts": len(groups), "way": way} | timing.columns(tokens=completion_tokens(groups))
    for (above, below), target in TARGETS.items():
        times = ratio(timings[above], timings[below])
        yield {"prompts": len(groups), "way": f"{above} / {below}", "ratio": times, "target": target}
