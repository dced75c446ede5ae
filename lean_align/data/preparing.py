"""From raw rows to usable prompts, by rules 2 to 9 of the package."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

from lean_align.contamination import Contamination, ContaminationPair, find_contamination
from lean_align.data.answers import NO_ANSWER
from lean_align.data.columns import RowError
from lean_align.data.questions import NO_PROMPT
from lean_align.data.raw_rows import fields_for
from lean_align.data.row_formats import first_place, letters_without_options, read_prompt
from lean_align.errors import DataError
from lean_align.recipe import Recipe
from lean_align.rng import rng_for
from lean_align.types import Prompt
from lean_align.verify import verify

UNREADABLE, DUPLICATE, CONFLICT = "unreadable answer", "duplicate", "conflicting answers"
NO_OPTIONS = "no options"
CHINESE, TOO_LONG, CONTAMINATED = "Chinese characters", "too long", "contaminated"

SHOWN_REASONS = 5
"""How many reasons the message about a file without a usable row gives."""

_CHINESE = re.compile(r"[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")
_NUMBER = re.compile(r"[-+]?(?:\d{1,3}(?:,\d{3})+|\d{1,1000})(?:\.\d{1,1000})?")


@dataclass(frozen=True)
class PromptRules:
    """What a recipe says about which rows become prompts.

    Attributes
    ----------
    prompt_field, answer_field : str or None
        Columns, or dotted paths into them, that hold question and answer; by the rules of `row_formats.py` where None.
    chinese : str
        `keep`, or `drop` prompts with Chinese characters.
    contamination : str
        `keep` what the benchmarks hold too, `drop` it, `drop_exact` matches only, or `off`: not looked for.
    limit : int or None
        Size of the seeded random subset to keep.
    seed : int
        Seed of that subset.
    set_apart : int
        Rows that are kept out of it, drawn by the same seed: those that `limit` leaves out, as far as there are any.
    """

    prompt_field: str | None = None
    answer_field: str | None = None
    chinese: str = "keep"
    contamination: str = "keep"
    limit: int | None = None
    seed: int = 0
    set_apart: int = 0

    @classmethod
    def of(cls, recipe: Recipe, split: str, rows: Sequence[Mapping[str, Any]]) -> PromptRules:
        """Those of a recipe for the rows of a split; runs of all seeds are evaluated on the same problems."""
        data, fields = recipe.data, fields_for(recipe.data, split, rows)
        if split == "train":
            return cls(*fields, data.chinese, data.contamination, data.limit, recipe.seed)
        return cls(*fields, contamination="off", limit=data.test_limit)


@dataclass(frozen=True)
class Census:
    """What the readable rows of a split hold.

    Attributes
    ----------
    n_rows : int
    n_texts : int
        Different questions, character for character.
    n_conflicting_texts : int
        Of these, the ones that come with different answers.
    n_questions : int
        Different questions but for white space.
    n_conflicting_questions : int
        Of these, the ones that come with different answers, which rule 4 leaves out.
    """

    n_rows: int
    n_texts: int
    n_conflicting_texts: int
    n_questions: int
    n_conflicting_questions: int


@dataclass(frozen=True)
class PreparedPrompts:
    """Usable prompts of one split, and what became of the rest.

    Attributes
    ----------
    prompts : tuple of Prompt
    dropped : tuple of dict
        A row {prompt_id, prompt, answer, kind, reason} for each that is not usable.
    dropped_by_reason : dict of str to int
        Rows by kind of reason, of those that occurred: `no prompt`, `no answer`, `several answers`, `gold is none of
        the options`, `more than text`, `too large`, `broken characters`, `no options`, `unreadable answer`,
        `conflicting answers`, `duplicate`, `Chinese characters`, `contaminated`, `too long`.
    census : Census
    contamination : Contamination or None
        None where the check is off.
    set_apart : tuple of Prompt
        Usable prompts that are not among `prompts`, where the rules set some apart.
    """

    prompts: tuple[Prompt, ...]
    dropped: tuple[dict[str, str], ...]
    dropped_by_reason: dict[str, int]
    census: Census
    contamination: Contamination | None
    set_apart: tuple[Prompt, ...] = ()


@dataclass
class _Sieve:
    """The rows that the rules leave out, in the order of the rules."""

    dropped: list[dict[str, str]] = field(default_factory=list)
    by_reason: Counter[str] = field(default_factory=Counter)

    def keep(self, prompts: Iterable[Prompt], kind: str, reason_of: Callable[[Prompt], str | None]) -> list[Prompt]:
        """The prompts that `reason_of` gives no reason against."""
        kept = []
        for prompt in prompts:
            reason = reason_of(prompt)
            if reason is None:
                kept.append(prompt)
            else:
                self.drop(prompt.prompt_id, prompt.prompt.strip(), prompt.answer, kind, reason)
        return kept

    def drop(self, prompt_id: str, prompt: str, answer: str, kind: str, reason: str) -> None:
        """Leave a row out."""
        row = {"prompt_id": prompt_id, "prompt": prompt, "answer": answer}
        self.dropped.append(row | {"kind": kind, "reason": reason})
        self.by_reason[kind] += 1


def prepare_prompts(
    rows: Iterable[Mapping[str, Any]],
    split: str,
    source: str,
    parse_gold: Callable[[str], str],
    fits: Callable[[Prompt], bool],
    rules: PromptRules = PromptRules(),
    benchmarks: Mapping[str, Sequence[Prompt]] | None = None,
) -> PreparedPrompts:
    """Turn raw rows into prompts, by the rules of `lean_align.data`.

    Parameters
    ----------
    rows : iterable of mapping
        Raw rows.
    split : str
        Prefix of the prompt_ids: row 12 of `train` becomes `train-000012`.
    source : str
        Named in errors.
    parse_gold : callable
        Reads an answer; raises DataError where it cannot.
    fits : callable
        Whether a prompt is short enough: for a completion in the model's context, and for data.max_prompt_tokens.
    rules : PromptRules
    benchmarks : mapping of str to sequence of Prompt, optional
        Problems of each benchmark and of the held-out set, for the check of contamination.

    Returns
    -------
    PreparedPrompts

    Raises
    ------
    DataError
        When no row has a prompt or none an answer, when one is of a kind that is not read, or when nothing usable is
        left.
    """
    sieve, fields = _Sieve(), (rules.prompt_field, rules.answer_field)
    prompts = _with_their_options(_read_prompts(rows, split, source, fields, sieve), sieve)
    prompts = _readable(prompts, parse_gold, sieve)
    census, prompts = _take_stock(prompts), [replace(p, prompt=p.prompt.strip()) for p in prompts]
    prompts = _unequivocal(prompts, sieve)
    if rules.chinese == "drop":
        prompts = sieve.keep(prompts, CHINESE, lambda p: "Chinese characters" if _CHINESE.search(p.prompt) else None)
    found = None if rules.contamination == "off" else find_contamination(prompts, benchmarks or {})
    if found is not None and rules.contamination != "keep":
        prompts = _uncontaminated(prompts, found, rules.contamination, sieve)
    long = "no room for a completion: with rollouts.max_new_tokens past the context, or past data.max_prompt_tokens"
    prompts = sieve.keep(prompts, TOO_LONG, lambda p: None if fits(p) else long)
    if not prompts:
        reasons = sorted({row["reason"] for row in sieve.dropped}) or ["no rows"]
        more = f"; and {len(reasons) - SHOWN_REASONS} more" if len(reasons) > SHOWN_REASONS else ""
        told = "; ".join(reasons[:SHOWN_REASONS]) + more
        raise DataError(f"{source}: none of its {len(sieve.dropped)} rows can be used ({told}).")
    chosen, apart = _subsets(prompts, rules, split, source)
    return PreparedPrompts(chosen, tuple(sieve.dropped), dict(sieve.by_reason), census, found, apart)


def prompt_rows(prompts: Iterable[Prompt]) -> list[dict[str, Any]]:
    """Prompts as plain rows, to be written."""
    return [
        {"prompt_id": p.prompt_id, "prompt": p.prompt, "answer": p.answer}
        | ({} if p.system is None else {"system": p.system})
        for p in prompts
    ]


def prompts_from_rows(rows: Iterable[Mapping[str, Any]]) -> list[Prompt]:
    """Prompts from the rows that `prompt_rows` made."""
    return [Prompt(row["prompt_id"], row["prompt"], row["answer"], row.get("system")) for row in rows]


def _read_prompts(
    rows: Iterable[Mapping[str, Any]],
    split: str,
    source: str,
    fields: tuple[str | None, str | None],
    sieve: _Sieve,
) -> Iterator[Prompt]:
    """The rows that hold a question and an answer; refused at the end where all lack one or the other."""
    first: dict[str, RowError] = {}
    n_rows = 0
    rows = list(rows)
    place = first_place(rows, fields[1], source)
    for number, row in enumerate(rows):
        n_rows += 1
        prompt_id = f"{split}-{number:06d}"
        try:
            yield read_prompt(row, prompt_id, getattr(row, "where", f"{source}, row {number + 1}"), *fields, place)
        except RowError as error:
            first.setdefault(error.kind, error)
            # the file of what was left out has to be UTF-8
            question, answer = (text.encode("utf-8", "replace").decode() for text in (error.prompt, error.answer))
            sieve.drop(prompt_id, question.strip(), answer, error.kind, error.reason)
    for kind in (NO_PROMPT, NO_ANSWER):
        if n_rows and sieve.by_reason[kind] == n_rows:
            raise first[kind]


def _with_their_options(prompts: Iterable[Prompt], sieve: _Sieve) -> list[Prompt]:
    prompts = list(prompts)
    lost = letters_without_options(prompts)
    reason = (
        "has the letter of an option as its answer, as all rows have, and lists no options; expected them in its "
        "question, in `options` or in columns A, B, C"
    )
    return sieve.keep(prompts, NO_OPTIONS, lambda p: reason if p.prompt_id in lost else None)


def _readable(prompts: Iterable[Prompt], parse_gold: Callable[[str], str], sieve: _Sieve) -> list[Prompt]:
    golds: dict[str, str] = {}  # a gold that is no number is a slow question, asked once
    refusals: dict[str, str] = {}

    def reason_of(prompt: Prompt) -> str | None:
        answer = prompt.answer
        if answer not in golds and answer not in refusals:
            try:
                golds[answer] = parse_gold(answer)
            except DataError as error:
                refusals[answer] = f"answer cannot be read: {error}"
        return refusals.get(answer)

    kept = sieve.keep(prompts, UNREADABLE, reason_of)
    return [replace(p, answer=golds[p.answer]) for p in kept]


def _question(prompt: Prompt) -> str:
    """What makes two prompts the same question."""
    return " ".join(prompt.prompt.split())


def _value(gold: str) -> str | Fraction:
    """What makes two golds the same answer: the value of a plain number, else the text."""
    return Fraction(gold.replace(",", "")) if _NUMBER.fullmatch(gold) else gold


def _values(prompts: Iterable[Prompt], name_of: Callable[[Prompt], str]) -> dict[str, set[str | Fraction]]:
    """Different answers of each question: those that the verifier holds to be equal count once."""
    golds: dict[str, dict[str | Fraction, str]] = defaultdict(dict)
    for prompt in prompts:
        golds[name_of(prompt)].setdefault(_value(prompt.answer), prompt.answer)
    return {name: _different(found) for name, found in golds.items()}


def _different(golds: Mapping[str | Fraction, str]) -> set[str | Fraction]:
    """Values without those that equal an earlier one, written in another way: 1/2 and 0.5, 7 and 7 pens."""
    kept: dict[str | Fraction, str] = {}
    for value, gold in golds.items():
        both_numbers = [other for other in kept if isinstance(value, Fraction) and isinstance(other, Fraction)]
        if not any(_same(gold, other) for seen, other in kept.items() if seen not in both_numbers):
            kept[value] = gold
    return set(kept)


def _same(one: str, other: str) -> bool:
    return bool(verify(one, f"\\boxed{{{other}}}") or verify(other, f"\\boxed{{{one}}}"))


def _take_stock(prompts: Sequence[Prompt]) -> Census:
    texts, questions = _values(prompts, lambda p: p.prompt), _values(prompts, _question)
    conflicting = [sum(len(values) > 1 for values in found.values()) for found in (texts, questions)]
    return Census(len(prompts), len(texts), conflicting[0], len(questions), conflicting[1])


def _unequivocal(prompts: Sequence[Prompt], sieve: _Sieve) -> list[Prompt]:
    values = _values(prompts, _question)
    first: dict[str, str] = {}
    for prompt in prompts:
        first.setdefault(_question(prompt), prompt.prompt_id)

    def conflict(prompt: Prompt) -> str | None:
        given = sorted(map(str, values[_question(prompt)]))
        return f"answers in conflict for the same prompt: {', '.join(given)}" if len(given) > 1 else None

    def duplicate(prompt: Prompt) -> str | None:
        original = first[_question(prompt)]
        return None if original == prompt.prompt_id else f"duplicate of {original}"

    return sieve.keep(sieve.keep(prompts, CONFLICT, conflict), DUPLICATE, duplicate)


def _uncontaminated(prompts: Sequence[Prompt], found: Contamination, rule: str, sieve: _Sieve) -> list[Prompt]:
    matches: dict[str, list[ContaminationPair]] = defaultdict(list)
    for pair in found.pairs:
        if rule == "drop" or pair.kind == "exact":
            matches[pair.prompt_id].append(pair)

    def reason_of(prompt: Prompt) -> str | None:
        pairs = matches.get(prompt.prompt_id)
        if not pairs:
            return None
        closest = max(pairs, key=lambda pair: (pair.kind == "exact", pair.similarity))
        kind = "exact match" if closest.kind == "exact" else f"near match ({closest.similarity:.2f})"
        more = f", and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        return f"contaminated: {kind} of {closest.benchmark} {closest.problem_id}{more}"

    return sieve.keep(prompts, CONTAMINATED, reason_of)


def _subsets(
    prompts: Sequence[Prompt], rules: PromptRules, split: str, source: str
) -> tuple[tuple[Prompt, ...], tuple[Prompt, ...]]:
    """The prompts to keep and those set apart: the first and the last of one seeded order, both in file order."""
    n, n_apart = len(prompts), rules.set_apart
    if n_apart >= n:
        raise DataError(
            f"selection.target sets {n_apart} rows apart, and {source} has {n} that can be used; expected fewer. "
            "Lower the number, or give the target a file of its own."
        )
    n_kept = n - n_apart if rules.limit is None else min(rules.limit, n - n_apart)
    order = rng_for(rules.seed, "data.limit", split).permutation(n)
    kept, apart = order[:n_kept], order[n - n_apart :]
    return tuple(prompts[i] for i in sorted(kept)), tuple(prompts[i] for i in sorted(apart))
