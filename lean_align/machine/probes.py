"""What may crash or hang, one probe per process: `python -m lean_align.machine.probes NAME`.

A crash, a hang or an import that fails is a fact, never a traceback: the child has a session of its own, and is killed
with what it started when its time is up.  It prints {"values": ..., "error": null} to standard output; whatever else
is printed, tracebacks too, goes to standard error.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

from lean_align.data import GENERATED
from lean_align.errors import GradientError, LeanAlignError
from lean_align.machine.findings import MAIN_RECIPE
from lean_align.recipe import DataRecipe, ModelRecipe, Recipe, load_recipe

RECIPES = ("demo", "gsm8k-cpu", "gsm8k")
"""Shipped recipes that a machine is checked against; each plan takes seconds. `lean-align plan` plans any other."""
HUB_SECONDS = 5.0
_LINE_CHARACTERS = 300
SECONDS = {"hub": 30.0}
OTHER_SECONDS = 300.0
"""Long: a first import of Unsloth or vLLM compiles, and reads gigabytes from a cold disk."""


@dataclass(frozen=True)
class Report:
    """What a probe in a child process brought back: values, or the line that says why there are none."""

    values: Mapping[str, Any]
    error: str | None = None


@cache
def shipped() -> dict[str, Recipe]:
    """The recipes of `RECIPES`, read."""
    return {name: load_recipe(name) for name in RECIPES}


def hub_sources(recipe: Recipe) -> tuple[str, ...]:
    """What the recipe takes from the hub: its model and its data sets, each once."""
    names = (recipe.model.name, recipe.data.train_path, recipe.data.test_path)
    return tuple(dict.fromkeys(name for name in names if name not in (*GENERATED, None)))


def run_probe(name: str, environment: Mapping[str, str] | None = None, seconds: float | None = None) -> Report:
    """Run one of `lean_align.machine.probes` in a child process.

    Parameters
    ----------
    name : str
    environment : mapping, optional
        Variables that override those of this process.
    seconds : float, optional
        Wall-clock limit; by the probe's name when not given.

    Returns
    -------
    Report
        What the probe reported, else why it did not: its error, the signal that ended it, or the time it took.
    """
    seconds = SECONDS.get(name, OTHER_SECONDS) if seconds is None else seconds
    # files, not pipes: a pipe stays open as long as any process that the child started
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        output, errors = Path(folder) / "stdout", Path(folder) / "stderr"
        with output.open("wb") as out, errors.open("wb") as err:
            process = _start(name, {"TMPDIR": folder, **(environment or {})}, stdout=out, stderr=err)
            try:
                code = process.wait(seconds)
            except subprocess.TimeoutExpired:
                return Report({}, f"no answer in {seconds:g} s")
            finally:
                _end(process)
        return _report(output.read_text(errors="replace"), errors.read_text(errors="replace"), code)


def _start(name: str, environment: dict[str, str], **streams: Any) -> subprocess.Popen[bytes]:
    paths = [os.path.abspath(path) for path in sys.path]
    return subprocess.Popen(
        [sys.executable, "-P", "-m", "lean_align.machine.probes", name],
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths), **environment},
        start_new_session=True,
        **streams,
    )


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _report(output: str, errors: str, code: int) -> Report:
    try:
        report = json.loads(output)
        return Report(report["values"], report["error"])
    except (ValueError, KeyError, TypeError):
        last = next((line.strip() for line in reversed(errors.splitlines()) if line.strip()), "")
        ended = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return Report({}, f"{ended}: {last}" if last else ended)


def torch_build() -> dict[str, Any]:
    """Build of torch, the cards that it sees, and why it sees none."""
    import torch

    cards, fault = [], None
    if torch.cuda.is_available():
        cards = [_card(torch.cuda.get_device_properties(i), i) for i in range(torch.cuda.device_count())]
    elif torch.version.cuda is not None:
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except (RuntimeError, AssertionError) as error:  # whatever the driver says
            fault = error_line(error)
    return {"version": torch.__version__, "cuda": torch.version.cuda, "cards": cards, "fault": fault}


def _card(properties: Any, index: int) -> dict[str, Any]:
    import torch

    return {
        "name": properties.name,
        "total_bytes": properties.total_memory,
        "free_bytes": torch.cuda.mem_get_info(index)[0],
        "capability": [properties.major, properties.minor],
    }


def four_bit_backward() -> dict[str, Any]:
    """Device of one backward pass through the embedded model in 4-bit with a fresh adapter.

    Raises
    ------
    GradientError
        When a LoRA B matrix has no finite non-zero gradient (A's are zero while B is).
    """
    import torch

    from lean_align.policy import load_policy

    dtype = "bfloat16" if torch.cuda.is_available() else "float32"  # as gsm8k and as demo
    recipe = load_recipe("demo", {"model.quantization": "nf4", "model.dtype": dtype})
    policy = load_policy(recipe.model, recipe.data, recipe.lora)
    ids = torch.arange(5, 37, device=policy.device)[None]
    with torch.no_grad():  # on some processors it is this pass that breaks the next one's backward
        policy.model(ids)
    policy.model(ids, labels=ids).loss.backward()
    matrices = {name: p for name, p in policy.model.named_parameters() if "lora_B" in name}
    for name, parameter in matrices.items():
        size = None if parameter.grad is None else float(parameter.grad.norm())
        if size is None or not 0 < size < float("inf"):
            raise GradientError(f"{name}: its gradient's norm is {size}; expected a finite number above 0.")
    return {"device": str(policy.device), "matrices": len(matrices)}


def imported(module: str) -> dict[str, Any]:
    """Version of an optional package that this process could import."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.chdir(folder)  # Unsloth writes a cache to where it is imported
        version = getattr(import_module(module), "__version__", None)
        os.chdir(os.sep)
    return {"version": None if version is None else str(version)}


def hub() -> dict[str, Any]:
    """Whether the hub serves the first file of the main recipe's model; it is not asked where it is switched off."""
    import httpx
    from huggingface_hub import constants, get_session

    facts = {"endpoint": constants.ENDPOINT, "offline": bool(constants.HF_HUB_OFFLINE), "fault": None}
    if not facts["offline"]:
        url = f"{constants.ENDPOINT}/{shipped()[MAIN_RECIPE].model.name}/resolve/main/config.json"
        try:
            answer = get_session().head(url, timeout=HUB_SECONDS)  # a redirect is an answer
            facts["fault"] = None if answer.status_code < 400 else f"HTTP status {answer.status_code} for {url}"
        except httpx.HTTPError as error:
            facts["fault"] = error_line(error)
    return facts


def hub_cache() -> dict[str, Any]:
    """Folder of the hub's cache, and what of each recipe's model and data is not in it.  Needs HF_HUB_OFFLINE=1."""
    from huggingface_hub import constants

    missing = {
        name: [source for source in hub_sources(recipe) if not is_cached(source, recipe)]
        for name, recipe in shipped().items()
    }
    return {"folder": str(constants.HF_HUB_CACHE), "missing": missing}


def plans() -> dict[str, Any]:
    """What `lean-align plan` says about each recipe on this machine, or why it says nothing."""
    from lean_align.machine.plan import plan_run
    from lean_align.stages import GRAPH

    found, faults = {}, {}
    for name, recipe in shipped().items():
        try:
            found[name] = plan_run(recipe, GRAPH.planned(recipe)).as_json()
        except Exception as error:  # one that cannot be planned must not stop the others
            faults[name] = str(error) if isinstance(error, LeanAlignError) else error_line(error)
    return {"plans": found, "faults": faults}


def is_cached(source: str, recipe: Recipe) -> bool:
    """Whether a recipe's model or data set can be read without the hub."""
    if Path(source).exists():  # a local folder of that name goes first
        return True
    return model_is_cached(recipe.model) if source == recipe.model.name else data_is_cached(source, recipe.data)


def model_is_cached(model: ModelRecipe) -> bool:
    """Whether configuration, tokenizer and weights of a hub model lie in the cache."""
    from huggingface_hub import try_to_load_from_cache

    config = try_to_load_from_cache(model.name, "config.json", revision=model.revision)
    if not isinstance(config, str):
        return False
    names = {path.name for path in Path(config).parent.iterdir() if path.exists()}  # a link may lead nowhere
    return any(n.startswith("tokenizer") for n in names) and any(n.endswith((".safetensors", ".bin")) for n in names)


def data_is_cached(source: str, data: DataRecipe) -> bool:
    """Whether a hub data set can be read without the hub."""
    import datasets

    try:
        datasets.load_dataset_builder(source, data.config)
    except Exception:  # the hub client raises a dozen kinds
        return False
    return True


def error_line(error: BaseException) -> str:
    """Kind and text of an error in one line: of several lines the first and the last."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[0] if len(lines) == 1 else " ... ".join(lines[:1] + lines[-1:])
    return f"{type(error).__name__}: {text}"[:_LINE_CHARACTERS]


PROBES: Mapping[str, Callable[[], dict[str, Any]]] = {
    "torch": torch_build,
    "bitsandbytes": four_bit_backward,
    "unsloth": lambda: imported("unsloth"),
    "vllm": lambda: imported("vllm"),
    "hub": hub,
    "cache": hub_cache,
    "plan": plans,
}


def report(name: str) -> dict[str, Any]:
    """Run a probe; an error becomes part of the report."""
    try:
        return {"values": PROBES[name](), "error": None}
    except (Exception, SystemExit) as error:  # a package may end the process that imports it
        traceback.print_exc()
        return {"values": {}, "error": error_line(error)}


def main() -> None:
    """The child: run the probe that the first argument names."""
    output = os.dup(1)
    os.dup2(2, 1)  # libraries print to standard output
    os.write(output, f"{json.dumps(report(sys.argv[1]))}\n".encode())


if __name__ == "__main__":
    main()
