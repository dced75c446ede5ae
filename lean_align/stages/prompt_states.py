"""Last and mean hidden state of each prompt at the warm-up checkpoint, in a store of the same format as the gradients'.

Of runs whose rollouts are predicted: see `lean_align.stages.predicted_rollouts`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lean_align.errors import DataError
from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.prediction import standardised
from lean_align.progress import Progress
from lean_align.stages.dependencies import POLICY, predicts
from lean_align.stages.inputs import POOL, sampling_policy
from lean_align.store import StoreWriter, open_store
from lean_align.types import Prompt

STATES = "prompt_states"


def run(stage: StageRun) -> None:
    """Fill the store; a stage that was killed goes on with the rows that are missing."""
    from lean_align.signals import prompt_state_dim, prompt_states

    recipe, folder, prompts = stage.recipe, stage.folder, POOL.prompts(stage.run_dir)
    folder.counts |= {"n_rows": len(prompts), "generated_tokens": 0}
    policy = sampling_policy(recipe, stage.run_dir)
    with StoreWriter.open(folder.path, [p.prompt_id for p in prompts], prompt_state_dim(policy)) as store:
        todo = store.open_rows()
        states = prompt_states(policy, prompts, set(todo), recipe.gradients.token_budget, recorder(folder, "gradients"))
        with Progress(folder.final.name, len(prompts), len(prompts) - len(todo)) as progress:
            for row, vector in states:
                store.write(row, vector)
                progress.advance()


def read_features(run_dir: Path, prompts: list[Prompt]) -> NDArray[np.float32]:
    """The mean states of a run's prompts, each column standardised, (n, hidden size) float32.

    The last states are kept and not taken: on the demo they made predictions worse, whether alone or beside the mean.

    Raises
    ------
    DataError
        When the store is of other prompts.

    Notes
    -----
    Memory: twice 4 * n * hidden size bytes, half of it while it is read.
    """
    store = open_store(run_dir / STATES)
    if store.prompt_ids != tuple(prompt.prompt_id for prompt in prompts):
        raise DataError(f"{run_dir / STATES} holds states of other prompts than the pool's. Delete it, and run again.")
    hidden_size = store.proj_dim // 2
    states = np.empty((len(store), hidden_size), dtype=np.float32)
    for start, block in store.blocks():
        states[start : start + len(block)] = block[:, hidden_size:] * store.norms[start : start + len(block), None]
    return standardised(states)


STAGE = Stage(
    STATES,
    "prompt-states",
    "Take the hidden states of each prompt, to predict which are worth sampling.",
    run,
    (*POLICY, "gradients.token_budget"),
    ("data", "warmup"),
    needed=predicts,
)
