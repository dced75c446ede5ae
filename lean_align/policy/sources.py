"""Where a model's parts come from: the package, a folder or the hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoConfig

from lean_align.errors import ModelError
from lean_align.recipe import ModelRecipe

DEMO_MODEL = Path(__file__).parent.parent / "demo" / "model"


def model_path(name: str) -> str:
    """Folder or hub id behind a recipe's model name.

    Raises
    ------
    ModelError
        When the name looks like a folder and is none.
    """
    if name == "demo":
        return str(DEMO_MODEL)
    if Path(name).is_dir():
        if (Path(name) / "adapter_config.json").is_file() and not (Path(name) / "config.json").is_file():
            raise ModelError(f"model.name is {name!r}, an adapter; expected the model that it was trained on.")
        return str(Path(name).resolve())
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ModelError(f"model.name is {name!r}: no such folder. Give a local folder, a hub id, or 'demo'.")
    return name


def context_length(model: ModelRecipe) -> int:
    """Most tokens the model can attend to, from its configuration."""
    config = load_part(AutoConfig, model)
    return int(getattr(config.get_text_config(), "max_position_embeddings", 2**31))


def load_part(loader: Any, model: ModelRecipe, **options: Any) -> Any:
    """What one of transformers' Auto classes makes of a recipe's model.

    Raises
    ------
    ModelError
        When there is no such model.
    """
    path = model_path(model.name)
    try:
        return loader.from_pretrained(path, revision=model.revision, **options)
    except (OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"model.name is {model.name!r}: {loader.__name__} could not load it ({reason}). "
            "Give a local folder with config, weights and tokenizer, or the id of a model on the hub."
        ) from error
