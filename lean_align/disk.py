"""A full disk, recognised in whatever words a library reports it."""

from __future__ import annotations

import errno
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lean_align.errors import DiskFullError
from lean_align.memory import human_bytes

_CODES = (errno.ENOSPC, errno.EDQUOT)
# safetensors and torch raise errors of their own, and NumPy an OSError without a number
_WORDS = re.compile(
    rf"No space left on device|Disk quota exceeded|os error ({errno.ENOSPC}|{errno.EDQUOT})\b"
    r"|\d+ requested and \d+ written|PytorchStreamWriter failed writing|inline_container\.cc.*unexpected pos"
)


def is_disk_full(error: BaseException) -> bool:
    """Whether an error, or any error that caused it, says that no space or no quota is left."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _CODES:
            return True
        if isinstance(seen, Exception) and _WORDS.search(str(seen)):
            return True
        seen = seen.__cause__
    return False


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into a message that names the folder and the space left.

    Raises
    ------
    DiskFullError
    """
    try:
        yield
    except DiskFullError:
        raise
    except Exception as error:
        if not is_disk_full(error):
            raise
        folder = next(p for p in (path, *path.absolute().parents) if p.is_dir())
        raise DiskFullError(
            f"the disk of {folder} is full ({human_bytes(shutil.disk_usage(folder).free)} free). Everything written so "
            "far is kept: make room, then run the same command again to continue."
        ) from error
