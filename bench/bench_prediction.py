"""Predicted rollouts, from runs that drew all completions: tokens against change in the choice.

`python -m bench prediction` takes the demo; `python -m bench.bench_prediction RUN_DIR...` prints the same table of any
run up to its gradients. A first share of the prompts is sampled, then those that are likeliest to be chosen, in rounds,
up to the budget or until the choice is settled. `covered` is the share of the run's best prompts that is sampled,
`overlap` the share that is chosen; `expected missing` is how many of them the last forecast expected among the prompts
that were not sampled. Means over draws of the first share.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bench.fixed_runs import demo_run, fixed_run
from bench.measure import Row, Settings
from bench.prediction import prediction_effect
from bench.table import of_runs
from lean_align.prediction import standardised
from lean_align.recipe import Recipe
from lean_align.signals import prompt_states
from lean_align.stages.inputs import POOL, sampling_policy

SHARES = ((0.1, 0.3), (0.1, 0.4), (0.15, 0.3), (0.15, 0.4), (0.2, 0.4), (0.15, 0.5), (0.15, 0.6))
DRAWS = 5


def measure(settings: Settings) -> Iterator[Row]:
    yield from rows_of(demo_run(), settings.pick(SHARES[3:4], SHARES, SHARES), settings.pick(1, DRAWS, DRAWS))


def rows_of(run_dir: Path, shares: tuple[tuple[float, float], ...] = SHARES, draws: int = DRAWS) -> Iterator[Row]:
    """A row for each first share and budget."""
    run = fixed_run(run_dir)
    features, rows = states_of(run.recipe, run_dir), run.store.rows
    for pair in shares:
        each = (
            prediction_effect(features, rows, run.rewards, run.n_tokens, pair, run.most, seed) for seed in range(draws)
        )
        effects = [asdict(effect) for effect in each]
        means = {key: float(np.mean([effect[key] for effect in effects])) for key in effects[0]}
        whole = {key: round(means[key]) for key in ("n_prompts", "top_n")}
        yield {"share": pair[0], "budget_share": pair[1], **means, **whole}


def states_of(recipe: Recipe, run_dir: Path) -> NDArray[np.float32]:
    """Standardised mean states of a run's prompts, which a run with all completions has not taken."""
    prompts = POOL.prompts(run_dir)
    found = dict(prompt_states(sampling_policy(recipe, run_dir), prompts, token_budget=recipe.gradients.token_budget))
    states = np.array([found[place] for place in range(len(prompts))])
    return standardised(states[:, states.shape[1] // 2 :])


if __name__ == "__main__":
    print(of_runs(rows_of, sys.argv[1:]))
