"""Which training prompts a benchmark also contains: the same problem, or the same in other words.

1. *Exact*: equal after the normalisation of `normalising.py`.
2. *Near*: MinHash LSH (datasketch) over word 3-grams finds candidates; `judging.py` then compares each with the
   problem token by token: a long run in common, at least half of the problem found again, and numbers that agree.

Differs from the rule of Qwen2.5-Math (arXiv 2409.12122, section 3.1.2: a 13-gram in common, and a longest common
subsequence of more than 0.6) in:

1. the run of 13 must belong to one problem of its benchmark alone, so that an instruction that all share is not a
match;
2. scattered words do not add up: only passages of three tokens or more count as found again;
3. the numbers must agree: the same story with other numbers is another problem.
"""

from lean_align.contamination.normalising import exact_key
from lean_align.contamination.overlap import BenchmarkOverlap, Contamination, ContaminationPair
from lean_align.contamination.searching import find_contamination

__all__ = ["CONTAMINATION", "BenchmarkOverlap", "Contamination", "ContaminationPair", "exact_key", "find_contamination"]

CONTAMINATION = "contamination.json"
"""What was found, in the data folder of a run."""
