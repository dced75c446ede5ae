"""The search: the training prompts stream past an index of the benchmarks.

Memory is that of the benchmarks: for each problem its tokens, its runs and a MinHash of 4 NUM_PERM bytes in BANDS
buckets, about 15 kB, whatever the number of training prompts.
"""

from __future__ import annotations

import zlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from lean_align.contamination.judging import RUN, grams, near_similarity
from lean_align.contamination.normalising import exact_key, tokens
from lean_align.contamination.overlap import Contamination, ContaminationPair, summarise
from lean_align.types import Prompt

SHINGLE = 3
"""Words of an n-gram whose sets LSH compares."""
NUM_PERM, BANDS, BAND_ROWS = 128, 128, 1
"""A pair of Jaccard similarity J becomes a candidate with probability 1 - (1 - J)^128: 0.74 at J = 0.01, 0.998 at 0.05.
So low a threshold is for the text that a rewriting adds, which lowers J; the exact comparison comes afterwards."""

Run = tuple[str, ...]


@dataclass(frozen=True)
class _Problem:
    benchmark: str
    problem_id: str
    key: str
    words: Sequence[str]
    run_length: int
    runs: frozenset[Run] = field(repr=False)


def find_contamination(train: Iterable[Prompt], benchmarks: Mapping[str, Sequence[Prompt]]) -> Contamination:
    """Find the training prompts that match a problem of a benchmark, exactly or nearly.

    Parameters
    ----------
    train : iterable of Prompt
        Read once, one at a time.
    benchmarks : mapping of str to sequence of Prompt
        The problems of each benchmark.

    Returns
    -------
    Contamination
        The same whatever the order of prompts, problems and benchmarks.
    """
    problems = [problem for name, held in benchmarks.items() for problem in _read_problems(name, held)]
    search = _Search(problems) if problems else None
    pairs: list[ContaminationPair] = []
    n_prompts = 0
    for prompt in train:
        n_prompts += 1
        if search is not None:
            pairs += search.pairs_of(prompt)
    return summarise(pairs, {name: len(held) for name, held in benchmarks.items()}, n_prompts)


class _Search:
    """The benchmarks' problems by exact key and by MinHash."""

    def __init__(self, problems: Sequence[_Problem]) -> None:
        from datasketch import MinHash, MinHashLSH

        self.problems = problems
        self.by_key: defaultdict[str, list[int]] = defaultdict(list)
        self.empty = MinHash(num_perm=NUM_PERM, seed=1, hashfunc=int, scheme="affine32")
        self.lsh = MinHashLSH(num_perm=NUM_PERM, params=(BANDS, BAND_ROWS))
        for i, problem in enumerate(problems):
            self.by_key[problem.key].append(i)
            self.lsh.insert(i, self._min_hash(problem.words))

    def pairs_of(self, prompt: Prompt) -> Iterator[ContaminationPair]:
        """The pairs of one training prompt."""
        words = tokens(prompt.prompt)
        exact = frozenset(self.by_key.get(exact_key(prompt.prompt), ()))
        for i in exact:
            yield self._pair(prompt, i, "exact", 1.0)
        runs: dict[int, frozenset[Run]] = {}
        for i in self.lsh.query(self._min_hash(words)):
            problem = self.problems[i]
            if i in exact or len(words) < problem.run_length or not words:
                continue
            if problem.run_length not in runs:
                runs[problem.run_length] = grams(words, problem.run_length)
            if problem.runs.isdisjoint(runs[problem.run_length]):
                continue
            similarity = near_similarity(problem.words, words)
            if similarity is not None:
                yield self._pair(prompt, i, "near", round(similarity, 4))

    def _pair(self, prompt: Prompt, i: int, kind: str, similarity: float) -> ContaminationPair:
        problem = self.problems[i]
        return ContaminationPair(prompt.prompt_id, problem.benchmark, problem.problem_id, kind, similarity)

    def _min_hash(self, words: Sequence[str]) -> Any:
        # crc32 and not hash(): the same in every process; its weak bits are mixed by the scheme
        sketch = self.empty.copy()
        sketch.update_batch([zlib.crc32(" ".join(gram).encode()) for gram in grams(words, SHINGLE)])
        return sketch


def _read_problems(benchmark: str, held: Sequence[Prompt]) -> list[_Problem]:
    words = [tokens(problem.prompt) for problem in held]
    keys = [exact_key(problem.prompt) for problem in held]
    runs = [grams(found, RUN) for found in words]
    # how many problems hold a run; one that the benchmark holds twice counts once
    holders = Counter(run for own in dict(zip(keys, runs)).values() for run in own)
    return [
        _Problem(benchmark, p.prompt_id, k, w, min(RUN, len(w)), frozenset(run for run in own if holders[run] == 1))
        for p, k, w, own in zip(held, keys, words, runs)
    ]
