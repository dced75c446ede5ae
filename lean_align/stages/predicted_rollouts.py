"""Rollouts of the prompts that are predicted to be chosen, in rounds.

A first share of the pool, spread over the space of the prompts' hidden states, is sampled.  Then, round by round: the
gradients of what was sampled are taken and projected, success rate and alignment of the other prompts are predicted
from their hidden states, and those that are likeliest to be among the best N are sampled (`lean_align.prediction`).
Rounds end when the choice is settled, that is when at most a twentieth of the best N is expected among the prompts that
were not sampled, or when the budget is spent.  Prompts that were not sampled have no completions, no row and no score:
the choice is made among the others, by the rules that are there.

What is decided is kept in `rounds.json` before it is done, and each round's completions and rows in `rounds/R/`: a
stage that was killed goes on where it was.  The rows stay, and the gradient stage takes them over.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from lean_align.artifacts import read_json, write_json
from lean_align.disk import disk_errors
from lean_align.memory import Halving
from lean_align.pipeline.engines import keep_share, live_engine, longest_of, sampling_engine
from lean_align.pipeline.stage import StageRun
from lean_align.prediction import Forecast, Known, ValueRule, cover, fit_ridge, forecast, measured_values, round_size
from lean_align.prediction.ridge import correlation
from lean_align.progress import say
from lean_align.rng import rng_for
from lean_align.scoring import aimed_alignment, rank_scores
from lean_align.scoring.row_chunks import Chunks
from lean_align.scoring.score import alignments, weighted_mean
from lean_align.scoring.tables import rollout_table
from lean_align.selection import recipe_method
from lean_align.stages.dependencies import numbers_sampled
from lean_align.stages.gradient_rows import open_rows, write_open_rows
from lean_align.stages.inputs import POOL, ROLLOUTS, ROUNDS, ROWS, SAMPLED, reward, round_rows, sampling_policy
from lean_align.stages.prompt_states import read_features
from lean_align.stages.target import read_target_problems
from lean_align.store import open_store
from lean_align.types import Group

if TYPE_CHECKING:
    from lean_align.policy import Policy
    from lean_align.rollouts import Engine, Sampling

DECIDED, COMPLETIONS, PREDICTIONS = "rounds.json", "completions.jsonl", "predictions.parquet"
BINS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)


def sample_in_rounds(
    stage: StageRun, sampling: Sampling, record: Callable[[Halving], None]
) -> tuple[list[str], dict[str, Any]]:
    """Write `rollouts.jsonl`, and `sampled.json` where some prompts were not sampled.

    Returns
    -------
    list of str
        Tokens that end a completion.
    dict
        What the manifest counts, as `prediction`.
    """
    from lean_align.policy import load_encoder

    rounds = _Rounds(stage, sampling, record)
    rounds.draw()
    if not (stage.folder.path / ROLLOUTS).exists():
        rounds.merge()
    rounds.clean()
    return list(load_encoder(stage.recipe.model, stage.recipe.data).end_names), rounds.found


class _Rounds:
    """What was decided so far, and what is to be done about it."""

    def __init__(self, stage: StageRun, sampling: Sampling, record: Callable[[Halving], None]) -> None:
        self.recipe, self.run_dir, self.folder = stage.recipe, stage.run_dir, stage.folder
        self.sampling, self.record, self.path = sampling, record, stage.folder.path
        self.method = recipe_method(self.recipe)
        self.rule: ValueRule = self.method.ranks_by or "score"
        self.prompts = POOL.prompts(self.run_dir)
        self.places = {prompt.prompt_id: place for place, prompt in enumerate(self.prompts)}
        self.first, self.most = numbers_sampled(self.recipe, len(self.prompts))
        self.size = round_size(self.first, self.most)
        begun = read_json(self.path / DECIDED) if (self.path / DECIDED).exists() else {"rounds": [], "found": {}}
        self.rounds: list[dict[str, Any]] = begun["rounds"]
        self.found: dict[str, Any] = begun["found"]

    def draw(self) -> None:
        """Sample round after round."""
        features = read_features(self.run_dir, self.prompts)
        with self._engine() as (engine, policy):  # also where all is drawn: the manifest names it
            if not self.found:
                self._draw(features, engine, policy)

    def _draw(self, features: NDArray[np.float32], engine: Engine, policy: Policy | None) -> None:
        if not self.rounds:
            rng = rng_for(self.recipe.seed, "rollouts", "first share")
            whole = self.first == len(self.prompts)
            places = np.arange(self.first) if whole else cover(features, self.first, rng)
            self._begin_round(places, None)
        while True:
            self._sample(engine)
            if self.n_sampled == len(self.prompts):
                return self._end("everything", None)
            if policy is not None:
                self._take_rows(policy)
            known, found = self._forecast(features)
            self.rounds[-1] |= self._figures(found)
            say(self._line())
            if self.n_sampled >= self.most:
                return self._end("budget", (features, known, found))
            if found.settles(self.recipe.selection.n):
                return self._end("settled", (features, known, found))
            count = min(self.size, self.most - self.n_sampled)
            self._begin_round(found.likeliest(count, [prompt.prompt_id for prompt in self.prompts]), found)

    @property
    def n_sampled(self) -> int:
        """Prompts of all rounds so far."""
        return sum(len(one["prompt_ids"]) for one in self.rounds)

    def merge(self) -> None:
        """Put the rounds' completions into one file, and name the prompts that have some."""
        sampled = {prompt_id for one in self.rounds for prompt_id in one["prompt_ids"]}
        if len(sampled) < len(self.prompts):
            write_json(self.path / SAMPLED, [p.prompt_id for p in self.prompts if p.prompt_id in sampled])
        whole, partial = self.path / ROLLOUTS, self.path / f"{ROLLOUTS}.tmp"
        with disk_errors(whole), partial.open("wb") as file:
            for number in range(len(self.rounds)):
                file.write((self._place(number) / COMPLETIONS).read_bytes())
            file.flush()
            os.fsync(file.fileno())
        partial.replace(whole)

    def clean(self) -> None:
        """Remove what was merged."""
        for number in range(len(self.rounds)):
            (self._place(number) / COMPLETIONS).unlink(missing_ok=True)
            if not any(self._place(number).iterdir()):
                self._place(number).rmdir()
        if not any((self.path / ROUNDS).iterdir()):
            (self.path / ROUNDS).rmdir()

    def _place(self, number: int) -> Path:
        place = self.path / ROUNDS / str(number)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def _begin_round(self, places: NDArray[np.int64], found: Forecast | None) -> None:
        """Decide which prompts come next, with what was predicted of them."""
        entry: dict[str, Any] = {"prompt_ids": [self.prompts[i].prompt_id for i in places], "predicted": None}
        if found is not None:
            at = np.searchsorted(found.places, places)
            columns = {"success_rate": found.success_rate, "alignment": found.alignment, "chance": found.chance}
            entry["predicted"] = {name: _numbers(column[at]) for name, column in columns.items()}
        self.rounds.append(entry)
        self._keep()

    def _keep(self) -> None:
        write_json(self.path / DECIDED, {"rounds": self.rounds, "found": self.found})

    @contextmanager
    def _engine(self) -> Iterator[tuple[Engine, Policy | None]]:
        """What samples, and the policy that gradients are taken of; None where none are."""
        recipe, warm = self.recipe, self.recipe.warmup.steps > 0
        longest = longest_of(self.prompts, recipe.rollouts.max_new_tokens)
        if self.rule == "learnability" or self.first == len(self.prompts):
            adapter = self.run_dir / "warmup" / "adapter" if warm else None
            with sampling_engine(recipe, self.folder, adapter, longest, self.sampling.slots, self.record) as engine:
                yield engine, None
            return
        policy = sampling_policy(recipe, self.run_dir)
        keep_share(policy, self.folder)
        with live_engine(recipe, policy, self.folder, longest, self.sampling.slots, self.record) as (engine, follow):
            follow(0)
            yield engine, policy

    def _sample(self, engine: Engine) -> None:
        from lean_align.rollouts import complete

        ids, path = self.rounds[-1]["prompt_ids"], self._place(len(self.rounds) - 1) / COMPLETIONS
        chosen = sorted(self.places[i] for i in ids)
        complete(engine, [self.prompts[i] for i in chosen], path, self.sampling, reward, disk_errors, self.record)

    def _take_rows(self, policy: Policy) -> None:
        """Projected gradients of the last round's prompts whose rewards differ."""
        place = self._place(len(self.rounds) - 1)
        groups = [group for group in self._groups(place / COMPLETIONS) if group.learnability > 0]
        if groups:
            with open_rows(self.recipe, groups, place / ROWS) as store:
                write_open_rows(self.recipe, self.run_dir, self.folder, groups, store, policy)

    def _groups(self, path: Path) -> list[Group]:
        from lean_align.rollouts import group_completions, read_completions

        own = set(self.rounds[-1]["prompt_ids"])
        return group_completions([p for p in self.prompts if p.prompt_id in own], read_completions(path))

    def _forecast(self, features: NDArray[np.float32]) -> tuple[_Measured, Forecast]:
        """What is known of all that was sampled, and what is predicted of the rest."""
        rewards: dict[str, list[float]] = {}
        lengths: dict[str, list[int]] = {}
        for number in range(len(self.rounds)):
            found = rollout_table(self._place(number) / COMPLETIONS)
            rewards |= found[0]
            lengths |= found[1]
        ids = [prompt.prompt_id for prompt in self.prompts if prompt.prompt_id in rewards]
        successes = np.array([int(sum(rewards[i])) for i in ids])
        total, v = self.sampling.num_generations, {}
        for prompt_id, right in zip(ids, successes.tolist()):
            v[prompt_id] = right / total * (1 - right / total)
        alignment = None
        if self.rule != "learnability":
            by_id = self._alignments(v)
            alignment = np.array([by_id.get(i, np.nan) for i in ids])
        known = Known(np.array([self.places[i] for i in ids]), successes, total, alignment)
        measured = _Measured(ids, known, np.array([sum(lengths[i]) for i in ids]))
        return measured, forecast(features, known, self.recipe.selection.n, self.rule)

    def _alignments(self, v: dict[str, float]) -> dict[str, float]:
        """Alignment of each prompt that has a row: see `Known`."""
        stores, threads = [open_store(place) for place in round_rows(self.path)], self.recipe.threads
        found: dict[str, float] = {}
        if self.rule == "target":
            for store in stores:
                target = read_target_problems(self.recipe, self.run_dir, store.prompt_ids, self.method.needs)
                aim = target.rows("gradients")
                values = aimed_alignment(store, aim, target.learnability, target.in_both, threads)
                found |= dict(zip(store.prompt_ids, values.tolist()))
            return found
        weights = [np.array([v[i] for i in store.prompt_ids]) for store in stores]
        chunks = [Chunks(store, threads=threads) for store in stores]
        parts = [weighted_mean(*one) for one in zip(chunks, weights)]
        total = np.zeros(self.recipe.gradients.proj_dim)
        for store, (mean, _) in zip(stores, parts):
            total += len(store) * mean
        for store, chunk, w, (_, own) in zip(stores, chunks, weights, parts):
            found |= dict(zip(store.prompt_ids, (alignments(chunk, total) - own / w).tolist()))
        return found

    def _figures(self, found: Forecast) -> dict[str, Any]:
        """Of a forecast, for the report."""
        aligned = found.by_alignment
        return {
            "n_sampled": self.n_sampled,
            "rate_error": found.by_rate.error,
            "rate_correlation": found.by_rate.correlation,
            "alignment_error": None if aligned is None else aligned.error,
            "alignment_correlation": None if aligned is None else aligned.correlation,
            "expected_missing": found.expected_missing,
        }

    def _line(self) -> str:
        last = self.rounds[-1]
        return (
            f"rollouts: {last['n_sampled']} of {len(self.prompts)} prompts sampled; success rates of others predicted "
            f"with correlation {last['rate_correlation']:.2f}; {last['expected_missing']:.1f} of the best "
            f"{self.recipe.selection.n} expected among the {len(self.prompts) - last['n_sampled']} not sampled"
        )

    def _end(self, why: str, at_last: tuple[NDArray[np.float32], _Measured, Forecast] | None) -> None:
        """Keep what was found, after the predictions of each prompt."""
        self.found = {
            "stopped": why,
            "n_pool": len(self.prompts),
            "n_sampled": self.n_sampled,
            "n_first": self.first,
            "n_most": self.most,
            "expected_missing": 0.0,
        }
        if at_last is not None:
            features, measured, found = at_last
            self._write_predictions(measured, found)
            self.found |= {"expected_missing": found.expected_missing} | self._tokens(features, measured, found)
            self.found |= self._against_measured(measured)
            self.found["rounds"] = [
                {key: value for key, value in one.items() if key not in ("prompt_ids", "predicted")}
                for one in self.rounds
            ]
        self._keep()

    def _tokens(self, features: NDArray[np.float32], measured: _Measured, found: Forecast) -> dict[str, Any]:
        """Tokens that were drawn, and what `fixed` would have drawn, by a regression of lengths on the same states."""
        lengths, _ = fit_ridge(features[measured.known.places], measured.n_tokens).predict(features[found.places])
        spent = int(measured.n_tokens.sum())
        rest = float(np.clip(lengths, measured.n_tokens.min(), measured.n_tokens.max()).sum())
        return {"tokens": spent, "tokens_of_fixed": round(spent + rest), "share_of_tokens": spent / (spent + rest)}

    def _against_measured(self, measured: _Measured) -> dict[str, Any]:
        """Predictions of the prompts that were sampled after them, against what was measured."""
        rate = dict(zip(measured.ids, (measured.known.successes / measured.known.total).tolist()))
        value = measured_values(measured.known, self.rule)
        best = {i for i, rank in zip(measured.ids, rank_scores(value, measured.ids)) if rank <= self.recipe.selection.n}
        later = [one for one in self.rounds if one["predicted"] is not None]
        if not later:
            return {}
        ids = [i for one in later for i in one["prompt_ids"]]
        predicted = np.array([p for one in later for p in one["predicted"]["success_rate"]])
        real = np.array([rate[i] for i in ids])
        bins = np.clip(np.digitize(predicted, BINS) - 1, 0, len(BINS) - 2)
        return {
            "correlation": correlation(predicted, real),
            "calibration": [
                {
                    "n": int(inside.sum()),
                    "predicted": float(predicted[inside].mean()),
                    "measured": float(real[inside].mean()),
                }
                for inside in (bins == b for b in range(len(BINS) - 1))
                if inside.any()
            ],
            "expected_best": sum(c for one in later for c in one["predicted"]["chance"]),
            "n_best": sum(i in best for i in ids),
        }

    def _write_predictions(self, measured: _Measured, found: Forecast) -> None:
        """A row a prompt: its round, -1 where it was not sampled; what was predicted of it, and what was measured."""
        n = len(self.prompts)
        columns = {name: np.full(n, np.nan) for name in ("success_rate", "alignment", "chance", "measured")}
        numbers = np.full(n, -1, dtype=np.int64)
        for number, one in enumerate(self.rounds):
            places = [self.places[i] for i in one["prompt_ids"]]
            numbers[places] = number
            for name, values in (one["predicted"] or {}).items():
                columns[name][places] = [np.nan if value is None else value for value in values]
        columns["measured"][measured.known.places] = measured.known.successes / measured.known.total
        for name in ("success_rate", "alignment", "chance"):
            columns[name][found.places] = getattr(found, name)
        ids = [prompt.prompt_id for prompt in self.prompts]
        table = pyarrow.table({"prompt_id": ids, "round": numbers, **columns})
        partial = self.path / f"{PREDICTIONS}.tmp"
        pyarrow.parquet.write_table(table, partial)
        partial.replace(self.path / PREDICTIONS)


@dataclass(frozen=True)
class _Measured:
    """Prompts that were sampled, in the order of the pool, with the tokens of their completions."""

    ids: list[str]
    known: Known
    n_tokens: NDArray[np.int64]


def _numbers(values: NDArray[np.float64]) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]


def prediction_lines(found: dict[str, Any]) -> Sequence[str]:
    """What the rounds came to, in words."""
    if found["stopped"] == "everything":
        return [f"rollouts: all {found['n_pool']} prompts were sampled; nothing was left to predict"]
    why = "the choice is settled" if found["stopped"] == "settled" else "the budget is spent"
    return [
        f"rollouts: {why}, with {found['n_sampled']} of {found['n_pool']} prompts sampled, {found['tokens']} tokens: "
        f"about {found['share_of_tokens']:.0%} of what all prompts would have taken"
    ]
