"""The marks that the policy gives a question with its first completion: SelectIT's self-reflection.

For each of several rating prompts, with P the policy's probabilities of the tokens 1 .. K after it, made to sum to 1:

    S_base = argmax_k P_k                                                    the smaller one of equals
    S      = S_base * (1 / (K - 1)) sum_k |P_k - P_(S_base)|                 token level
    rating = mean(S) / (1 + alpha std(S))                                    sentence level, over the rating prompts

with K = 5, alpha = 0.2, five rating prompts and std without Bessel's correction, in [0, 5].

Differs from SelectIT (arXiv 2402.16705) in: 1. no model level: there is one policy; 2. the rated answer is the policy's
own first completion, where the source has the data set's: that is a gold, which no selection may see; 3. the rating
prompts are in our own words, all of them from 1 to 5, and go through the chat template where there is one; 4. where a
row is longer than the model's context, the completion loses its first tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch

from lean_align.errors import ModelError
from lean_align.memory import Halving
from lean_align.policy import Policy
from lean_align.policy.output_layer import OutputLayer
from lean_align.signals.states import HiddenStates
from lean_align.types import Group, Prompt

SCORES = 5
ALPHA = 0.2
RATING_PROMPTS = (
    "How good is the solution of the problem below? 1 is useless, 5 is perfect. Answer with one digit.",
    "Read the problem and what was written about it. Grade the reasoning with a digit from 1 (wrong) to 5 (sound).",
    "From 1 to 5, how well does the solution do what the problem asks for? Write the number only.",
    "You mark homework. Give this piece a mark between 1, the worst, and 5, the best, as a single digit.",
    "Judge whether the solution is right and clear. Reply with 1, 2, 3, 4 or 5, where more is better.",
)


@dataclass(frozen=True)
class PromptRating:
    """A prompt's `rating`, in [0, 5], and how many tokens of its completion were cut off to fit the context."""

    prompt_id: str
    rating: float
    n_cut: int


def ratings(
    policy: Policy,
    groups: Iterable[Group],
    token_budget: int = 4096,
    rating_prompts: Sequence[str] = RATING_PROMPTS,
    alpha: float = ALPHA,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[PromptRating]:
    """Yield the rating of each group's prompt.

    Parameters
    ----------
    policy : Policy
        The policy that sampled the completions.
    groups : iterable of Group
        The first completion of each is read.
    token_budget : int
        Tokens a forward pass, padding included.
    rating_prompts : sequence of str
        What the policy is asked, each put before question and completion.
    alpha : float
        Weight of disagreement between the rating prompts.
    on_halving : callable
        Told when `token_budget` was halved for want of memory.

    Raises
    ------
    ModelError
        When the digits are not tokens of their own, a probability is not finite, or a question leaves no room for
        a rating in the model's context.
    OutOfMemoryError
        When a single row does not fit.

    Notes
    -----
    Memory besides that of `HiddenStates`: 4 * vocabulary bytes, the logits of one row's end.
    """
    backbone, digits = HiddenStates(policy, token_budget, on_halving), _digit_tokens(policy)
    head = OutputLayer(policy.causal_lm)
    for group in groups:
        rows, n_cut = _rating_rows(policy, group, rating_prompts)
        marks = []
        for states in backbone.of(rows):
            with torch.no_grad():
                logits = head(states[-1:])[0, digits]
            marks.append(token_rating(torch.softmax(logits.double(), -1).tolist()))
        rating = sentence_rating(marks, alpha)
        if not math.isfinite(rating):
            raise ModelError(
                f"the rating of {group.prompt.prompt_id} is {rating}; expected a finite number. The warm-up may have "
                "diverged: lower warmup.learning_rate, or set model.dtype=float32."
            )
        yield PromptRating(group.prompt.prompt_id, rating, n_cut)


def token_rating(probabilities: Sequence[float]) -> float:
    """The most probable score, 1 .. K, times its mean distance to the other probabilities."""
    best = max(probabilities)
    base = probabilities.index(best) + 1
    return base * sum(best - p for p in probabilities) / (len(probabilities) - 1)


def sentence_rating(marks: Sequence[float], alpha: float = ALPHA) -> float:
    """Mean of the marks under several rating prompts, lowered by their spread."""
    mean = sum(marks) / len(marks)
    spread = math.sqrt(sum((mark - mean) ** 2 for mark in marks) / len(marks))
    return mean / (1 + alpha * spread)


def _digit_tokens(policy: Policy) -> list[int]:
    """Token of each score; the last of its tokens, where a tokenizer puts a word's beginning in front."""
    tokenizer = policy.encoder.tokenizer
    found = [tokenizer.encode(str(k), add_special_tokens=False)[-1] for k in range(1, SCORES + 1)]
    if len(set(found)) < SCORES:
        raise ModelError(f"the tokenizer gives the digits 1 to {SCORES} the tokens {found}; expected one for each.")
    return found


def _rating_rows(policy: Policy, group: Group, rating_prompts: Sequence[str]) -> tuple[list[list[int]], int]:
    """Token ids of each rating prompt with question and completion; how many tokens the completion lost for it."""
    context = getattr(policy.causal_lm.config.get_text_config(), "max_position_embeddings", 2**31)
    tokens, n_cut = group.completions[0].token_ids, 0
    while True:
        completion = policy.encoder.decode(tokens[n_cut:])
        rows = [_encode(policy, group.prompt, completion, text) for text in rating_prompts]
        surplus = max(map(len, rows)) - context
        if surplus <= 0:
            return rows, n_cut
        if n_cut == len(tokens):
            raise ModelError(
                f"{group.prompt.prompt_id} with a rating prompt has {context + surplus} tokens, the model's context is "
                f"{context}. Lower data.max_prompt_tokens, or choose another selection.method than selectit."
            )
        n_cut = min(len(tokens), n_cut + surplus)


def _encode(policy: Policy, prompt: Prompt, completion: str, rating_prompt: str) -> list[int]:
    text = f"{rating_prompt}\n\nProblem:\n{prompt.prompt}\n\nSolution:\n{completion}\n\nScore:\n"
    encoder = replace(policy.encoder, system_prompt=None, prompt_template="{prompt}")
    return encoder.encode(replace(prompt, prompt=text))
