"""Sequential allocation of completions, from a run that drew them all: tokens saved against change in the choice.

`python -m bench allocation` takes the demo; `python -m bench.bench_allocation RUN_DIR...` prints the same table of any
run up to its gradients. Every row takes the first completions of the same run: prompts whose `first` rewards are equal
stop there. `lost` prompts were learnable, going by all their completions. `overlap` is the share of the run's best
prompts that unbiased estimates choose too, `overlap plug in` that of V = p (1 - p) from what was drawn, which the lost
prompts alone change. As many are chosen as the recipe says, at most the learnable ones, and then a quarter of that.

The other rows hold no measurement: the root mean square error of both estimates of V = p (1 - p), exact over every
outcome of 8 completions and p uniform in (0, 1). Shares are s f / (n (n - 1)) of the n completions drawn.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from itertools import product
from math import comb
from pathlib import Path

from bench.allocation import allocation_effect
from bench.fixed_runs import demo_run, fixed_run
from bench.measure import Row, Settings
from bench.table import of_runs
from lean_align.scoring import exact_estimates

FIRST = (2, 3, 4, 5, 6)


def measure(settings: Settings) -> Iterator[Row]:
    yield from rows_of(demo_run(), settings.pick(FIRST[:1], FIRST, FIRST))
    yield from error_rows()


def rows_of(run_dir: Path, firsts: tuple[int, ...] = FIRST) -> Iterator[Row]:
    """A row for each size of the choice and number of first completions."""
    run = fixed_run(run_dir)
    for top_n, first in product(dict.fromkeys((run.most, max(1, run.most // 4))), firsts):
        effect = allocation_effect(run.rewards, run.n_tokens, first, run.store, top_n)
        yield {
            "first": first,
            "total": effect.total,
            "n_prompts": effect.n_prompts,
            "stopped": effect.n_stopped,
            "lost": effect.n_lost,
            "completions_saved": effect.completions_saved,
            "share_of_tokens_saved": effect.share_saved,
            "top_n": top_n,
            "overlap": effect.overlap,
            "overlap_plug_in": effect.overlap_plug_in,
        }


def error_rows(total: int = 8) -> Iterator[Row]:
    """Completions drawn and errors of the estimates of V, in the mean over p."""
    for first in (*FIRST, total):
        table, means = exact_estimates(first, total), dict.fromkeys(("n", "unbiased", "shares", "bias"), 0.0)
        for outcome in product((0, 1), repeat=total):
            n = first if len(set(outcome[:first])) == 1 else total
            s, right = sum(outcome[:n]), sum(outcome)
            chance, by_v, by_v_squared = (_beta(right + k, total - right + k) for k in (0, 1, 2))
            shares, unbiased = s * (n - s) / (n * (n - 1)), float(table[s, n - s][1])
            means["n"] += n * chance
            means["bias"] += shares * chance - by_v
            for name, v in (("unbiased", unbiased), ("shares", shares)):
                means[name] += v**2 * chance - 2 * v * by_v + by_v_squared
        yield {
            "first": first,
            "total": total,
            "completions": means["n"],
            "rmse_unbiased": means["unbiased"] ** 0.5,
            "rmse_shares": means["shares"] ** 0.5,
            "bias_shares": means["bias"],
        }


def _beta(a: int, b: int) -> float:
    """Integral of p^a (1 - p)^b over (0, 1)."""
    return 1 / ((a + b + 1) * comb(a + b, a))


if __name__ == "__main__":
    print(of_runs(rows_of, sys.argv[1:]))
