"""The gradient stage: every prompt's projected gradient into the store of the run folder."""

from __future__ import annotations

from pathlib import Path

from lean_align.artifacts import StageFolder
from lean_align.errors import NothingToLearnError
from lean_align.pipeline.diagnosis import rollout_facts, rollout_lines
from lean_align.pipeline.inputs import read_groups, sampling_policy
from lean_align.progress import Progress
from lean_align.recipe import Recipe


def take_gradients(recipe: Recipe, run_dir: Path, folder: StageFolder) -> None:
    """Fill the store with the projected gradient of each prompt, from the first row that is not there."""
    from lean_align.gradients import check_log_probs, prompt_gradients
    from lean_align.grpo import read_second_moments
    from lean_align.projection import make_projector
    from lean_align.store import StoreWriter

    groups = read_groups(run_dir)
    learnable = [group for group in groups if group.learnability > 0]
    if not learnable:
        lines = rollout_lines(rollout_facts(groups), groups)
        raise NothingToLearnError("\n".join(lines) + f"\nThe rollouts are kept in {run_dir / 'rollouts'}.")
    policy, settings = sampling_policy(recipe, run_dir), recipe.gradients
    if settings.gradient_checkpointing:
        policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        policy.model.train()
    check_log_probs(policy, learnable[0], settings.share_prompt)
    adam = settings.precondition == "adam"
    sizes = {name: parameter.numel() for name, parameter in policy.lora_parameters.items()}
    projector = make_projector(
        settings.projection, sizes, settings.proj_dim, recipe.seed, policy.device, settings.sjlt_nonzeros
    )
    store = StoreWriter.open(folder.path, [group.prompt.prompt_id for group in groups], settings.proj_dim)
    open_rows = [row for row in range(len(groups)) if not store.written[row]]
    gradients = prompt_gradients(
        policy,
        (groups[row] for row in open_rows),
        projector,
        recipe.rollouts.temperature,
        settings.token_budget,
        settings.logprob_chunk,
        settings.loss,
        settings.rollouts,
        recipe.rollouts.max_new_tokens,
        settings.share_prompt,
        read_second_moments(run_dir / "warmup") if adam else None,
    )
    with Progress("gradients", len(groups), len(groups) - len(open_rows)) as progress:
        for row, (_, projected) in zip(open_rows, gradients):
            store.write(row, projected.numpy())
            progress.advance()
    folder.counts |= {"n_rows": len(groups), "n_learnable": len(learnable), "projection": projector.fingerprint()}
