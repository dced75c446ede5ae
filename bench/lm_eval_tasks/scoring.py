"""MATH500 by the functions of lm-eval's own task minerva_math, imported from the installed package."""

from __future__ import annotations

from typing import Any

from lm_eval.tasks.minerva_math import utils as minerva
from math_verify import parse

INVALID = "[invalidanswer]"  # what minerva's reading gives where its sentence is missing


def math500_results(doc: dict[str, Any], results: list[str]) -> dict[str, int]:
    """lm-eval's exact_match and math_verify, and its is_equiv of the answer in the last box."""
    boxed = boxed_answer(results[0])
    equal = boxed is not None and minerva.is_equiv(boxed, doc["answer"])
    return {**minerva.process_results(doc, results), "boxed_is_equiv": int(equal)}


def math500_readings(text: str) -> dict[str, str | None]:
    """The answer that each metric compares, None where it finds none."""
    sentence, parsed = minerva.get_unnormalized_answer(text), parse(text)
    return {
        "exact_match": None if sentence == INVALID else minerva.normalize_final_answer(sentence),
        "math_verify": str(parsed[-1]) if parsed else None,
        "boxed_is_equiv": boxed_answer(text),
    }


def boxed_answer(text: str) -> str | None:
    """Their normal form of what their functions find in the last box."""
    box = minerva.last_boxed_only_string(text)
    if box is None or not box.startswith(("\\boxed{", "\\boxed ")):  # remove_boxed fails on \fbox
        return None
    return minerva.normalize_final_answer(minerva.remove_boxed(box))


def closed(solution: str) -> str:
    """A solution with the sentence after it in which their exact_match looks for the answer."""
    answer = minerva.remove_boxed(minerva.last_boxed_only_string(solution))
    return f"{solution}\nFinal Answer: The final answer is ${answer}$. I hope it is correct."
