"""The policy as a plain folder of whole weights, for an engine that reads neither 4-bit blocks nor adapters.

An export is judged by what is read back from it: the folder is loaded again and compared with the policy.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import AutoModelForCausalLM
from transformers.core_model_loading import revert_weight_conversion
from transformers.integrations.bitsandbytes import Bnb4bitDeserialize

from lean_align.errors import ModelError
from lean_align.memory import release_memory
from lean_align.policy.adapters import some
from lean_align.policy.loading import Policy
from lean_align.policy.merging import Weight, merged_weights
from lean_align.policy.saving import like_other_files, writing_tensors
from lean_align.types import Prompt

INDEX = "model.safetensors.index.json"
SHARD_BYTES = 2 * 2**30
_LAYER = re.compile(r"^.*?\.\d+\.")


def save_dense(policy: Policy, folder: Path, dtype: torch.dtype, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the policy with its 4-bit weights decoded and its adapter merged, as transformers reads a model.

    Decoding is exact: the numbers are those that bitsandbytes multiplies with.  W + (alpha / r) B A is summed in
    float32, then rounded to `dtype`.  Names and layout are those of the model's own checkpoints: experts that
    transformers holds in one tensor are written one by one where the family's files have them so.  Matrices that the
    model ties and an adapter sets apart are both written, and the configuration says that they are not tied.

    Parameters
    ----------
    policy : Policy
        Left as it is.  A policy without an adapter gives its base.
    folder : Path
        Made when absent.  Gets weights, configuration and tokenizer.
    dtype : torch.dtype
        Of the weights on disk.  In bfloat16 an entry moves only where its update is larger than about W / 512: after
        a short training most of an adapter is lost, so merge in float32.
    shard_bytes : int
        Size of a file; so many bytes, or a decoder layer's where those are more, are held twice in memory beside
        the policy.

    Raises
    ------
    ModelError
        When the adapter is of a kind that cannot be merged, or the folder does not read back as the policy: see
        `check_export`, which runs here.
    DiskFullError
    """
    folder.mkdir(parents=True, exist_ok=True)
    model = policy.causal_lm
    weights, untied = _written(list(merged_weights(model)), set(model._keys_to_ignore_on_save or ()))
    names: dict[str, str] = {}
    total = 0
    for count, shard in enumerate(_shards(_parts(model, weights, dtype, "cpu"), shard_bytes), start=1):
        file = f"model-{count:05}.safetensors"
        with writing_tensors(folder):
            save_file(shard, folder / file, metadata={"format": "pt"})
        like_other_files(folder / file)
        names |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in shard.values())
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": names}))
    config = _config(model, dtype, untied)
    (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True, default=str))
    policy.encoder.tokenizer.save_pretrained(folder)
    check_export(policy, folder, dtype)


def changed_weights(policy: Policy, dtype: torch.dtype) -> Iterator[tuple[str, torch.Tensor]]:
    """Weights that training changes, with the adapter in them: for an engine that loaded a folder of `save_dense`.

    Engines join maps of a decoder layer, such as those of queries, keys and values, and take what they have joined
    only as a whole: of a layer in which anything changes all weights are given, and elsewhere those of the module.

    Parameters
    ----------
    policy : Policy
        Left as it is.
    dtype : torch.dtype
        Sums are taken in float32 before they are rounded to it.

    Yields
    ------
    (str, tensor)
        Name in checkpoints, and the weight on the policy's device.  A decoder layer is held at a time.

    Raises
    ------
    ModelError
        When the adapter is of a kind that cannot be merged.
    """
    model = policy.causal_lm
    weights, _ = _written(list(merged_weights(model)), set(model._keys_to_ignore_on_save or ()))
    changed = {_unit(weight.name) for weight in weights if weight.source != weight.base or weight.is_trained}
    with torch.no_grad():
        for part in _parts(model, [w for w in weights if _unit(w.name) in changed], dtype, policy.device):
            yield from part.items()


def _unit(name: str) -> str:
    """The decoder layer that a weight belongs to, or its module outside of them."""
    layer = _LAYER.match(name)
    return layer[0] if layer else name.rpartition(".")[0]


def _written(weights: list[Weight], ignored: set[str]) -> tuple[list[Weight], bool]:
    """Those that a checkpoint holds, tied ones once, and whether an adapter set apart what the model ties."""
    tied: dict[int, list[Weight]] = defaultdict(list)
    for weight in weights:
        if weight.name not in ignored:
            tied[weight.base].append(weight)
    apart = {base for base, group in tied.items() if len({weight.source for weight in group}) > 1}
    first = {id(group[0]) for group in tied.values()}
    return [w for w in weights if id(w) in first or (w.base in apart and w.name not in ignored)], bool(apart)


def _config(model: Any, dtype: torch.dtype, untied: bool) -> dict[str, Any]:
    found: dict[str, Any] = model.config.to_dict()
    for key in ("quantization_config", "auto_map"):
        found.pop(key, None)
    found["dtype"] = str(dtype).removeprefix("torch.")
    if untied:
        for part in (found, *(value for value in found.values() if isinstance(value, dict))):
            if part is found or "tie_word_embeddings" in part:
                part["tie_word_embeddings"] = False
    return found


def _parts(
    model: Any, weights: list[Weight], dtype: torch.dtype, device: torch.device | str
) -> Iterator[dict[str, torch.Tensor]]:
    """Weights under their names in checkpoints, a decoder layer at a time."""
    # what decodes blocks that lay in the checkpoint has no part in a folder of whole weights
    conversions = [
        conversion
        for conversion in getattr(model, "_weight_conversions", None) or ()
        if not any(isinstance(operation, Bnb4bitDeserialize) for operation in getattr(conversion, "operations", ()))
    ]
    names = SimpleNamespace(
        _weight_conversions=conversions or None, config=model.config, base_model_prefix=model.base_model_prefix
    )
    for _, group in groupby(weights, key=lambda weight: (found := _LAYER.match(weight.name)) and found[0]):
        part = {}
        for weight in group:
            value = weight.value()
            if not (weight.is_buffer or value.is_floating_point()):
                raise ModelError(
                    f"{weight.name} is stored as {str(value.dtype).removeprefix('torch.')}, in a quantisation other "
                    "than NF4; expected plain numbers or NF4. Sample with rollouts.engine=transformers."
                )
            part[weight.name] = value.to(device=device, dtype=None if weight.is_buffer else dtype)
        if conversions:
            part = revert_weight_conversion(names, part)
        yield {name: tensor.contiguous() for name, tensor in part.items()}


def _shards(parts: Iterable[dict[str, torch.Tensor]], shard_bytes: int) -> Iterator[dict[str, torch.Tensor]]:
    shard: dict[str, torch.Tensor] = {}
    for part in parts:
        for name, tensor in part.items():
            if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > shard_bytes:
                yield shard
                shard = {}
            # experts cut out of one tensor would be views of it, which safetensors refuses
            shard[name] = tensor if tensor.untyped_storage().nbytes() == tensor.nbytes else tensor.clone()
    if shard:
        yield shard


_TEXT = (
    "Ann has 12 apples, and Ben has 3 boxes with 5 apples in each. How many apples do they have together? "
    "Ben has 3 * 5 = 15 apples, so together they have 12 + 15 = 27."
)
TOLERANCE, TOLERANCE_16_BIT = 0.01, 0.2
"""Nats.  Rounding alone gave SmolLM2-135M 0.04 to 0.06 in 16 bits, and less than 0.0001 in float32."""


def check_export(policy: Policy, folder: Path, dtype: torch.dtype) -> None:
    """Refuse a folder that transformers does not read back as the policy.

    Checked are 1. the keys: every weight of the architecture that the folder's configuration names is there, of the
    right size, and none besides; 2. log-probabilities on one prompt of a few dozen tokens, with all tokens whose
    embedding an adapter trains: at each position the mean over the policy's next tokens of |log p - log q|, p the
    policy and q the folder; over positions the mean, or the median where one of the two computes in 16 bits (there a
    router near a tie may send a token to another expert).

    Parameters
    ----------
    policy : Policy
    folder : Path
        As `save_dense` wrote it.
    dtype : torch.dtype
        Of its weights.

    Raises
    ------
    ModelError

    Notes
    -----
    The folder is loaded on the CPU and in the type of its files, so that its weights are the files' own pages:
    beside the policy it takes no memory that the system cannot have back, and none of a card.  Experts that the files
    hold one by one are the exception: put together they take their own bytes.
    """
    reread, found = AutoModelForCausalLM.from_pretrained(
        folder, dtype=dtype, device_map={"": "cpu"}, trust_remote_code=False, output_loading_info=True
    )
    wrong = [
        f"{len(found[kind])} {kind.replace('_', ' ')} ({some(found[kind])})"
        for kind in ("missing_keys", "unexpected_keys")
        if found[kind]
    ]
    if wrong:
        raise ModelError(
            f"{_name(policy)} as a folder of whole weights does not read back: {'; '.join(wrong)}. This architecture "
            "cannot be handed to vLLM; set rollouts.engine=transformers."
        )
    ids = torch.tensor([_tokens(policy)])
    with torch.no_grad():
        ours, theirs = (
            model(input_ids=ids.to(device), use_cache=False).logits[0].float().log_softmax(-1).cpu()
            for model, device in ((policy.model, policy.device), (reread.eval(), torch.device("cpu")))
        )
    del reread
    release_memory()
    gaps = (ours.exp() * (ours - theirs).abs().nan_to_num(nan=torch.inf)).sum(-1)
    few_bits = 2 in (dtype.itemsize, policy.causal_lm.dtype.itemsize)
    gap = float(gaps.median() if few_bits else gaps.mean())
    tolerance = TOLERANCE_16_BIT if few_bits else TOLERANCE
    if not gap <= tolerance:
        raise ModelError(
            f"{_name(policy)} as a folder of whole weights reads back as another model: log-probabilities differ by "
            f"{gap:.3g} nats (expected at most {tolerance}). It cannot be handed to vLLM; set "
            "rollouts.engine=transformers."
        )


def _tokens(policy: Policy) -> list[int]:
    """A prompt as the policy reads it, then every token whose row of the embedding is trained apart."""
    ids = list(policy.encoder.encode(Prompt("export", _TEXT, "27")))
    for config in getattr(policy.model, "peft_config", {}).values():
        indices: Any = getattr(config, "trainable_token_indices", None) or ()
        groups = indices.values() if isinstance(indices, dict) else [indices]
        ids += [int(index) for group in groups for index in group][:256]
    return ids


def _name(policy: Policy) -> str:
    return str(policy.causal_lm.config.name_or_path)
