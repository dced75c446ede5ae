"""The prompts that help the policy least to say its answer: instruction-following difficulty.

    IFD_i = s(answer | question) / s(answer)      (n,), positive; as the stage `perplexity` takes it

Near 1 the question hardly helps.  Above 1 it hinders, which the source reads as a pair that does not belong together.

    value_i = IFD_i where IFD_i <= 1, and -IFD_i where it is above

Source: Cherry LLM, arXiv 2308.12032, and its code (https://github.com/tianyi-lab/Cherry_LLM), which drops IFD > 1.

Differs from Cherry LLM in:

1. IFD > 1 is put behind all others, nearest to 1 first, and not dropped: every method gives n prompts.  The
   explanation counts those that were chosen all the same.
2. The answer is the policy's own completion, since the pool's golds are withheld from selection and have no steps.
3. There is no model trained for the scoring; the policy scores.
"""

from __future__ import annotations

import numpy as np

from lean_align.selection.method import Choice, SelectionMethod, best
from lean_align.selection.pool import SelectionPool, given


def choose(pool: SelectionPool, n: int) -> Choice:
    """The n of highest difficulty at most 1."""
    ifd = given(pool.ifd, "ifd")
    values = np.where(ifd > 1, -ifd, ifd)
    choice = best(pool, values, n, f"the {n} highest IFD of {len(pool)} prompts, those above 1 last")
    above = int((ifd[choice.order] > 1).sum())
    return Choice(choice.order, values, choice.explanation + (f" ({above} of them chosen)" if above else ""))


METHOD = SelectionMethod(
    name="ifd",
    needs=frozenset({"perplexity"}),
    choose=choose,
    source="Cherry LLM, arXiv 2308.12032",
    departures=("IFD > 1 comes last and is not dropped", "the policy's own completion as the answer"),
)
