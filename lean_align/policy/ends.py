"""The tokens that end a completion, and the one that fills up short rows: agreed on once, for every engine."""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from lean_align.errors import ModelError
from lean_align.policy.sources import model_path
from lean_align.recipe import ModelRecipe


def settle_ends(
    tokenizer: Any, model: ModelRecipe, config: Any, turn_end: str | None
) -> tuple[tuple[int, ...], list[str]]:
    """Ids that end a completion: the tokenizer's, those that the model declares, and a turn's end in the chat template.

    Parameters
    ----------
    tokenizer : PreTrainedTokenizerBase
        Changed where it must be: an end token where it has none, and a padding token that the model has a row for.
        trl, vLLM and the decode loop then read the same from it.
    model : ModelRecipe
    config : PretrainedConfig
    turn_end : str or None
        Token right behind an assistant's text in the chat template.

    Returns
    -------
    ids : tuple of int
        Each below the size of the model's vocabulary; the tokenizer's own first.
    remarks : list of str
        What a user should hear of it.

    Raises
    ------
    ModelError
        When there is no end token, or the model's own padding lies outside its embedding.
    """
    rows = vocabulary_size(config)
    _check_own_padding(config, rows, model.name)
    own = [] if tokenizer.eos_token_id is None else [int(tokenizer.eos_token_id)]
    named = [token for token in dict.fromkeys([*own, *_declared(model, config)]) if 0 <= token < rows]
    of_turn = None if turn_end is None else tokenizer.convert_tokens_to_ids(turn_end)
    ends, remarks = list(named), []
    if of_turn is not None and of_turn < rows and of_turn not in named:
        ends.append(int(of_turn))
        others = ", ".join(repr(tokenizer.convert_ids_to_tokens(token)) for token in named) or "none"
        remarks.append(
            f"{model.name}: the chat template ends a turn with {turn_end!r}, which is not among the end tokens that "
            f"tokenizer and model name ({others}): completions end there too"
        )
    if not ends:
        raise ModelError(
            f"{model.name}: neither tokenizer nor model names an end token that the model can write, and the chat "
            "template shows none; completions could not end. Name one as eos_token_id in generation_config.json."
        )
    if tokenizer.eos_token_id is None or not 0 <= tokenizer.eos_token_id < rows:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
        remarks.append(f"{model.name}: the tokenizer names no end token of use; {tokenizer.eos_token!r} is taken")
    pad = tokenizer.pad_token_id
    if pad is None or not 0 <= pad < rows:
        tokenizer.pad_token = tokenizer.convert_ids_to_tokens(ends[0])
        if pad is not None:
            remarks.append(
                f"{model.name}: the tokenizer pads with token {pad}, which the model's {rows} rows do not reach; "
                f"{tokenizer.pad_token!r} is taken"
            )
    return tuple(ends), remarks


def vocabulary_size(config: Any) -> int:
    """Rows of the model's embedding."""
    return int(getattr(config.get_text_config(), "vocab_size", None) or 2**31)


def _declared(model: ModelRecipe, config: Any) -> list[int]:
    """Ids in the model's generation_config.json; of its configuration where there is no such file."""
    try:
        generation = GenerationConfig.from_pretrained(model_path(model.name), revision=model.revision)
    except (OSError, ValueError, TypeError):  # none there, or not one that transformers reads: as it does itself
        generation = GenerationConfig.from_model_config(config)
    except RecursionError as error:
        raise ModelError(
            f"model.name is {model.name!r}: could not load its generation_config.json, which is nested too deeply. "
            "Mend or delete the file."
        ) from error
    found = generation.eos_token_id
    return [found] if isinstance(found, int) else [int(token) for token in found or []]


def _check_own_padding(config: Any, rows: int, name: str) -> None:
    pad = getattr(config.get_text_config(), "pad_token_id", None)
    if isinstance(pad, int) and pad >= rows:
        raise ModelError(
            f"{name}: config.json has pad_token_id {pad} and vocab_size {rows}; expected a token that the model has a "
            "row for. Set pad_token_id to null there."
        )
