"""Log-probabilities of sampled tokens without the logits of a whole sequence.

The backbone gives hidden states; the output layer turns `logprob_chunk` of them at a time into logits,
whose loss is differentiated at once down to those hidden states, and the logits are dropped before the
next chunk.  So logits of at most one chunk exist, each is computed once, and one backward pass through
the backbone follows from the collected gradients.

What lies between logits and loss is differentiated by hand, in the place of the logits themselves: with
p = softmax(logits / T) and c the derivative of the loss by a token's log-probability,

    d loss / d logits = c (onehot(token) - p) / T.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lean_align.gradients.shared_prompt import SharedPrompt
from lean_align.memory import return_freed_blocks
from lean_align.policy import Policy
from lean_align.policy.forward import last_states
from lean_align.policy.output_layer import OutputLayer, backbone_of
from lean_align.types import Completion

TokenLoss = Callable[[torch.Tensor, slice], torch.Tensor]
"""(log-probabilities of some sampled tokens, (n,); their places among all tokens of the pass) -> their loss, a scalar.
"""
OnEntropies = Callable[[torch.Tensor], None]


@dataclass(frozen=True)
class TokenStates:
    """The hidden state that predicts each sampled token.

    Attributes
    ----------
    states : (tokens, hidden size)
        Part of the autograd graph.
    targets : (tokens,) int64
        The sampled tokens.
    completion : (tokens,) int64
        Place of the completion that each token belongs to.
    """

    states: torch.Tensor
    targets: torch.Tensor
    completion: torch.Tensor


def backward_tokens(
    head: OutputLayer,
    tokens: TokenStates,
    token_loss: TokenLoss,
    first: int,
    temperature: float,
    logprob_chunk: int,
    on_entropies: OnEntropies | None = None,
) -> None:
    """Add the gradient of the tokens' loss to `.grad` of every leaf.

    Parameters
    ----------
    head : OutputLayer
        The model's own.
    tokens : TokenStates
    token_loss : callable
        A sum over tokens; asked for some tokens at a time.
    first : int
        Place of the first of these tokens among all that the loss knows.
    temperature : float
    logprob_chunk : int
        Tokens whose logits exist at the same time: about 8 * logprob_chunk * vocabulary bytes, and up to twice that
        where the model scales or caps them.
    on_entropies : callable, optional
        Given each chunk's entropies, (n,) in nats.
    """
    if tokens.states.device.type == "cpu":
        return_freed_blocks()  # of the layers' forward pass: logits are far larger, and would lie beside them
    gradients = []
    for states, targets in zip(torch.split(tokens.states, logprob_chunk), torch.split(tokens.targets, logprob_chunk)):
        leaf = states.detach().requires_grad_()
        logits = head(leaf)
        shares, log_probs, sums, entropies = _exponentials(_own_copy(head, logits), targets, temperature)
        if on_entropies is not None:
            on_entropies(entropies)
        log_probs.requires_grad_()
        (weights,) = torch.autograd.grad(token_loss(log_probs, slice(first, first + len(targets))), log_probs)
        gradient = _gradient_in_place(shares, targets, weights / temperature, sums)
        torch.autograd.backward(logits, gradient.to(logits.dtype))
        del logits, shares, gradient
        first += len(targets)
        gradients.append(leaf.grad)
    torch.autograd.backward(tokens.states, torch.cat(gradients))  # type: ignore[arg-type]


_SLICE_BYTES = {"cpu": 2**20, "cuda": 2**26}
"""Of the logits that are worked on at a time: on a CPU they stay in its cache."""


_LEAST = -80.0
"""Logits below the largest by more count nothing in an entropy; minus infinity times 0 would not be a number."""


def _slices(logits: torch.Tensor) -> list[slice]:
    held = _SLICE_BYTES.get(logits.device.type, 2**26)
    rows = max(1, held // max(1, logits.shape[1] * logits.element_size()))
    return [slice(start, start + rows) for start in range(0, len(logits), rows)]


def _own_copy(head: OutputLayer, logits: torch.Tensor) -> torch.Tensor:
    """Logits in at least float32 that may be written over: a matrix product's own are not read again."""
    wide = torch.promote_types(logits.dtype, torch.float32)
    return logits.detach().to(wide, copy=not head.is_linear)


def _exponentials(
    logits: torch.Tensor, targets: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Put e = exp(z / T - max) in the place of the logits z.

    Returns
    -------
    shares : (tokens, vocabulary)
        The e.
    log_probs, sums, entropies : (tokens,)
        Log-probabilities of the targets, sums of e over the vocabulary, and entropies in nats.
    """
    found: list[tuple[torch.Tensor, ...]] = []
    for rows in _slices(logits):
        part = logits[rows]
        if temperature != 1:
            part.div_(temperature)
        part.sub_(part.amax(-1, keepdim=True))
        of_targets = part.gather(1, targets[rows, None])[:, 0]
        shares = part.exp()
        sums = shares.sum(-1)
        means = torch.linalg.vecdot(shares, part.clamp_(min=_LEAST)) / sums
        part.copy_(shares)
        found.append((of_targets - sums.log(), sums, sums.log() - means))
    log_probs, sums, entropies = (torch.cat(column) for column in zip(*found))
    return logits, log_probs, sums, entropies


def _gradient_in_place(
    shares: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor, sums: torch.Tensor
) -> torch.Tensor:
    """weights * (onehot(targets) - shares / sums), (tokens, vocabulary)."""
    for rows in _slices(shares):
        shares[rows].mul_((-weights[rows] / sums[rows])[:, None])
    return shares.scatter_add_(1, targets[:, None], weights[:, None])


def plain_states(policy: Policy, prompt_ids: Sequence[int], completions: Sequence[Completion]) -> TokenStates:
    """States from padded rows of prompt and completion: the prompt is computed for each completion."""
    rows = [[*prompt_ids, *completion.token_ids] for completion in completions]
    (ids, hidden), start = last_states(policy, rows), len(prompt_ids)
    row = torch.tensor([i for i, c in enumerate(completions) for _ in c.token_ids], device=policy.device)
    place = torch.tensor([start + t for c in completions for t in range(len(c.token_ids))], device=policy.device)
    return TokenStates(hidden[row, place - 1], ids[row, place], row)  # position t of a row predicts token t + 1


def run_prompt(policy: Policy, prompt_ids: Sequence[int]) -> tuple[SharedPrompt, torch.Tensor]:
    """Run a prompt once: its keys and values, and the (1, hidden size) state that predicts a first token.

    To be called, like `packed_states`, inside `shared_prompt_attention`, which must last until the
    backward pass is over: checkpointed layers run again there.
    """
    prompt = SharedPrompt(len(prompt_ids))
    ids = torch.tensor([list(prompt_ids)], device=policy.device)
    hidden = backbone_of(policy.causal_lm)(
        input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False, shared_prompt=prompt
    ).last_hidden_state
    return prompt, hidden[0, -1:]


def packed_states(
    policy: Policy, prompt: SharedPrompt, last_state: torch.Tensor, completions: Sequence[Completion]
) -> TokenStates:
    """States of completions packed into one row behind a prompt that has run.

    A completion's last token predicts nothing, so it is left out of the row.  `last_state` and the prompt's
    keys and values may be wider than the model's own type; states are in the model's.
    """
    dtype = policy.causal_lm.get_input_embeddings().weight.dtype
    inputs = [completion.token_ids[:-1] for completion in completions]
    bounds = list(_bounds(inputs))
    targets = torch.tensor([token for c in completions for token in c.token_ids], device=policy.device)
    row = torch.tensor([i for i, c in enumerate(completions) for _ in c.token_ids], device=policy.device)
    packed = [token for tokens in inputs for token in tokens]
    if not packed:  # one token each: the prompt alone predicts them all
        return TokenStates(torch.cat([last_state.to(dtype) for _ in completions]), targets, row)
    positions = [prompt.n_tokens + i for tokens in inputs for i in range(len(tokens))]
    ids = torch.tensor([packed], device=policy.device)
    hidden = backbone_of(policy.causal_lm)(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),  # so that transformers looks for no packed rows of its own kind
        position_ids=torch.tensor([positions], device=policy.device),
        use_cache=False,
        shared_prompt=replace(prompt, bounds=tuple(bound for bound in bounds if bound[0] < bound[1])),
    ).last_hidden_state[0]
    pieces = [piece for start, stop in bounds for piece in (last_state.to(dtype), hidden[start:stop].to(dtype))]
    return TokenStates(torch.cat(pieces), targets, row)


def _bounds(rows: Sequence[Sequence[int]]) -> Iterator[tuple[int, int]]:
    start = 0
    for row in rows:
        yield start, start + len(row)
        start += len(row)
