"""The LoRA adapter: made from a seed, checked, loaded, saved as plain peft files.

Its folder is read before its base model is loaded: what does not fit is refused, not left out.

peft puts on a model what fits it and warns of the rest, so that an adapter of another model, or half of one, is the
bare model under the adapter's name.  Here the configuration is put on a model of the same architecture that holds no
numbers, and the names and sizes that peft then expects are compared with those in the file.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.mapping import PEFT_TYPE_TO_TUNER_MAPPING
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from lean_align.errors import LeanAlignError, ModelError
from lean_align.memory import shortage_of
from lean_align.policy.saving import like_other_files, writing_tensors
from lean_align.policy.sources import first_line, load_part, model_path, read_object
from lean_align.progress import say
from lean_align.recipe import LoraRecipe, ModelRecipe
from lean_align.rng import seed_for

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
SHOWN = 3  # names of weights in a message


def check_adapter(model: ModelRecipe, folder: Path) -> None:
    """Refuse an adapter that is not complete, or does not fit a recipe's model; neither is loaded.

    Parameters
    ----------
    model : ModelRecipe
        Its configuration is read.
    folder : Path
        A peft adapter: adapter_config.json, and adapter_model.safetensors or a plain adapter_model.bin.

    Raises
    ------
    ModelError
        When a file is missing or damaged, a weight is NaN or infinite, peft does not know the kind of adapter or it
        is none of weights (prompts and prefixes), names or sizes of weights are not those that peft expects, or the
        model that it names is of another architecture.
    """
    config = read_config(folder)
    named = config.base_model_name_or_path  # peft puts the blank model's there
    weights = dict(_shapes(folder))
    base = load_part(AutoConfig, model)
    _check_base(folder, named, model, base.model_type)
    try:
        with torch.device("meta"):
            blank = get_peft_model(AutoModelForCausalLM.from_config(base, trust_remote_code=False), config)
            expected = get_peft_model_state_dict(blank, save_embedding_layers=False)
            if _sizes(expected) == _sizes(weights) or _taken(blank, weights):
                return
    except Exception as error:  # of what peft makes of a configuration there are many kinds
        if shortage_of(error) is not None:
            raise
        raise ModelError(
            f"the adapter {folder} cannot be put on {model.name} ({first_line(error)}); expected an adapter of that "
            f"model, this one names {named}."
        ) from error
    raise ModelError(_misfit(folder, model, named, _sizes(expected), _sizes(weights)))


def _check_base(folder: Path, named: str | None, model: ModelRecipe, kind: str) -> None:
    """Refuse a base of another architecture, whose weights may have the same names; say where only the name differs."""
    path = Path(model_path(model.name))
    if not named or named in (model.name, str(path)) or Path(named).name == path.name:
        return
    config = Path(named) / "config.json"
    its_kind = read_object(config).get("model_type") if config.is_file() else kind
    if its_kind != kind:
        raise ModelError(
            f"the adapter {folder} was trained on {named}, a model of type {its_kind}; {model.name} is of type {kind}. "
            "Give the model that it was trained on."
        )
    say(f"the adapter {folder} names {named} as its model, and is put on {model.name}")


def read_config(folder: Path) -> Any:
    """The configuration of an adapter's folder, trainable.

    Returns
    -------
    PeftConfig

    Raises
    ------
    ModelError
        When there is none, it cannot be read, or is of a kind that changes prompts in place of weights.
    """
    path = folder / CONFIG
    if not path.is_file():
        deeper = sorted(found.parent for found in folder.glob(f"*/{CONFIG}")) if folder.is_dir() else []
        hint = f" It lies deeper: give {deeper[-1]}." if deeper else ""
        raise ModelError(f"{folder} has no {CONFIG}; expected the folder of a peft adapter.{hint}")
    kind = str(read_object(path).get("peft_type"))
    if kind not in PEFT_TYPE_TO_TUNER_MAPPING:
        raise ModelError(f"{path} names peft_type {kind!r}; expected LORA, or another kind that changes weights.")
    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:  # of values of a wrong type there are many kinds
        raise ModelError(f"{path} is not a configuration that peft reads ({first_line(error)}).") from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise ModelError(
            f"{folder} is an adapter of kind {kind}, which changes prompts; expected one of weights, LoRA."
        )
    if getattr(config, "megatron_config", None):
        raise ModelError(f"{path} asks for Megatron's layers, which are not supported; expected plain LoRA.")
    config.inference_mode = False
    return config


def check_request(folder: Path) -> None:
    """Refuse an adapter that is more than plain LoRA beside its base, as vLLM's requests have it.

    Raises
    ------
    ModelError
        Names what goes beyond it; vLLM would leave some of that out and say nothing.
    """
    config = read_config(folder)
    plain = {"use_dora": False, "lora_bias": False, "bias": "none"}
    more = [key for key, value in plain.items() if getattr(config, key, value) != value]
    more += [
        key
        for key in ("modules_to_save", "trainable_token_indices", "target_parameters", "layer_replication")
        if getattr(config, key, None)
    ]
    start = str(getattr(config, "init_lora_weights", ""))
    if start.lower().startswith(("pissa", "olora", "corda", "loftq", "lora_ga")):
        more.append(f"init_lora_weights={start}, which changes the base")
    if config.peft_type != "LORA":
        more = [f"peft_type {config.peft_type.value}"]
    if more:
        raise ModelError(
            f"the adapter {folder} has {', '.join(more)}; expected plain LoRA for a request to vLLM. Set "
            "rollouts.vllm_adapter=merged or rollouts.engine=transformers."
        )


def read_weights(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Name and value of an adapter's weights, on the CPU, one after the other.

    Raises
    ------
    ModelError
        When the file is missing or damaged.  A pickled one is read as plain tensors or not at all.
    """
    path, pickled = folder / WEIGHTS, folder / PICKLED
    try:
        if path.is_file():
            with safe_open(path, "pt") as file:
                for name in sorted(file.keys()):
                    yield name, file.get_tensor(name)
        elif pickled.is_file():
            yield from torch.load(pickled, map_location="cpu", weights_only=True).items()
        else:
            raise ModelError(f"{folder} has no {WEIGHTS}; expected the weights that belong to its {CONFIG}.")
    except SafetensorError as error:
        raise ModelError(
            f"{path} is damaged ({first_line(error)}, {path.stat().st_size} bytes). Copy or download it again."
        ) from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, AttributeError) as error:
        raise ModelError(
            f"{pickled} cannot be read as plain tensors; a pickle that holds more is not opened, since it can run "
            f"code. Expected {WEIGHTS}."
        ) from error


def _shapes(folder: Path) -> Iterator[tuple[str, torch.Tensor]]:
    """Each weight without its numbers, once these are known to be finite."""
    for name, weight in read_weights(folder):
        if not isinstance(weight, torch.Tensor):
            raise ModelError(f"{folder}: {name} is not a tensor; expected weights alone.")
        if weight.is_floating_point() and not torch.isfinite(weight).all():
            raise ModelError(
                f"the adapter {folder} holds NaN or infinite numbers (in {name}): its training diverged. Use an "
                "earlier checkpoint."
            )
        yield name, weight.to("meta")


def _taken(blank: Any, weights: Mapping[str, torch.Tensor]) -> bool:
    """Whether peft itself finds a place for every weight and a weight for every place, as with names of old versions.

    Nothing is missing that training changes.
    """
    trained = {name for name, parameter in blank.named_parameters() if parameter.requires_grad}
    try:
        result = set_peft_model_state_dict(blank, dict(weights))
    except (KeyError, RuntimeError, ValueError):  # a name or a size that it cannot place
        return False
    return not result.unexpected_keys and not trained & set(result.missing_keys)


def _sizes(weights: Mapping[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(weight.shape) for name, weight in weights.items()}


def _misfit(
    folder: Path,
    model: ModelRecipe,
    named: str | None,
    expected: Mapping[str, tuple[int, ...]],
    got: Mapping[str, tuple[int, ...]],
) -> str:
    missing, unexpected = expected.keys() - got.keys(), got.keys() - expected.keys()
    other = [name for name in expected.keys() & got.keys() if expected[name] != got[name]]
    found = []
    if missing:
        found.append(f"{len(missing)} weights are missing ({some(missing)})")
    if unexpected:
        found.append(f"{len(unexpected)} are unexpected ({some(unexpected)})")
    if other:
        name = min(other)
        found.append(
            f"{len(other)} have other sizes ({some(other)}: {list(got[name])}, expected {list(expected[name])})"
        )
    return (
        f"the adapter {folder} does not fit {model.name}: of {len(expected)} weights that its {CONFIG} asks for, "
        f"{', '.join(found)}. Expected an adapter of that model, this one names {named}."
    )


def some(names: Iterable[str]) -> str:
    """The first names of some, in order; dots for the rest."""
    ordered = sorted(names)
    return ", ".join(ordered[:SHOWN]) + (", ..." if len(ordered) > SHOWN else "")


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch's global generators inside the block, and put them back after it.

    `generate` and LoRA's initialisation draw from them and take no generator of their own.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def save_adapter(model: Any, folder: Path) -> None:
    """Write the adapter as plain peft files; equal adapters give equal bytes.

    Raises
    ------
    DiskFullError
    """
    with writing_tensors(folder):
        model.save_pretrained(folder, selected_adapters=["default"])
        path = folder / CONFIG
        config = json.loads(path.read_text())
        for key, value in config.items():
            if isinstance(value, list):
                config[key] = sorted(value, key=str)
        path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        for weights in folder.glob("*.safetensors"):
            like_other_files(weights)


@contextmanager
def adapter_kept(model: Any) -> Iterator[None]:
    """Put trainable weights back, bit for bit, after a block that casts them.

    trl makes them bfloat16 over a 4-bit base; updates of small learning rates would be rounded away.
    """
    kept = {name: parameter.data for name, parameter in model.named_parameters() if parameter.requires_grad}
    yield
    for name, parameter in model.named_parameters():
        if name in kept:
            parameter.data = kept[name]


def adapter_shape(lora: LoraRecipe) -> dict[str, Any]:
    """A recipe's adapter in peft's words: r, lora_alpha and target_modules."""
    targets: str | list[str] = lora.target_modules
    if targets != "all-linear":
        targets = sorted(name.strip() for name in lora.target_modules.split(","))
    return {"r": lora.r, "lora_alpha": lora.alpha, "target_modules": targets}


def add_adapter(base: Any, lora: LoraRecipe | None, adapter: Path | None, seed: int) -> Any:
    """The base with the adapter of a folder, trainable; else with a fresh one; else as it is."""
    from peft import LoraConfig, PeftModel, get_peft_model

    if adapter is not None:
        try:
            return PeftModel.from_pretrained(base, adapter, is_trainable=True, config=read_config(adapter))
        except (
            AttributeError,
            ImportError,
            LookupError,
            NotImplementedError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            if shortage_of(error) is not None or isinstance(error, LeanAlignError):
                raise
            raise ModelError(
                f"the adapter {adapter} cannot be put on {base.config.name_or_path} ({first_line(error)})."
            ) from error
    if lora is None:
        return base
    config = LoraConfig(**adapter_shape(lora), lora_dropout=0.0, bias="none", task_type="CAUSAL_LM")
    with seeded(seed_for(seed, "lora")):
        return get_peft_model(base, config)
