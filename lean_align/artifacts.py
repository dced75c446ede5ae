"""The run folder: atomic writes, fingerprints, and the life of a stage's folder.

A stage works in `<stage>.partial/`.  `inputs.json` is written there first and says what the work
depends on; data follow; `manifest.json` is written last; then the folder is renamed to `<stage>/`.
A folder without `.partial` is therefore complete, and its manifest tells what it was made from.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lean_align.errors import DiskFullError, StageError, StaleStageError
from lean_align.memory import human_bytes, peak_rss_bytes, peak_vram_bytes

FORMAT_VERSION = 2
MANIFEST = "manifest.json"
INPUTS = "inputs.json"
_LONGEST_NAME = 200
"""Bytes of a file's name; most file systems take 255."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)


def text_hash(text: str) -> str:
    """SHA-256 of a text, as hexadecimal digits."""
    return hashlib.sha256(text.encode()).hexdigest()


def safe_name(text: str) -> str:
    """A text as the name of one file or folder: it leads nowhere else and is not hidden; ordinary names stay."""
    plain = "".join(letter if letter.isprintable() and letter not in "/\\" else "_" for letter in text).strip()
    cut = plain.encode("utf-8", "replace")[:_LONGEST_NAME].decode("utf-8", "ignore")
    return f"_{cut.lstrip('.')}" if cut.startswith(".") or not cut else cut


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_hash(folder: Path) -> str:
    """SHA-256 over the names and contents of every file below a folder; hidden files are left out."""
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    names = [p.relative_to(folder).as_posix() for p in files]
    return text_hash(
        canonical_json({n: file_hash(p) for n, p in zip(names, files) if not any(s[0] == "." for s in n.split("/"))})
    )


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn "no space left on device" into a message that names the folder and the space left."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        folder = path if path.is_dir() else path.parent
        free = human_bytes(shutil.disk_usage(folder).free) if folder.exists() else "unknown"
        raise DiskFullError(
            f"the disk of {folder} is full ({free} free). Everything written so far is kept: "
            "make room, then run the same command again to continue."
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a file so that it is either the old one or the whole new one."""
    with disk_errors(path):
        partial = path.with_name(path.name + ".tmp")
        with partial.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """Read a JSON file; a damaged one is named."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise StageError(f"{path} is missing. Run the stage that writes it first.") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is not valid JSON ({error}). Delete it, then run the same command again.") from error


def write_jsonl(path: Path, rows: Iterator[Mapping[str, Any]] | list[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read a file of one JSON object a line."""
    if not path.exists():
        raise StageError(f"{path} is missing. Run the stage that writes it first.")
    try:
        with path.open(encoding="utf-8") as file:
            return [json.loads(line) for line in file if line.strip()]
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise StageError(f"{path} is damaged ({error}). Delete its folder, then run the same command again.") from error


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as 'key: old -> new' lines."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changes(before, after, f"{prefix}{key}.")
        elif before != after:
            lines.append(f"{prefix}{key}: {before!r} -> {after!r}")
    return lines


@dataclass
class StageFolder:
    """A stage's folder while it is being filled: `path` is `<stage>.partial/`.

    `earlier_seconds` and the earlier peaks are those of other processes that worked here.  `made_by` says on what the
    stage ran: nothing depends on it.
    """

    path: Path
    final: Path
    inputs: Mapping[str, Any]
    earlier_seconds: float
    earlier_peak_rss_bytes: int = 0
    earlier_peak_vram_bytes: int | None = None
    started: float = field(default_factory=time.monotonic)
    counts: dict[str, Any] = field(default_factory=dict)
    made_by: dict[str, Any] = field(default_factory=dict)

    def cost(self) -> dict[str, Any]:
        """Seconds at work and peaks of memory so far, over all processes."""
        vram = [peak for peak in (self.earlier_peak_vram_bytes, peak_vram_bytes()) if peak is not None]
        return {
            "wall_seconds": round(self.earlier_seconds + time.monotonic() - self.started, 3),
            "peak_rss_bytes": max(self.earlier_peak_rss_bytes, peak_rss_bytes()),
            "peak_vram_bytes": max(vram, default=None),
        }

    def finish(self) -> None:
        """Write the manifest, and give the folder its final name."""
        for leftover in self.path.rglob("*.tmp"):
            leftover.unlink()
        outputs = {
            p.relative_to(self.path).as_posix(): file_hash(p)
            for p in sorted(self.path.rglob("*"))
            if p.is_file()
            and p.relative_to(self.path).as_posix() not in (INPUTS, MANIFEST)
            and not p.name.startswith(".")  # locks of runs inside
        }
        write_json(
            self.path / MANIFEST,
            {
                "format_version": FORMAT_VERSION,
                "inputs": self.inputs,
                "outputs": outputs,
                "counts": self.counts,
                "made_by": self.made_by,
                **self.cost(),
            },
        )
        self.path.replace(self.final)
        (self.final / INPUTS).unlink()


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None where the stage has not finished."""
    path = folder / MANIFEST
    return read_json(path) if path.exists() else None


def check_inputs(
    folder: Path, recorded: Mapping[str, Any], inputs: Mapping[str, Any], dependent: Sequence[Path] = ()
) -> None:
    """Refuse a folder that was made from other inputs; say what changed, and what to delete with it."""
    differences = changes(recorded, inputs)
    if differences:
        raise StaleStageError(
            f"{folder} was made from other inputs:\n  "
            + "\n  ".join(differences)
            + "\nChange them back, choose another folder, or delete what depends on them to have it made again:"
            + f"\n  rm -r {' '.join(str(path) for path in (folder, *dependent))}"
        )


def check_outputs(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a finished folder whose files are gone or no longer what the manifest says."""
    for name, digest in manifest["outputs"].items():
        path = folder / name
        if not path.exists() or file_hash(path) != digest:
            what = "was changed after it was written" if path.exists() else "is missing"
            raise StaleStageError(f"{path} {what}. Delete {folder} to have the stage run again.")


def outputs_fingerprint(folder: Path) -> str:
    """One hash for all that a finished stage wrote."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise StageError(f"{folder} has not finished. Run the stage that writes it first.")
    return text_hash(canonical_json(manifest["outputs"]))


def open_stage_folder(run_dir: Path, stage: str, inputs: Mapping[str, Any], resumable: bool = True) -> StageFolder:
    """Make `<stage>.partial/`, or go on with the one that is there; the caller calls `finish`.

    A stage that is not `resumable` takes seconds and starts anew, whatever an earlier attempt left.

    Raises
    ------
    StaleStageError
        When the folder holds work made from other inputs.
    """
    partial, final = run_dir / f"{stage}.partial", run_dir / stage
    partial.mkdir(parents=True, exist_ok=True)
    recorded = read_json(partial / INPUTS) if (partial / INPUTS).exists() else None
    if recorded is None or not resumable:
        shutil.rmtree(partial)
        partial.mkdir()
        recorded = {"inputs": inputs, "wall_seconds": 0.0}
        write_json(partial / INPUTS, recorded)
    check_inputs(partial, recorded["inputs"], inputs)
    return StageFolder(partial, final, inputs, recorded["wall_seconds"])


@contextmanager
def stage_folder(run_dir: Path, stage: str, inputs: Mapping[str, Any], resumable: bool = True) -> Iterator[StageFolder]:
    """Open `<stage>.partial/` as `open_stage_folder` does, and finish it when the block ends."""
    with disk_errors(run_dir):
        folder = open_stage_folder(run_dir, stage, inputs, resumable)
        earlier = folder.earlier_seconds
        try:
            yield folder
        except BaseException:
            seconds = earlier + time.monotonic() - folder.started
            with suppress(OSError, DiskFullError):  # the first error is the one to show
                write_json(folder.path / INPUTS, {"inputs": inputs, "wall_seconds": round(seconds, 3)})
            raise
        folder.finish()
