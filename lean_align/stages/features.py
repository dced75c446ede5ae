"""Mean hidden state of each prompt's completions, in a store of the same format as the gradients'."""

from __future__ import annotations

from lean_align.pipeline.halving import recorder
from lean_align.pipeline.stage import Stage, StageRun
from lean_align.progress import Progress
from lean_align.stages.dependencies import POLICY, asked_for
from lean_align.stages.inputs import POOL, Sampled, sampling_policy
from lean_align.stages.rollout_facts import groups_to_learn
from lean_align.store import StoreWriter


def run(stage: StageRun) -> None:
    """Take those of the pool."""
    fill_features(stage, POOL)


def fill_features(stage: StageRun, which: Sampled) -> None:
    """Fill the store; a stage that was killed goes on with the rows that are missing."""
    from lean_align.signals import completion_features, feature_dim

    recipe, folder, groups = stage.recipe, stage.folder, groups_to_learn(stage.run_dir, which)
    n_learnable = sum(group.learnability > 0 for group in groups)
    folder.counts |= {"n_rows": len(groups), "n_learnable": n_learnable, "generated_tokens": 0}
    policy, ids = sampling_policy(recipe, stage.run_dir), [group.prompt.prompt_id for group in groups]
    with StoreWriter.open(folder.path, ids, feature_dim(policy)) as store:
        todo = store.open_rows()
        features = completion_features(
            policy, (groups[row] for row in todo), recipe.gradients.token_budget, recorder(folder, "gradients")
        )
        with Progress(folder.final.name, len(groups), len(groups) - len(todo)) as progress:
            for row, (_, vector) in zip(todo, features, strict=True):
                store.write(row, vector)
                progress.advance()


STAGE = Stage(
    "features",
    "features",
    "Take each prompt's mean hidden state.",
    run,
    POLICY,
    ("data", "warmup", "rollouts"),
    needed=asked_for("features"),
)
