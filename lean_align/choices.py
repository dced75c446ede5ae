"""A recipe's choice between what is always there and what is faster on a card, such as trl and unsloth."""

from __future__ import annotations

from importlib.util import find_spec

from lean_align.errors import MissingPackageError


def choose(key: str, setting: str, plain: str, faster: str) -> str:
    """What a setting means on this machine.  Imports torch only, and that only for `auto`.

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
            f"{key} is {faster}, which is not installed. Install it (with a card: pip install 'lean-align[gpu]'; on a "
            f"CPU: make setup-stack, see the README), or set {key}={plain}."
        )
    if setting == "auto":
        import torch

        return faster if installed and torch.cuda.is_available() else plain
    return setting
