"""Files of tensors as the others are: of the mode that the user's umask gives, and a full disk reported in plain
words."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from lean_align.disk import disk_errors

_TORCH_SAYS = ("PytorchStreamWriter failed writing", "unexpected pos")  # torch.save, of a file cut short


@contextmanager
def writing_tensors(folder: Path) -> Iterator[None]:
    """Turn "no space left" into a message, also where safetensors' or torch's own error hides it.

    Raises
    ------
    DiskFullError
    """
    with disk_errors(folder):
        try:
            yield
        except (SafetensorError, RuntimeError) as error:
            codes = [code for code in (errno.ENOSPC, errno.EDQUOT) if f"os error {code})" in str(error)]
            if not codes and not any(words in str(error) for words in _TORCH_SAYS):
                raise
            raise OSError(codes[0] if codes else errno.ENOSPC, str(error)) from error


def like_other_files(path: Path) -> None:
    """Give a file the mode that a new one gets; safetensors makes its own readable by their owner only."""
    beside = path.with_name(f".{path.name}.mode")
    beside.touch()
    path.chmod(beside.stat().st_mode)
    beside.unlink()
