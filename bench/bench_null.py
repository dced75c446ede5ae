"""How often the paired test rejects at a level of 5 % when both methods are the same.

`python -m bench null` makes up the outcomes. `python -m bench.bench_null RUN_DIR...` takes difficulties and spread from
the measured outcomes of one method, a run folder of a comparison for each seed, say `runs/testbed/seed-*/random@130`.
`spread` is the standard deviation of a training's accuracy. The seed test is the one that `lean-align compare` reports
with several seeds; the problem test, which takes problems as independent, is one that it does not report.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bench.measure import Row, Settings
from bench.simulation import RejectionRate, resampled_null, simulate_null
from bench.table import markdown
from lean_align.compare.facts import read_cell
from lean_align.statistics import problem_p_value, seed_p_value

TESTS = (("seed", seed_p_value, 200), ("seed", seed_p_value, 2000), ("problem", problem_p_value, 200))
SEED_SD = 0.2  # logits: three points of accuracy
PROBLEMS = 400


def measure(settings: Settings) -> Iterator[Row]:
    for n_seeds in settings.pick((8,), (8,), (3, 5, 8)):
        for name, test, repeats in TESTS[: settings.pick(1, 3, 3)]:
            found = simulate_null(n_seeds, PROBLEMS, SEED_SD, repeats, settings.seed, test=test)
            yield _row("made up", n_seeds, PROBLEMS, name, found)


def rows_of(cells: list[Path]) -> Iterator[Row]:
    """The rejection rates of both tests from the outcomes of one method, a run folder for each seed."""
    rewards = [read_cell(cell).rewards for cell in cells]
    outcomes = np.array([[of_seed[problem] for problem in rewards[0]] for of_seed in rewards])
    for name, test, repeats in TESTS:
        found = resampled_null(outcomes, repeats, 0, test=test)
        yield _row(cells[0].name, *outcomes.shape, name, found)


def _row(outcomes: str, n_seeds: int, n_problems: int, test: str, found: RejectionRate) -> Row:
    return {
        "outcomes": outcomes,
        "seeds": n_seeds,
        "problems": n_problems,
        "repeats": found.repeats,
        "spread": found.seed_spread,
        "test": test,
        "rejects": found.rate,
        "low": found.interval[0],
        "high": found.interval[1],
    }


if __name__ == "__main__":
    print(markdown(list(rows_of([Path(given) for given in sys.argv[1:]]))))
