"""Perplexity of a question, and instruction-following difficulty (IFD) of its completions, under the policy.

For the question x inside its template, and completions y_1 .. y_G sampled from the policy:

    perplexity = exp( mean over the question's tokens of -log pi(x_t | all tokens before) )
    IFD        = (1/G) sum_g  loss(y_g | x) / loss(y_g)        loss: mean of -log pi over the completion's tokens

both at temperature 1.  The question's tokens are those of the encoded prompt that the same prompt with an empty
question does not have: the common beginning and the common end (template, system prompt, header of the answer) are
taken off, and a token in which question and template have merged counts.  loss(y_g) is taken behind that prompt with an
empty question.  A prompt that begins with its question (plain format, no token in front) gets an end token in front, in
every row, so that its first token is predicted too.

IFD differs from Cherry LLM (arXiv 2308.12032) in: 1. y is what the policy sampled, averaged over the completions, where
the source has the data set's answer: that is a gold, which no selection may see; 2. what stands in the question's place
for loss(y) is the whole template, where the source keeps its answer header alone; 3. the end token counts as part of y;
4. nothing is left out: the source drops examples with IFD above 1, here that is the selection's business; 5. the model
is the policy after the warm-up, where the source tunes one on 1,000 clustered examples.  As in the source's code, the
ratio is of mean losses, not of perplexities.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from lean_align.errors import DataError, ModelError
from lean_align.memory import Halving
from lean_align.policy import Policy
from lean_align.signals.states import HiddenStates, token_losses
from lean_align.types import Group, Prompt

SMALLEST_LOSS = 1e-6
"""In nats: where the policy is surer than that of a whole completion, with and without the question, IFD is 1."""


@dataclass(frozen=True)
class PromptLikelihoods:
    """What the policy makes of a prompt: `perplexity` of its question, at least 1, and `ifd`, above 0."""

    prompt_id: str
    perplexity: float
    ifd: float


def likelihoods(
    policy: Policy,
    groups: Iterable[Group],
    token_budget: int = 4096,
    logprob_chunk: int = 1024,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[PromptLikelihoods]:
    """Yield perplexity and IFD of each group's prompt.

    Parameters
    ----------
    policy : Policy
        The policy that sampled the completions.
    groups : iterable of Group
    token_budget : int
        Tokens a forward pass, padding included.
    logprob_chunk : int
        Positions whose logits exist at the same time: about 8 * logprob_chunk * vocabulary bytes.
    on_halving : callable
        Told when `token_budget` was halved for want of memory.

    Raises
    ------
    DataError
        When a question gives no token.
    ModelError
        When a value is not finite.
    OutOfMemoryError
        When a single row does not fit.
    """
    backbone = HiddenStates(policy, token_budget, on_halving)
    for group in groups:
        found = _likelihoods_of(policy, backbone, group, logprob_chunk)
        if not (math.isfinite(found.perplexity) and math.isfinite(found.ifd)):
            raise ModelError(
                f"{group.prompt.prompt_id} has perplexity {found.perplexity} and IFD {found.ifd}; expected finite "
                "numbers. The warm-up may have diverged: lower warmup.learning_rate, or set model.dtype=float32."
            )
        yield found


def question_span(prompt: Sequence[int], template: Sequence[int]) -> range:
    """Positions of a prompt's tokens that its template, the same prompt with an empty question, does not have."""
    most = min(len(prompt), len(template))
    start = next((i for i in range(most) if prompt[i] != template[i]), most)
    ending = next((i for i in range(most - start) if prompt[-1 - i] != template[-1 - i]), most - start)
    return range(start, len(prompt) - ending)


def _likelihoods_of(policy: Policy, backbone: HiddenStates, group: Group, logprob_chunk: int) -> PromptLikelihoods:
    prompt, template, question = _encoded(policy, group.prompt)
    completions = [completion.token_ids for completion in group.completions]
    losses: dict[str, list[float]] = {"with": [], "without": []}
    surprise = 0.0
    for kind, before in (("with", prompt), ("without", template)):
        rows = [[*before, *tokens] for tokens in completions]
        for i, (row, states) in enumerate(zip(rows, backbone.of(rows))):
            completion = range(len(before), len(row))
            losses[kind].append(token_losses(policy, states, row, completion, logprob_chunk).mean().item())
            if kind == "with" and i == 0:  # every row begins with the question: one of them tells
                surprise = token_losses(policy, states, row, question, logprob_chunk).mean().item()
    ratios = [max(a, SMALLEST_LOSS) / max(b, SMALLEST_LOSS) for a, b in zip(losses["with"], losses["without"])]
    perplexity = math.exp(surprise) if surprise < 700 else math.inf  # refused by the caller
    return PromptLikelihoods(group.prompt.prompt_id, perplexity, sum(ratios) / len(ratios))


def _encoded(policy: Policy, prompt: Prompt) -> tuple[list[int], list[int], range]:
    """Token ids of the prompt and of its template, and where the question stands; something is before it."""
    with_question = policy.encoder.encode(prompt)
    template = policy.encoder.encode(replace(prompt, prompt=""))
    span = question_span(with_question, template)
    if not span:
        raise DataError(f"the question of {prompt.prompt_id} gives no token. Leave the prompt out.")
    if span.start == 0:
        end = policy.eos_token_ids[0]
        return [end, *with_question], [end, *template], range(1, span.stop + 1)
    return with_question, template, span
