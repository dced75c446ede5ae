"""The losses of a GRPO step, token by token: what each token weighs, the clipped ratio and the KL term.

For a step of N completions o_1 .. o_N with advantages A_i, log-probabilities lp at the sampling temperature, those of
the policy that sampled (old) and of the initial policy (ref):

    loss   = sum over i, t of  s_i l_i,t
    l_i,t  = -min(r A_i, clip(r, 1 - epsilon, 1 + epsilon) A_i) + beta r (exp(ref - lp) - (ref - lp) - 1)
    r      = exp(lp - old)

    grpo      s_i = 1 / (N |o_i|)
    dr_grpo   s_i = 1 / (N L),  L = max_new_tokens;  A_i only centred
    dapo      s_i = 1 / (tokens of all completions)
    bnpo      s_i = 1 / (M tokens of i's micro-batch), M the number of micro-batches of consecutive completions

These are trl 1.14.2's loss_type of the same names, with scale_rewards="none" for dr_grpo and "group" for the others,
importance_sampling_level="token", num_items_in_batch over the whole step and use_bias_correction_kl=True: the r before
the KL term makes its gradient an unbiased one of the reverse KL (DeepSeek-V3.2, arXiv 2512.02556).  trl shuffles a
step's completions before it cuts micro-batches, which changes bnpo alone.  A masked completion has s_i = 0; where a
mean is over tokens its tokens do not count, where it is over completions it still does, as in trl.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

from lean_align.gradients import advantages
from lean_align.grpo.settings import TrainerSettings
from lean_align.types import Completion, Group


def token_shares(groups: Sequence[Group], settings: TrainerSettings) -> list[list[float]]:
    """s_i of every completion: what each of its tokens weighs in the step's loss.

    Parameters
    ----------
    groups : sequence of Group
        All that the step's mean is over.
    settings : TrainerSettings

    Returns
    -------
    list of list of float
        By group and completion; 0 for a masked one.
    """
    trainer = settings.trainer
    every = [completion for group in groups for completion in group.completions]
    tokens = [0 if trainer.mask_truncated and not c.finished else c.n_tokens for c in every]
    n, size = len(every), trainer.micro_batch
    if trainer.loss == "grpo":
        whole = [n * count for count in tokens]
    elif trainer.loss == "dr_grpo":
        whole = [n * settings.max_new_tokens] * n
    elif trainer.loss == "dapo":
        whole = [sum(tokens)] * n
    else:
        parts = -(-n // size)
        whole = [parts * sum(tokens[i // size * size : (i // size + 1) * size]) for i in range(n)]
    shares = iter(1 / total if count else 0.0 for count, total in zip(tokens, whole))
    return [[next(shares) for _ in group.completions] for group in groups]


@dataclass
class GroupLoss:
    """One group's part of a step's loss, as `backward_completions` asks for it, and what is reported of it.

    Attributes
    ----------
    completions : tuple of Completion
        Those that have a part in it, in the order of the group.
    advantage, share : (tokens,) float64
        Of their tokens, one completion after the other.
    epsilon, beta : float
    reference : (tokens,) float32, optional
        Log-probabilities of the initial policy; needed where beta is above 0.
    old : (tokens,) float32, optional
        Those of the policy that sampled; not given, the first pass is by that policy, whose ratio is 1.
    seen : list of tensor
        Log-probabilities of the last pass.
    loss, kl, entropy, clipped : () float64, or 0.0
        Of the last pass: the part of the loss, and sums over tokens of the KL term, the entropy and clipped ratios.
        They stay where the model is: reading one waits for the device.
    """

    completions: tuple[Completion, ...]
    advantage: torch.Tensor
    share: torch.Tensor
    epsilon: float
    beta: float
    reference: torch.Tensor | None = None
    old: torch.Tensor | None = None
    seen: list[torch.Tensor] = field(default_factory=list)
    loss: torch.Tensor | float = 0.0
    kl: torch.Tensor | float = 0.0
    entropy: torch.Tensor | float = 0.0
    clipped: torch.Tensor | float = 0.0

    def begin(self) -> None:
        """Forget the last pass, or one that ran out of memory."""
        self.seen, self.loss, self.kl, self.entropy, self.clipped = [], 0.0, 0.0, 0.0, 0.0

    def keep_as_old(self) -> None:
        """The last pass was by the policy that sampled: the ratios of the passes that follow are to it."""
        if self.old is None:
            self.old = torch.cat(self.seen)

    def __call__(self, log_probs: torch.Tensor, places: slice) -> torch.Tensor:
        """Loss of some tokens, a scalar of the graph."""
        now = log_probs.detach()
        self.seen.append(now)
        advantage, share = (part[places].to(log_probs.dtype) for part in (self.advantage, self.share))
        ratio = torch.exp(log_probs - (now if self.old is None else self.old[places]))
        loss = -torch.min(ratio * advantage, ratio.clamp(1 - self.epsilon, 1 + self.epsilon) * advantage)
        beyond = ((ratio < 1 - self.epsilon) & (advantage < 0)) | ((ratio > 1 + self.epsilon) & (advantage > 0))
        self.clipped = self.clipped + beyond.sum().double()
        if self.beta > 0:
            assert self.reference is not None  # taken before the first pass
            apart = self.reference[places] - log_probs
            divergence = ratio * (torch.exp(apart) - apart - 1)
            loss = loss + self.beta * divergence
            self.kl = self.kl + divergence.detach().sum().double()
        total = (loss * share).sum()
        self.loss = self.loss + total.detach().double()
        return total

    def add_entropies(self, entropies: torch.Tensor) -> None:
        """Count the entropies of some tokens, (n,)."""
        self.entropy = self.entropy + entropies.sum().double()


def group_loss(
    group: Group, shares: Sequence[float], settings: TrainerSettings, device: torch.device
) -> GroupLoss | None:
    """The loss of a group whose completions weigh `shares` a token; None where its gradient is 0 and it is not run."""
    trainer = settings.trainer
    values = advantages(group.rewards, scale=trainer.loss != "dr_grpo").tolist()
    spread = len(set(group.rewards)) > 1
    for_kl = trainer.beta > 0 and (spread or trainer.kl_groups == "all")
    chosen = [i for i, value in enumerate(values) if shares[i] > 0 and (for_kl or (spread and value != 0))]
    if not chosen:
        return None
    counts = torch.tensor([group.completions[i].n_tokens for i in chosen])

    def by_token(numbers: Sequence[float]) -> torch.Tensor:
        each = torch.tensor([numbers[i] for i in chosen], dtype=torch.float64)
        return each.repeat_interleave(counts).to(device)

    completions = tuple(group.completions[i] for i in chosen)
    return GroupLoss(completions, by_token(values), by_token(shares), trainer.epsilon, trainer.beta)
