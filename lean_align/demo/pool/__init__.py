"""The pool of the test bed: generated prompts that are a hard test of a selection method.

Each prompt has a kind:

- `target`: word problems of a few families and grades, which the evaluation asks too;
- `too_easy`, `too_hard`: the embedded model solves them nearly always, nearly never;
- `long_winded`: long stories with long solutions, nearly never solved;
- `unlike`: questions that count people, a third to a half answered rightly, with nothing to work out;
- `near_duplicates`: copies of one problem that differ in names and things; half of the problems are of the target.

A share of all golds is wrong by 1 to 3.  The measured success rates of each kind are in docs/testbed.md.

The pool is a function of its make-up alone: runs with other seeds have the same prompts in the same order, so that they
differ in sampling, training and choice only.  No problem of the target is on both sides: whether a problem may be asked
in the evaluation or stands in the pool is decided by its signature (its text without names, things and verbs), so that
the pool does not hold a copy of an evaluation problem under other names, and stays the same whatever the size of the
evaluation.
"""

from lean_align.demo.pool.making import KINDS, PoolPrompt, make_held_out, make_labelled, make_pool
from lean_align.demo.pool.signatures import is_held_out, signature

__all__ = ["KINDS", "PoolPrompt", "is_held_out", "make_held_out", "make_labelled", "make_pool", "signature"]
