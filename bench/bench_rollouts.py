"""Sampling of 8 completions per prompt: ours, one prompt at a time, and plain batches of 64.

Same prompts and same longest completion; the completions differ, since each way draws its own noise. Tokens are
counted up to and including the first end token: what a way samples after it, or as padding, does not count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch

from bench.cases import Case, demo_case, real_or_demo
from bench.measure import Row, Settings, Timing, in_turn, spread
from lean_align.policy import Policy, seeded
from lean_align.rollouts import Sampling, TransformersEngine, generate_batch
from lean_align.types import Prompt

BATCH = 64


def measure(settings: Settings) -> Iterator[Row]:
    if settings.size != "full":
        yield from _compare(demo_case(settings.pick(2, 32, 0)), settings)
        return
    case, reason = real_or_demo(8, 64)
    if reason:
        yield {"case": "smollm2", "note": reason}
    yield from _compare(case, settings)


def _compare(case: Case, settings: Settings) -> Iterator[Row]:
    policy, rollouts = case.policy(), case.recipe.rollouts
    count, limit = rollouts.num_generations, rollouts.max_new_tokens
    sampling = Sampling(count, rollouts.temperature, limit, BATCH, settings.seed, "bench")
    tokens: dict[str, list[int]] = {}

    def counted(name: str, work: Callable[[], int]) -> Callable[[], None]:
        return lambda: tokens.setdefault(name, []).append(work())

    def ours() -> int:
        return sum(
            c.n_tokens
            for c in generate_batch(TransformersEngine(policy), case.prompts, sampling, lambda gold, text: 0.0)
        )

    def plain(at_a_time: int) -> int:
        batches = [case.prompts[i : i + at_a_time] for i in range(0, len(case.prompts), at_a_time)]
        with torch.no_grad(), seeded(settings.seed):
            return sum(_generate(policy, batch, sampling) for batch in batches)

    ways = {
        "ours, generate_batch": ours,
        "generate, one prompt at a time": lambda: plain(1),
        f"generate, batches of {BATCH}": lambda: plain(max(1, BATCH // count)),
    }
    timings = in_turn({name: counted(name, work) for name, work in ways.items()}, settings.times(3, 5), warm_up=False)
    rates = {name: _rates(timing, tokens[name]) for name, timing in timings.items() if name in tokens}
    first = rates.get(next(iter(ways)), [])
    for name, timing in timings.items():
        row: Row = {"case": case.name, "prompts": len(case.prompts), "max_new_tokens": limit, "way": name}
        row |= timing.columns() | {"tokens": spread(tokens.get(name, [])[-len(timing.seconds) :])}
        yield row | {
            "tokens_per_second": spread(rates.get(name, [])),
            "ours_faster": spread([a / b for a, b in zip(first, rates.get(name, []))]),
        }


def _rates(timing: Timing, tokens: list[int]) -> list[float]:
    counts = tokens[len(tokens) - len(timing.seconds) :]  # the warm-up's are before them
    return [count / seconds for count, seconds in zip(counts, timing.seconds)]


def _generate(policy: Policy, prompts: Sequence[Prompt], sampling: Sampling) -> int:
    """Real tokens of one call of transformers' generate on left-padded prompts."""
    rows = [policy.encoder.encode(prompt) for prompt in prompts]
    width, pad = max(map(len, rows)), policy.pad_token_id
    ids = torch.tensor([[pad] * (width - len(row)) + row for row in rows], device=policy.device)
    mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=policy.device)
    sequences = policy.model.generate(
        input_ids=ids,
        attention_mask=mask,
        pad_token_id=pad,
        eos_token_id=list(policy.eos_token_ids),
        do_sample=True,
        temperature=sampling.temperature,
        top_p=1.0,
        top_k=0,
        max_new_tokens=sampling.max_new_tokens,
        num_return_sequences=sampling.num_generations,
    )[:, width:]
    ended = torch.isin(sequences, torch.tensor(policy.eos_token_ids, device=policy.device))
    first = torch.where(ended.any(1), ended.float().argmax(1) + 1, sequences.shape[1])
    return int(first.sum())
