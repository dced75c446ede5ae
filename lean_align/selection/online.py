"""The whole pool, of which the training itself draws each step's prompts by what it has found out so far.

What is chosen here is nothing; `lean_align/online/` has the rule.

Source: LearnAlign, arXiv 2506.11480, for V <u, m>; Thompson sampling of prompts, MoPPS, arXiv 2507.04632.

Differs from LearnAlign in:

1. There is no choice before the training: p, u and m are those of the training's own completions, and fade.
2. A step draws its prompts: Thompson sampling, with a share of exploration.
"""

from __future__ import annotations

import numpy as np

from lean_align.selection.method import Choice, SelectionMethod
from lean_align.selection.pool import SelectionPool


def choose(pool: SelectionPool, n: int) -> Choice:
    """Every prompt; n is not looked at."""
    explanation = "every prompt of the pool, of which the training draws while it runs"
    return Choice(np.arange(len(pool), dtype=np.int64), None, explanation)


METHOD = SelectionMethod(
    name="online",
    needs=frozenset(),
    choose=choose,
    source="ours, after LearnAlign, arXiv 2506.11480, and MoPPS, arXiv 2507.04632",
    departures=("no choice before the training", "each step's prompts are drawn, with a share of exploration"),
    keeps_all=True,
)
