"""Prompts from a file, from the hub, or from the generator, with every row that is left out accounted for.

Rules, in order; a row that a rule from 2 on leaves out goes to `dropped.jsonl` with its reason:

1. a row that repeats an earlier one in every field is not read again (the hub's DAPO-Math-17k holds 100 copies of
   each row); it gets no prompt_id, and their number is reported;
2. a row without a prompt or without an answer is dropped, and so is one that needs more than text, has a prompt of more
   than a million characters, or half characters; a file whose rows all lack one or the other is refused, and so is
   one with a prompt or answer of a kind that is not read (formats: `row_formats.py`);
   where all answers are letters of options, a question without options is dropped;
3. an answer that no verifier can read, or that nothing can meet, is dropped; one that was mangled is repaired;
4. a question with different answers is dropped each time: nobody knows which is right.  Answers that the verifier holds
   to be equal are not different (1.0 and 1, 1/2 and 0.5), and questions are compared without regard to white space;
5. a question with one answer is kept once, the first time;
6. `data.chinese: drop` leaves out prompts with Chinese characters;
7. what a benchmark also contains is looked for in all that is left, whatever `limit`, and dropped where
   `data.contamination` says so;
8. a prompt that leaves no room for a completion in the model's context is dropped;
9. of what is left, `limit` takes a seeded random subset, in file order.  A target that is `held-out:N` takes N others,
   first from those that the limit leaves out.
"""

from lean_align.data.local_files import FORMATS, is_local, local_files
from lean_align.data.preparing import (
    Census,
    PreparedPrompts,
    PromptRules,
    prepare_prompts,
    prompt_rows,
    prompts_from_rows,
)
from lean_align.data.raw_rows import (
    GENERATED,
    TEST_SEED,
    TRAIN_SEED,
    data_sources,
    fields_for,
    load_rows,
    local_sources,
    named_or_usual,
    read_rows,
    target_rows,
    testbed_pool,
)
from lean_align.data.row_formats import float_text, read_row

__all__ = [
    "FORMATS",
    "GENERATED",
    "TEST_SEED",
    "TRAIN_SEED",
    "Census",
    "PreparedPrompts",
    "PromptRules",
    "data_sources",
    "fields_for",
    "float_text",
    "is_local",
    "load_rows",
    "local_files",
    "local_sources",
    "named_or_usual",
    "prepare_prompts",
    "prompt_rows",
    "prompts_from_rows",
    "read_row",
    "read_rows",
    "target_rows",
    "testbed_pool",
]
