"""What stages that ask the policy itself for a value of each prompt share: a table that grows line by line.

A killed stage goes on where it stopped: values are kept one line per prompt in a JSONL file until all are there.  Every
value is a function of its own prompt, so that a stage that was killed writes the same values in the end.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import pyarrow.parquet
from numpy.typing import NDArray

from lean_align.advice import made_anew
from lean_align.errors import DataError, StageError
from lean_align.files import cut_file, whole_rows
from lean_align.pipeline.stage import StageRun
from lean_align.progress import Progress
from lean_align.scoring.tables import read_table
from lean_align.stages.inputs import read_groups, read_prompts, sampling_policy
from lean_align.types import Group

if TYPE_CHECKING:
    from lean_align.policy import Policy

Row = dict[str, Any]


def fill_table(stage: StageRun, name: str, rows_of: Callable[[Policy, Sequence[Group]], Iterator[Row]]) -> list[Row]:
    """Make the missing rows, one line each, then write them all as a table."""
    folder = stage.folder
    groups, lines = read_groups(stage.run_dir), (folder.path / name).with_suffix(".jsonl")
    rows = _whole_rows(lines, [group.prompt.prompt_id for group in groups])
    todo = groups[len(rows) :]
    folder.counts |= {"n_prompts": len(groups), "generated_tokens": 0}
    if todo:
        from lean_align.signals import check_output_layer

        policy = sampling_policy(stage.recipe, stage.run_dir)
        check_output_layer(policy, groups[0])
        with (
            lines.open("a", encoding="utf-8") as file,
            Progress(folder.final.name, len(groups), len(rows)) as progress,
        ):
            for row in rows_of(policy, todo):
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                file.flush()
                rows.append(row)
                progress.advance()
    columns = {key: [row[key] for row in rows] for key in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), folder.path / name)
    lines.unlink()
    return rows


def read_values(run_dir: Path, stage: str, name: str, *columns: str) -> tuple[NDArray[np.float64], ...]:
    """Columns of a finished stage's table, (n,) float64 each, in the order of the pool.

    Raises
    ------
    DataError
        When the file is of other prompts.
    """
    table = read_table(run_dir / stage / name)
    check_pool(run_dir, stage, table["prompt_id"])
    return tuple(np.asarray(table[column], np.float64) for column in columns)


def check_pool(run_dir: Path, stage: str, prompt_ids: Sequence[str]) -> None:
    """Refuse values of other prompts than the run's, or in another order.

    Raises
    ------
    DataError
        Names the first place where they differ.
    """
    pool, found = [prompt.prompt_id for prompt in read_prompts(run_dir, "train")], list(prompt_ids)
    if found == pool:
        return
    place = next((i for i, (a, b) in enumerate(zip(found, pool)) if a != b), min(len(found), len(pool)))
    got, expected = (repr(ids[place]) if place < len(ids) else "nothing" for ids in (found, pool))
    raise DataError(
        f"{run_dir / stage} holds values of {len(found)} prompts, the pool has {len(pool)}; at place {place} it has "
        f"{got}, expected {expected}. {made_anew(run_dir / stage)}"
    )


def _whole_rows(path: Path, prompt_ids: Sequence[str]) -> list[Row]:
    """Rows of an earlier attempt; the file is cut after the last whole one."""
    rows: list[Row] = []
    end = 0
    path.touch()
    for row, stop in whole_rows(path):
        found = row.get("prompt_id") if isinstance(row, dict) else None
        if len(rows) == len(prompt_ids) or found != prompt_ids[len(rows)]:
            raise StageError(f"{path} line {len(rows) + 1} is not of the prompt expected there. {made_anew(path)}")
        rows.append(row)
        end = stop
    cut_file(path, end)
    return rows
