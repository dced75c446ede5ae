"""How often the 95 % interval of `seed_differences` holds the true difference: python -m tests.interval_coverage."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from lean_align.rng import rng_for
from lean_align.statistics.bootstrap import percentile_interval
from lean_align.statistics.crossed import CrossedDraws, crossed_draws, seed_factor

WAYS = ("pigeonhole", "sums", "sums, c", "sums, c, h")


@dataclass(frozen=True)
class Setting:
    """Spreads in logits: of trainings, of single answers, and of what a problem has for one method."""

    n_seeds: int
    seed_sd: float
    favour_sd: float
    n_problems: int = 400
    noise_sd: float = 0.5


def sigmoid(logits: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-logits))


def true_difference(setting: Setting, draws: int = 2_000_000) -> float:
    """Other minus reference over all trainings and problems: a favour of mean 0 in logits moves the accuracy."""
    if setting.favour_sd == 0:
        return 0.0
    rng = rng_for(0, "true difference")
    logits = rng.normal(1.0, 2.0, size=draws)
    logits += np.hypot(setting.seed_sd, setting.noise_sd) * rng.standard_normal(draws)
    return float(np.mean(sigmoid(logits + setting.favour_sd * rng.standard_normal(draws)) - sigmoid(logits)))


def draw_differences(setting: Setting, rng: np.random.Generator) -> NDArray[np.float64]:
    """(S, P) rewards of the other method minus those of the reference."""
    shape = (2, setting.n_seeds, setting.n_problems)
    logits = np.broadcast_to(rng.normal(1.0, 2.0, size=setting.n_problems), shape).copy()
    logits[1] += setting.favour_sd * rng.standard_normal(setting.n_problems)
    logits += setting.seed_sd * rng.standard_normal((2, setting.n_seeds, 1))
    logits += setting.noise_sd * rng.standard_normal(shape)
    rewards = rng.random(shape) < sigmoid(logits)
    return rewards[1].astype(np.float64) - rewards[0]


def pigeonhole(d: NDArray[np.float64], rng: np.random.Generator, replicates: int) -> NDArray[np.float64]:
    """The plain crossed bootstrap: both weights multiplied."""
    n_seeds, n_problems = d.shape
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), size=replicates)
    problems = rng.multinomial(n_problems, np.full(n_problems, 1 / n_problems), size=replicates)
    return np.einsum("rs,rs->r", seeds, problems @ d.T) / d.size


def _sums(draws: CrossedDraws, level: float, factor: bool, share: float) -> float:
    c = seed_factor(draws.n_seeds, level) if factor else 1.0
    spread = c * (draws.seeds - draws.mean) + share * (draws.problems - draws.mean)
    return draws.mean + float(np.quantile(spread, level))


def intervals(
    d: NDArray[np.float64], rng: np.random.Generator, replicates: int, ways: tuple[str, ...]
) -> list[tuple[float, float]]:
    draws = crossed_draws(d, (-1.0, 1.0), int(rng.integers(2**31)), "coverage", replicates)
    made = {
        "sums": lambda: tuple(_sums(draws, q, False, 1.0) for q in (0.025, 0.975)),
        "sums, c": lambda: tuple(_sums(draws, q, True, 1.0) for q in (0.025, 0.975)),
        "sums, c, h": lambda: draws.interval,
        "pigeonhole": lambda: percentile_interval(pigeonhole(d, rng, replicates)),
    }
    return [made[way]() for way in ways]


def coverage(
    setting: Setting, repeats: int, replicates: int = 1_000, ways: tuple[str, ...] = WAYS
) -> dict[str, tuple[float, float]]:
    """Share of intervals that hold the truth, and their mean half width in points, for each way of making them."""
    truth, found = true_difference(setting), []
    for repeat in range(repeats):
        rng = rng_for(repeat, "coverage", repr(setting))
        found.append(intervals(draw_differences(setting, rng), rng, replicates, ways))
    low, high = np.moveaxis(np.array(found), 2, 0)
    held = ((low <= truth) & (truth <= high)).mean(axis=0)
    return dict(zip(ways, zip(held.tolist(), (50 * (high - low).mean(axis=0)).tolist())))


def main(repeats: int) -> None:
    spreads = ((0.0, 0.0), (0.2, 0.0), (0.4, 0.0), (0.2, 0.8))
    for setting in (Setting(n_seeds, *spread) for n_seeds in (8, 3, 2) for spread in spreads):
        cells = [f"{100 * held:5.1f} % +-{half:5.2f}" for held, half in coverage(setting, repeats).values()]
        print(f"{setting.n_seeds} {setting.seed_sd} {setting.favour_sd}  " + " | ".join(cells), flush=True)


if __name__ == "__main__":
    print("seeds, seed_sd, favour_sd  " + " | ".join(WAYS))
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 400)
