"""Completions that were cut off, and the likely reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

MANY_CUT = 1 / 3


def cut_lines(stage: str, shares: Mapping[str, float], key: str, end_names: Sequence[str]) -> list[str]:
    """What to look at where more than a third of the completions were cut at the token limit.

    Parameters
    ----------
    stage : str
    shares : mapping of str to float
        What the completions are called, and the share of them that was cut, in [0, 1].
    key : str
        The recipe's name for the limit.
    end_names : sequence of str
        The tokens that would have ended a completion.
    """
    many = [f"{share:.1%} of {name}" for name, share in shares.items() if share > MANY_CUT]
    if not many:
        return []
    return [
        f"{stage}: {', '.join(many)} were cut at the token limit. Look at some: where one gives its answer and goes "
        f"on, the model does not write {' or '.join(map(repr, end_names))}, and eos_token_id in generation_config.json "
        f"of its folder should name the token that it ends with; where one is cut before its answer, raise {key}, or "
        "ask for short solutions in data.prompt_template"
    ]
