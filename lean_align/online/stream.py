"""Online selection for trl's own GRPOTrainer: a data set that draws its prompts, and a reward that says how they went.

trl draws a batch ahead: the prompts of a generation are drawn while those of the one before have not been answered yet,
unless a generation serves several optimiser steps.  What a draw knows is part of the state, so that this holds for a
training that is continued too.  Where trl goes on from a checkpoint it reads the data set from its start: draws that
were made are given again from the record, and no prompt is lost or met twice.

Alignment needs gradients, which trl does not show: prompts are drawn by learnability alone.
"""

from __future__ import annotations

import inspect
import math
import shutil
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from datasets import IterableDataset
from datasets.iterable_dataset import ExamplesIterable
from numpy.typing import NDArray
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from lean_align.errors import DataError
from lean_align.files import canonical_json, text_hash
from lean_align.online.posterior import Prior
from lean_align.online.selector import OnlineSelector, OnlineSettings
from lean_align.online.state_files import check_same, read_state, write_state

DRAW, PLACE = "stream_draw", "stream_place"
"""Columns that lead a reward back to its prompt: which draw it is of, and its place in the pool."""
STATE = "prompt_stream"
"""Folder of the state, inside a checkpoint."""

RewardFunction = Callable[..., Sequence[float | None]]


class PromptStream(IterableDataset):  # type: ignore[misc]
    """An endless data set of prompts, each step's drawn by what the training has found out so far.

    Give it to a GRPOTrainer of one process as `train_dataset`, with `shuffle_dataset=False` and `max_steps`; wrap the
    reward of success with `reward`, and add `callback` to the trainer's: it checks the trainer's arguments, keeps the
    state with each checkpoint, and goes on from there.

    Parameters
    ----------
    rows : iterable of mapping
        The pool: `prompt`, a text or messages, and what the reward functions need; `prompt_id` names a row where it
        has one, its number otherwise.
    prompts_per_step : int
        Prompts of a generation, all of them different: generation_batch_size / num_generations of the GRPOConfig.
    seed : int
        What prompts are drawn from.
    settings : OnlineSettings, optional
        Discount, exploration and strength of the prior.
    prior : Prior, optional
        A prediction of each row's success rate.
    run : str
        Names the training; a state of another is refused.

    Attributes
    ----------
    draws : list of (prompts_per_step,) int64
        Places in the pool, by draw.
    selector : OnlineSelector
        What is believed of the prompts.

    Raises
    ------
    DataError
        When the pool is smaller than a step, a row has no prompt, or two have one name.
    """

    def __init__(
        self,
        rows: Iterable[Mapping[str, Any]],
        prompts_per_step: int,
        seed: int = 0,
        settings: OnlineSettings = OnlineSettings(),  # noqa: B008
        prior: Prior | None = None,
        run: str = "",
    ) -> None:
        self.pool = [dict(row) for row in rows]
        _check_pool(self.pool, prompts_per_step)
        ids = [str(row.get("prompt_id", i)) for i, row in enumerate(self.pool)]
        pool = text_hash(canonical_json([row["prompt"] for row in self.pool]))
        identity = {"run": run, "pool": pool, "prompts_per_step": str(prompts_per_step)}
        self.selector = OnlineSelector(ids, seed, "trl", settings, identity, prior=prior)
        self.prompts_per_step = prompts_per_step
        self.draws: list[NDArray[np.int64]] = []
        self.explored: list[NDArray[np.bool_]] = []
        self.rewarded = 0
        self.first_draw = 0
        self.callback = _StreamCallback(self)
        self.is_loaded = False
        self._has_reward = False
        super().__init__(ExamplesIterable(self._examples, {}))

    def reward(self, function: RewardFunction) -> RewardFunction:
        """A reward function of trl's that also tells the stream how each prompt went.

        Parameters
        ----------
        function : callable
            As trl calls it.  Its rewards are the share of success of each completion, in [0, 1]; None is left out.

        Returns
        -------
        callable
            Under the function's name.  On an evaluation's prompts it is the function alone.

        Raises
        ------
        DataError
            When the function is asynchronous, or another has been wrapped.
        """
        if inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__):
            raise DataError("the reward function is asynchronous; expected a plain one. Call it inside of a plain one.")
        if self._has_reward:
            raise DataError("the stream has a reward function already; expected one, the reward of success.")
        self._has_reward = True

        @wraps(function)
        def observed(**columns: Any) -> Sequence[float | None]:
            draws, places = columns.pop(DRAW, None), columns.pop(PLACE, None)
            rewards = function(**columns)
            if draws is not None and places is not None:
                self._observe(draws, places, rewards)
            return rewards

        return observed

    def state_dict(self) -> dict[str, Any]:
        """The state: what is believed, what was drawn, and of how many draws the rewards are known."""
        state = self.selector.state_dict()
        shape = (len(self.draws), self.prompts_per_step)
        state["arrays"] |= {
            "draws": np.array(self.draws, dtype=np.int64).reshape(shape),
            "explored": np.array(self.explored, dtype=bool).reshape(shape),
        }
        return {**state, "rewarded": self.rewarded}

    def load_state_dict(self, state_dict: Mapping[str, Any], source: str = "the state") -> None:
        """Go on from a state.

        Parameters
        ----------
        state_dict : mapping
            As `state_dict` gives it.
        source : str
            Where it is from, for the message.

        Raises
        ------
        DataError
            When it is of another run, pool, seed or setting.
        """
        check_same(state_dict["identity"], self.selector.identity, source)
        arrays = dict(state_dict["arrays"])
        self.draws, self.explored = list(arrays.pop("draws")), list(arrays.pop("explored"))
        self.selector.load_state_dict({**state_dict, "arrays": arrays}, source)
        self.rewarded, self.is_loaded = int(state_dict["rewarded"]), True

    def save(self, folder: Path | str) -> None:
        """Write the state to a folder, which is whole or not there."""
        write_state(Path(folder), self.state_dict())

    def load(self, folder: Path | str) -> None:
        """Go on from the state in a folder.

        Raises
        ------
        DataError
            When it is missing, damaged, or another's.
        """
        self.load_state_dict(read_state(Path(folder)), str(folder))

    def _examples(self) -> Iterator[tuple[str, dict[str, Any]]]:
        draw = self.first_draw
        while True:
            for place in self._draw(draw).tolist():
                yield f"{draw}/{place}", {**self.pool[place], DRAW: draw, PLACE: place}
            draw += 1

    def _draw(self, draw: int) -> NDArray[np.int64]:
        while len(self.draws) <= draw:
            order = self.selector.order(len(self.draws))
            self.draws.append(order.places[: self.prompts_per_step].copy())
            self.explored.append(order.explored[: self.prompts_per_step].copy())
        return self.draws[draw]

    def _observe(self, draws: Sequence[int], places: Sequence[int], rewards: Sequence[float | None]) -> None:
        """Take the rewards of whole draws, in order; of one that is known already nothing is taken again."""
        found: dict[int, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
        for draw, place, reward in zip(draws, places, rewards, strict=True):
            known = found[int(draw)][int(place)]
            if reward is not None and not math.isnan(reward):
                known.append(float(reward))
        for draw in sorted(found):
            if draw >= len(self.draws) or set(found[draw]) != set(self.draws[draw].tolist()):
                raise DataError(
                    f"rewards of draw {draw} are of {len(found[draw])} prompts that are not the ones drawn. Give the "
                    "reward function to the trainer whose train_dataset is its stream, in one process."
                )
            if draw < self.rewarded:
                continue  # trl samples anew where it goes on within a generation
            for place in self.draws[draw].tolist():
                if found[draw][place]:
                    self.selector.observe(draw, place, found[draw][place])
            self.rewarded = draw + 1


def _check_pool(rows: Sequence[Mapping[str, Any]], prompts_per_step: int) -> None:
    if not 1 <= prompts_per_step <= len(rows):
        raise DataError(
            f"prompts_per_step is {prompts_per_step} and the pool has {len(rows)} rows; expected 1 to {len(rows)}, "
            "since a step meets no prompt twice."
        )
    for i, row in enumerate(rows):
        if not row.get("prompt") or DRAW in row or PLACE in row:
            raise DataError(
                f"row {i} of the pool has the columns {', '.join(row)}; expected a prompt that is not empty, and "
                f"neither {DRAW} nor {PLACE}."
            )


class _StreamCallback(TrainerCallback):  # type: ignore[misc]
    """Checks the trainer's arguments, and keeps a stream's state with its checkpoints.

    The state is written before trl's checkpoint, beside it, and moved into it when that is there: whichever checkpoint
    a kill leaves whole has its state.
    """

    def __init__(self, stream: PromptStream) -> None:
        self.stream = stream

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Refuse arguments under which prompts would be lost, and go on from the checkpoint's state."""
        every = _micro_batches(args)
        _check_arguments(args, state, every, self.stream)
        step, done = state.global_step, state.global_step * args.gradient_accumulation_steps
        if step == 0 and self.stream.draws:
            raise DataError(
                f"the stream has drawn {len(self.stream.draws)} times for another training; expected a new one. Make a "
                "PromptStream for each training, or go on from a checkpoint."
            )
        if step and not self.stream.is_loaded:
            self._load(args, step)
        if step and done % every == 0 and self.stream.rewarded != done // every:
            raise DataError(
                f"the trainer goes on at step {step}, after {done // every} generations, and the stream's state is of "
                f"{self.stream.rewarded}. Load the state of the same checkpoint."
            )
        self.stream.is_loaded = False
        self.stream.first_draw = done // every if args.ignore_data_skip else 0

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Write the state of a checkpoint that is about to be written."""
        if control.should_save:
            self.stream.save(_beside(args, state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kw: Any) -> None:
        """Move the state into the checkpoint, and drop those of checkpoints that a kill left half written."""
        if not _beside(args, state.global_step).exists():
            self.stream.save(_beside(args, state.global_step))
        for folder in Path(args.output_dir).glob(f"{STATE}-*"):
            checkpoint = folder.with_name(f"checkpoint-{folder.name.removeprefix(f'{STATE}-')}")
            if checkpoint.exists():
                _move(folder, checkpoint / STATE)
            else:
                shutil.rmtree(folder)

    def _load(self, args: TrainingArguments, step: int) -> None:
        beside, inside = _beside(args, step), _checkpoint(args, step) / STATE
        if beside.exists() and inside.parent.exists():
            _move(beside, inside)
        if not inside.exists():
            raise DataError(
                f"the trainer goes on at step {step}, and {inside} is not there. Call load with the folder of the "
                "checkpoint's state before train, or go on from another checkpoint."
            )
        self.stream.load(inside)


def _move(folder: Path, target: Path) -> None:
    shutil.rmtree(target, ignore_errors=True)
    folder.rename(target)


def _beside(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir) / f"{STATE}-{step}"


def _checkpoint(args: TrainingArguments, step: int) -> Path:
    return Path(args.output_dir) / f"checkpoint-{step}"


def _micro_batches(args: TrainingArguments) -> int:
    """Passes forward and backward on the prompts of one generation."""
    return int(args.steps_per_generation * args.num_iterations)


def _check_arguments(args: TrainingArguments, state: TrainerState, every: int, stream: PromptStream) -> None:
    per_step, saved = args.generation_batch_size / args.num_generations, args.save_strategy == "steps"
    for wrong, got, expected in (
        (args.shuffle_dataset, "shuffle_dataset is True", "shuffle_dataset=False: the stream draws the order"),
        (args.world_size > 1, f"there are {args.world_size} processes", "one: each would draw prompts of its own"),
        (args.remove_unused_columns, "remove_unused_columns is True", "False: rewards are led back by two columns"),
        (args.auto_find_batch_size, "auto_find_batch_size is True", "False: a step would be drawn twice"),
        (
            per_step != stream.prompts_per_step,
            f"a generation has {per_step:g} prompts and the stream draws {stream.prompts_per_step}",
            f"PromptStream(..., prompts_per_step={per_step:g})",
        ),
        (
            saved and state.save_steps * args.gradient_accumulation_steps % every,
            f"save_steps is {state.save_steps}",
            f"a multiple of {math.lcm(every, args.gradient_accumulation_steps) // args.gradient_accumulation_steps}, "
            "the steps on one generation: trl samples anew where it goes on within one",
        ),
    ):
        if wrong:
            raise DataError(f"{got}; expected {expected}.")
