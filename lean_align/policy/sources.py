"""Where a model's parts come from: the package, a folder or the hub.  No code of theirs is run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from transformers import AutoConfig

from lean_align.errors import LeanAlignError, ModelError
from lean_align.memory import shortage_of
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
    """What one of transformers' Auto classes makes of a recipe's model; Python files that come with it are not run.

    Raises
    ------
    ModelError
        When there is no such model, it needs code of its own, or a file of it is missing, damaged or not what it
        should be.
    """
    path = model_path(model.name)
    try:
        return loader.from_pretrained(path, revision=model.revision, trust_remote_code=False, **options)
    except LeanAlignError:
        raise
    except Exception as error:  # transformers raises a dozen kinds on a broken file, tokenizers a plain Exception
        if shortage_of(error) is not None:
            raise
        raise ModelError(_refusal(loader, model.name, Path(path), error)) from error


def _refusal(loader: Any, name: str, folder: Path, error: Exception) -> str:
    text = str(error)
    if "trust_remote_code" in text:
        return (
            f"model.name is {name!r}: it needs Python code of its own (auto_map in its configuration), which is not "
            "run. Give a model whose architecture transformers itself knows."
        )
    damaged = next((path for path in sorted(folder.glob("*.safetensors")) if not _opens(path)), None)
    if damaged is not None:
        reason = f"{damaged.name} is damaged or cut off, {damaged.stat().st_size} bytes"
    elif "weights_only" in text or "UnpicklingError" in type(error).__name__:
        reason = "its weights are a pickle that holds more than tensors, which can run code and is not opened"
    elif "ignore_mismatched_sizes" in text:
        reason = "weights have other sizes than its config.json asks for, or are packed in a way that it does not name"
    else:
        reason = first_line(error)
    return (
        f"model.name is {name!r}: {loader.__name__} could not load it ({reason}). "
        "Give a local folder with config, weights (safetensors) and tokenizer, or the id of a model on the hub."
    )


def _opens(path: Path) -> bool:
    try:
        with safe_open(path, "pt"):
            return True
    except (SafetensorError, OSError):
        return False


def first_line(error: BaseException, most: int = 200) -> str:
    """What an error of a library says, in one line."""
    line = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {line[:most]}".removesuffix(": ").rstrip(".")


def read_object(path: Path) -> dict[str, Any]:
    """A JSON object of a model's or an adapter's folder.

    Raises
    ------
    ModelError
        When the file holds no such thing.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not valid JSON ({first_line(error)}).") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path} holds {type(found).__name__}; expected a JSON object.")
    return found
