"""Where the final answer of a completion stands: the rules of the package, each a function text -> answer.

Every pattern is linear in the text: a model that repeats one token up to its limit must not cost seconds.

Thinking, which models write before their answer: only what follows it is judged.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from lean_align.verify.sentences import FORMULA, FORMULA_OR_NUMBER, content, is_formula_alone, value_of
from lean_align.verify.spelling import plain_signs

_TAGS = r"(?:think(?:ing)?|thoughts?|reasoning)"
_THOUGHT = re.compile(
    rf"<(?P<close>/)?\s?{_TAGS}\s?>|(?P<bracket>\[/?THINK\])|<\|(?P<side>begin|end)_of_thought\|>", re.IGNORECASE
)
_MAY_THINK = re.compile(r"think|thought|reasoning", re.IGNORECASE)


def after_thinking(completion: str, inside: bool = False) -> str | None:
    """What follows the last closing tag of a completion's thinking; None where the thinking is not closed.

    Tags: `<think>`, `<thinking>`, `<thought>`, `<reasoning>`, `[THINK]`, `<|begin_of_thought|>`.  A text without any is
    returned as it is; a closing tag counts also where the prompt's template wrote the opening one.

    Parameters
    ----------
    completion : the text that the model sampled.
    inside : whether the prompt ends inside thinking, so that the completion opens it no more.

    Returns
    -------
    str or None : None where a block was opened, here or by the prompt, and not closed behind that.
    """
    if not inside and not _MAY_THINK.search(completion):
        return completion
    opened, start = inside, 0
    for tag in _THOUGHT.finditer(completion):
        opened = not (tag["close"] or (tag["bracket"] or "").startswith("[/") or (tag["side"] or "").lower() == "end")
        start = tag.end()
    return None if opened else completion[start:]


TAIL_CHARS = 20_000
"""Characters at the end of a completion in which the final answer is looked for; a box also before them."""
ALONE_CHARS = 300
"""A completion that is the answer and nothing else is no longer than this."""

PLACEHOLDER_CHARS = 60
"""A longer text is not a placeholder."""

_BOX_OR_BRACE = re.compile(
    r"(?P<box>\\(?:boxed|fbox|framebox)\s*(?:\[[^\[\]{}]{0,20}\]\s*){0,2}\{)"
    r"|\\boxed\s{0,3}(?P<bare>-?[0-9][^\s{}\\$]*)|\\[{}]|[{}]"  # "\\boxed 34" without braces, digits only
)
# What a form to be filled in holds: no answer yet.
_PLACEHOLDER = re.compile(
    r"(?:\\(?:square|Box|ldots|dots|cdots|quad|qquad|_|blank|bigcirc|star)(?![A-Za-z])|\\(?:phantom|hspace"
    r"|underline)\s*\{[^{}]*\}"
    r"|\\[,;:! ]|\\$|[\s?._\u2026\u25a1\u2610*\u2013-]"
    r"|(?:\\(?:text|mathrm|textbf)\s*\{)?\s*<?\[?(?:your |the |final |numerical |correct )*"
    r"(?:answer|result|solution|number|value)"
    r"(?: here| goes here)?\]?>?\s*\}?)+",
    re.IGNORECASE,
)
_UNKNOWN = re.compile("[a-z]")
_SEPARATED = re.compile(
    r"(?:[\s$.]|\\[)(\]\[,;: ]|\\q?quad|\\text\s*\{\s*(?:,\s*)?(?:and|or|or maybe|or perhaps)?\s*\}|,|;|\b(?:and"
    r"|or|maybe|perhaps)\b|&)*"
    r"(?P<name>(?:[A-Za-z](?:_\{?[0-9A-Za-z]\}?)?)\s*=\s*)?"
)
_JOINS = re.compile(r",|;|&|\b(?:and|or)\b")
_NAME_BEFORE = re.compile(r"(?:^|[^A-Za-z\\])([A-Za-z](?:_\{?[0-9A-Za-z]\}?)?)\s*=\s*$")

_TAG = re.compile(r"<\s?(/)?\s?(?:final[_ -]?)?answer\s?>", re.IGNORECASE)
_A_LINE = re.compile(r"[*_ ]{0,4}A[*_ ]{0,4}:[*_ ]{0,4}(.*)")
_OPTION_B = re.compile(r"^[*_ (]{0,5}B[*_ ]{0,4}[:.)]", re.MULTILINE)
_ANSWER_IS = re.compile(
    r"\banswers?[\s*_]{0,9}(?:\bis\b|\bare\b|:|=)[\s*_:]*|\bfinal\s+answer[*_ ]{0,4}\n[\s*_]*"
    r"|\banswer\s(?:must|should|has\sto|would|will|can\sonly)\s(?:then\s)?be(?=[\s*_:]{0,5}(?:(?-i:\(?[A-J](?![A-Za-z']))|[-0-9\\$]))"
    r"[\s*_:]*|\b(?:correct|right|best|only)\s(?:option|choice|alternative)s?\s(?:is|are)\b[\s*_:]*"
    r"|(?:\u7b54\u6848|\u6240\u4ee5\u7b54\u6848)(?:\u5e94\u8be5|\u5e94)?[*_]{0,3}(?:[\u662f\u4e3a\u70ba]|:"
    r"|=)[\s*_:]*|\u6545\u9009[\s*_:]*|\u7b54:\s*",
    re.IGNORECASE,
)
_HEADING = re.compile(r"[A-Za-z]{3,} ")
_SENTENCE_END = re.compile(r"(?<!\bRs)(?<!approx)(?<!\bNo)(?:[.?]|(?<![0-9)])!)(?=\s|$)")
_OPTION_LINE = re.compile(r"[*_ ]{0,4}(?:(?:Option|Choice|Answer) )?(\(?[A-J]\)?)[*_. ]{0,5}")
_OR = re.compile(r"(?: [A-Za-z]+)?,? or (?:maybe |perhaps |possibly |even |else )?(?:[a-z] ?= ?)?")
_AND_NAMED = re.compile(r"(?:,? and |, )([a-z]) ?= ?")
_BOUND = re.compile(
    r"(?:\b(?:at least|at most|(?:more|less|fewer|greater|higher|lower|larger|smaller) than|up to)\s+"
    r"|\\pm\s*|\u00b1\s*)(?:\\\(|\$)?$",
    re.IGNORECASE,
)
_AND = re.compile(r"\s*(?:,|;|,? (?:and|or))\s*")
_DIGIT = re.compile("[0-9]")
_WORDS = re.compile(r"[A-Za-z]+(?: [A-Za-z]+)?[.!]?")

_SENTENCE_START = re.compile(r"(?<=[.!?]) (?=\S)")
_UNSURE = re.compile(
    r"\b(?:if|whether|or|nor|maybe|perhaps|may|might|could|would|doubt|wrong|but|unless|wait)\b|\?", re.IGNORECASE
)
_DENIED = re.compile(r"\b(?:not|no|never|neither|cannot|none)\b|n't", re.IGNORECASE)
_VERDICT = re.compile(r"(yes|no|true|false)[,.;:!]\s", re.IGNORECASE)
_ENDING = re.compile(  # a name, or a word in bold: a plain word at the end of prose may be any
    r"\b(?:is|are|was|were) (?:([A-Z][A-Za-z0-9'-]+(?: [A-Z][A-Za-z'-]+){0,2})"
    r"|[*_]{2,3}([A-Za-z][A-Za-z0-9' -]{1,40})[.!]?[*_]{2,3})[.!]?$"
)


class Found(NamedTuple):
    """An answer as written."""

    text: str | None
    is_marked: bool
    """A mark led to it, or it is all of the completion."""
    is_formula: bool
    """It is a whole formula, not a number in the prose."""


def find_answer(completion: str) -> tuple[str | None, bool]:
    """The final answer as written, and whether a mark led to it.  None: no rule found one."""
    after = after_thinking(completion)
    return find(after)[:2] if after is not None else (None, False)


def find(after: str) -> Found:
    """The final answer in what follows a completion's thinking, by the first rule that finds one."""
    text = plain_signs(after[-TAIL_CHARS:])
    for rule in (_in_tags, _last_boxed, _after_hashes, _last_line_of_a, _after_answer_is, _weak_box, _option_line):
        found = rule(text)
        if found:
            return Found(found, is_marked=True, is_formula=False)
    if len(after) > TAIL_CHARS and "\\boxed" in after:
        box = plain_signs(after[after.rfind("\\boxed") :][:TAIL_CHARS])
        found = _last_boxed(box)
        if found:
            return Found(found, is_marked=True, is_formula=False)
    alone = _alone(text)
    if alone:
        return Found(alone, is_marked=True, is_formula=False)
    return _last_number(text)


def _in_tags(text: str) -> str | None:
    """What the last `<answer>` that is not a placeholder holds; one cut off by a stop string may lack its closing
    tag."""
    if "nswer" not in text and "NSWER" not in text:
        return None
    spans, opened = list[tuple[int, int]](), -1
    for tag in _TAG.finditer(text):
        if tag[1] is None:
            opened = tag.end()
        elif opened >= 0:
            spans.append((opened, tag.start()))
            opened = -1
    if opened >= 0 and len(text) - opened <= ALONE_CHARS:
        spans.append((opened, len(text)))
    for start, end in reversed(spans):
        inside = text[start:end].strip()
        if inside and not _is_placeholder(inside):
            return _last_boxed(inside) or _after_answer_is(inside) or _line(inside) or inside
    return None


def _line(text: str) -> str | None:
    return value_of(text, at_end=True) if "\n" not in text else None


def _last_boxed(text: str) -> str | None:
    """Content of the balanced box that opens last and holds an answer, with those that are joined to it."""
    boxes = [box for box in _boxes(text) if not _UNKNOWN.fullmatch(text[box[1] : box[2]].strip())]
    return _joined(text, boxes) if boxes else None


def _weak_box(text: str) -> str | None:
    """A box around a lone small letter may be the blank of the problem, where a later mark says more."""
    boxes = _boxes(text)
    return text[boxes[-1][1] : boxes[-1][2]].strip() if boxes else None


def _boxes(text: str) -> list[tuple[int, int, int, int]]:
    """Start of each box that holds something, start and end of what it holds, and its own end, in order."""
    open_braces: list[tuple[int, int] | None] = []  # a box's start and its content's; None for any other brace
    found: list[tuple[int, int, int, int]] = []
    for token in _BOX_OR_BRACE.finditer(text) if "box" in text else ():
        if token["bare"]:
            bare = token["bare"].rstrip(".,;:")
            found.append((token.start(), token.start("bare"), token.start("bare") + len(bare), token.end()))
        elif token[0] == "{":
            open_braces.append(None)
        elif token["box"]:
            open_braces.append((token.start(), token.end()))
        elif token[0] == "}" and open_braces:
            opened = open_braces.pop()
            if opened is not None and (not found or opened[1] > found[-1][1]):
                inside = text[opened[1] : token.start()].strip()
                if inside and not _is_placeholder(inside):
                    found.append((*opened, token.start(), token.end()))
    return found


def _is_placeholder(inside: str) -> bool:
    return len(inside) <= PLACEHOLDER_CHARS and bool(_PLACEHOLDER.fullmatch(inside))


def _joined(text: str, boxes: list[tuple[int, int, int, int]]) -> str:
    r"""`2, 9` of `\boxed{2}` and `\boxed{9}`; the last alone where more stands between them than a joining word."""
    contents, names, at = [text[boxes[-1][1] : boxes[-1][2]].strip()], [_name_before(text, boxes[-1][0])], boxes[-1][0]
    for start, begin, end, close in reversed(boxes[:-1]):
        between = text[close:at]
        if at - close > 60 or not _JOINS.search(between) or not _SEPARATED.fullmatch(between):
            break
        contents.append(text[begin:end].strip())
        names.append(_name_before(text, start))
        at = start
    different = list(dict.fromkeys(zip(reversed(names), reversed(contents))))
    if len(different) == 1:
        return contents[0]
    return ", ".join(f"{name} = {value}" if all(names) else value for name, value in different)


def _name_before(text: str, end: int) -> str:
    name = _NAME_BEFORE.search(text[max(end - 12, 0) : end])
    return name[1] if name else ""


def _after_hashes(text: str) -> str | None:
    _, mark, after = text.rpartition("####")
    line, _, rest = after.strip().partition("\n")
    return value_of(line, at_end=not rest) if mark and not _HEADING.match(line) else None


def _last_line_of_a(text: str) -> str | None:
    """What follows "A:" at the start of the last line, but where "B:", "B)" or "B." makes it one of several options."""
    line = _A_LINE.fullmatch(text.rstrip().rpartition("\n")[2])
    if line is None or _ANSWER_IS.search(line[0]) or _OPTION_B.search(text):
        return None
    return value_of(line[1], at_end=True)


def _after_answer_is(text: str) -> str | None:
    starts = [mark.end() for mark in _ANSWER_IS.finditer(text)]
    if not starts:
        return None
    after = text[starts[-1] :]
    formula = FORMULA.match(after)
    if formula and not formula[0].startswith("$"):  # a formula on lines of its own
        line_end = after.find("\n", formula.end())
        line = " ".join(formula[0].split()) + after[formula.end() : line_end if line_end >= 0 else len(after)]
        begin = len(" ".join(formula[0].split()))
    else:
        line, begin = after.partition("\n")[0], formula.end() if formula and "\n" not in formula[0] else 0
        if formula and "\n" in formula[0]:
            return content(formula)
    sentence_end = _SENTENCE_END.search(line, begin)
    sentence = line[: sentence_end.start()] if sentence_end else line
    return value_of(sentence, at_end=not after[len(sentence) :].strip(".!? \n*_"))


def _option_line(text: str) -> str | None:
    """The option's letter that stands alone on the last line."""
    line = _OPTION_LINE.fullmatch(text.rstrip().rpartition("\n")[2])
    return line[1] if line else None


def _alone(text: str) -> str | None:
    """A completion of one short line that is a formula, or a word or two."""
    line = text.strip(" \n\t*_`")
    if not line or len(line) > ALONE_CHARS or "\n" in line:
        return None
    return value_of(line, at_end=True) if is_formula_alone(line) else None


def words_alone(text: str) -> str | None:
    """A completion of one or two words: an answer where the gold is one, though most such texts are none."""
    line = text[:ALONE_CHARS].strip(" \n\t*_`")
    return line.rstrip(".!") if _WORDS.fullmatch(line) else None


def concluded(text: str) -> str | None:
    """The name or bold word that ends a text without a mark, "... is Paris.", or the yes or no that begins a sentence.

    None where a word says that it is no statement: if, whether, or; behind "is" also where it is denied.
    """
    last = text[-ALONE_CHARS:].strip().rpartition("\n")[2]
    sentence = _SENTENCE_START.split(last)[-1]
    verdict = _VERDICT.match(sentence)
    if verdict:
        return verdict[1] if sentence == text.strip() and not _UNSURE.search(sentence, verdict.end()) else None
    ending = _ENDING.search(sentence)
    if ending is None or _UNSURE.search(sentence) or _DENIED.search(sentence):
        return None
    return ending[1] or ending[2]


def _last_number(text: str) -> Found:
    found, is_formula, start, end = None, False, -1, -1
    for token in FORMULA_OR_NUMBER.finditer(text):
        inside = content(token)
        if inside and (found is None or _DIGIT.search(inside) or not _DIGIT.search(found)):
            formula = any(group is not None for group in token.groups())
            if (
                found is not None
                and token.start() - end < 40
                and _joins(text, start, end, token, formula and is_formula)
            ):
                found = f"{found}, {content(token, whole=formula)}"
            else:
                found, start = inside, token.start()
            is_formula, end = formula, token.end()
    bound = _BOUND.search(text[max(start - 20, 0) : max(start, 0)])
    if found is not None and bound:  # "at least 10", ±6
        found = f"{bound[0]}{found}".replace("\u00b1", "\\pm ")
    return Found(found, is_marked=False, is_formula=is_formula)


def _joins(text: str, start: int, end: int, token: re.Match[str], formulas: bool) -> bool:
    """Whether the value from `start` to `end` and the next one answer together: 2 or 3; x = 2 and x = 3."""
    if (_AND if formulas else _OR).fullmatch(text, end, token.start()):
        return True
    named = _AND_NAMED.fullmatch(text, end, token.start())
    return named is not None and named[1] == _name_before(text, start)
