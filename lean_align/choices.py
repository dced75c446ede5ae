"""A recipe's choice between what is always available and what is faster on a card: the engine, and the backend."""

from __future__ import annotations

from importlib.util import find_spec

from lean_align.errors import MissingPackageError


def choose_engine(engine: str) -> str:
    """`transformers` or `vllm`: what `rollouts.engine` means on this machine; see `choose`."""
    return choose("rollouts.engine", engine, "transformers", "vllm")


def choose_backend(backend: str, stage: str = "training", only_lean: bool = False) -> str:
    """`lean`, `trl` or `unsloth`: what a training stage's `backend` means on this machine; see `choose`.

    `only_lean` says that the stage asks for what only lean can do.
    """
    if backend == "trl":
        return "trl"
    if backend == "auto" and only_lean:
        return "lean"
    return choose(f"{stage}.backend", backend, "lean", "unsloth")


def choose(key: str, setting: str, plain: str, faster: str) -> str:
    """What a setting means on this machine.  Imports only torch, and only for `auto`.

    Parameters
    ----------
    key : str
        The recipe's key, for the error.
    setting : str
        `plain`, `faster` or `auto`, which takes the faster one where there is a card and it is installed.
    plain, faster : str
        Names of packages.

    Returns
    -------
    str
        `plain` or `faster`.

    Raises
    ------
    MissingPackageError
        When the faster one is asked for and is not installed.
    """
    installed = find_spec(faster) is not None
    if setting == faster and not installed:
        raise MissingPackageError(
            f"{key} is {faster}, which is not installed. Install it (in a checkout, with a card: pip install '.[gpu]'; "
            f"on a CPU: make setup-stack, see docs/install.md), or set {key}={plain}."
        )
    if setting == "auto":
        import torch

        return faster if installed and torch.cuda.is_available() else plain
    return setting
