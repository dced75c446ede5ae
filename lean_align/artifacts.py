"""The run folder: atomic writes, fingerprints, and the life of a stage's folder.

A stage works in `<stage>.partial/`.  `inputs.json` is written there first and says what the work
depends on; data follow; `manifest.json` is written last; then the folder is renamed to `<stage>/`.
A folder without `.partial` is therefore complete, and its manifest tells what it was made from.

A
folder damaged afterwards is refused before anything is computed, with the command that deletes it: a stage that is run
again gives the same files.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lean_align.advice import made_anew, quoted
from lean_align.disk import disk_errors
from lean_align.errors import DiskFullError, StageError, StaleStageError
from lean_align.files import (
    MANIFEST,
    canonical_json,
    file_hash,
    folder_hash,
    json_text,
    read_json,
    read_jsonl,
    safe_name,
    stage_of,
    text_hash,
    write_json,
    write_jsonl,
    write_text,
)
from lean_align.memory import peak_rss_bytes, peak_vram_bytes

__all__ = [
    "BESIDE",
    "FORMAT_VERSION",
    "INPUTS",
    "MANIFEST",
    "SEAL",
    "StageFolder",
    "canonical_json",
    "changes",
    "check_inputs",
    "check_outputs",
    "check_seal",
    "disk_errors",
    "file_hash",
    "folder_hash",
    "json_text",
    "open_stage_folder",
    "outputs_fingerprint",
    "read_inputs",
    "read_json",
    "read_jsonl",
    "read_manifest",
    "safe_name",
    "seal_of",
    "stage_folder",
    "stage_of",
    "text_hash",
    "write_json",
    "write_jsonl",
    "write_text",
]

FORMAT_VERSION = 2
INPUTS = "inputs.json"
BESIDE = "beside"
"""Key of a manifest: SHA-256 of the files that the stage wrote into the run's folder itself."""
SEAL = "seal"
"""Key of a manifest: SHA-256 of everything else in it. Manifests of earlier versions have none."""
_COST = ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes")
_KEYS = {"format_version": int, "inputs": dict, "outputs": dict, "counts": dict}


def changes(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """List what differs between two nested mappings, as 'key: old -> new' lines; a missing key is `not recorded`."""
    lines = []
    for key in sorted({*old, *new}):
        before, after = old.get(key), new.get(key)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            lines += changes(before, after, f"{prefix}{key}.")
        elif before != after:
            was, now = (repr(tree[key]) if key in tree else "not recorded" for tree in (old, new))
            lines.append(f"{prefix}{key}: {was} -> {now}")
    return lines


@dataclass
class StageFolder:
    """A stage's folder while it is being filled: `path` is `<stage>.partial/`.

    `earlier_seconds` and the earlier peaks are those of other processes that worked here.  `made_by` says on what the
    stage ran: nothing depends on it.  `beside` names the files that it wrote into the run's folder itself.
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
    beside: tuple[str, ...] = ()

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
        files = {
            p.relative_to(self.path).as_posix(): p
            for p in sorted(self.path.rglob("*"))
            if p.is_file()
            and p.relative_to(self.path).as_posix() not in (INPUTS, MANIFEST)
            and not p.name.startswith(".")  # locks of runs inside
        }
        written = {
            "format_version": FORMAT_VERSION,
            "inputs": self.inputs,
            "outputs": {name: file_hash(path) for name, path in files.items()},
            "counts": self.counts,
            "made_by": self.made_by,
            BESIDE: {n: file_hash(p) for n in self.beside if (p := self.final.parent / n).is_file()},
            **self.cost(),
        }
        manifest = json.loads(json.dumps(written))  # the seal is that of what will be read
        write_json(self.path / MANIFEST, manifest | {SEAL: seal_of(manifest)})
        _give_mode(self.path / MANIFEST, *files.values())
        self.path.replace(self.final)
        (self.final / INPUTS).unlink()


def _give_mode(like: Path, *paths: Path) -> None:
    """Files that a library made private, as safetensors does, get the mode that the umask gives."""
    mode = stat.S_IMODE(like.stat().st_mode)
    for path in paths:
        if not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != mode:
            with suppress(PermissionError):  # of a file system without modes: the stage is whole all the same
                path.chmod(mode)


def seal_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 of a manifest's contents; of its outputs the names alone, since the files themselves give the hashes."""
    rest = {key: value for key, value in manifest.items() if key != SEAL}
    return text_hash(canonical_json({**rest, "outputs": sorted(rest["outputs"])}))


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a finished stage, or None where the stage has not finished.

    Raises
    ------
    StaleStageError
        When the folder has files and no manifest, or one that is damaged.
    """
    path = folder / MANIFEST
    if not path.is_file() and (not os.path.lexists(folder) or (folder.is_dir() and not any(folder.iterdir()))):
        return None
    if not path.is_file():  # asked again: a worker may have ended the stage just now
        lacks = (
            f"is a link to {os.readlink(folder)}, which does not exist" if not folder.exists() else f"has no {MANIFEST}"
        )
        raise StaleStageError(f"{folder} {lacks}, so there is no telling whether it is complete. {made_anew(folder)}")
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise StaleStageError(f"{path} is not valid JSON ({error}). {made_anew(folder)}") from error
    if not isinstance(manifest, dict) or not all(isinstance(manifest.get(key), kind) for key, kind in _KEYS.items()):
        raise StaleStageError(f"{path} is not a manifest: it lacks one of {', '.join(_KEYS)}. {made_anew(folder)}")
    return manifest


def check_seal(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a manifest that was changed after it was written; one of an earlier version has no seal and no other key
    either.

    Raises
    ------
    StaleStageError
    """
    if not (
        manifest[SEAL] == seal_of(manifest) if SEAL in manifest else manifest.keys() <= {*_KEYS, *_COST, "made_by"}
    ):
        raise StaleStageError(f"{folder / MANIFEST} was changed after it was written. {made_anew(folder)}")


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
            + f"\n  rm -r {quoted(folder, *dependent)}"  # of a link the link alone: what it leads to is another run's
        )


def check_outputs(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Refuse a finished folder whose files are gone or no longer what the manifest says; also the files next to it.

    Raises
    ------
    StaleStageError
        With the command that deletes what is to be made again.
    """
    check_seal(folder, manifest)
    expected = {folder / name: digest for name, digest in manifest["outputs"].items()}
    for name, digest in manifest.get(BESIDE, {}).items():
        path = folder.parent / name
        if path.exists() or not folder.is_symlink():  # what links to another run's stage may do without
            expected[path] = digest
    for path, digest in expected.items():
        if not path.is_file() or file_hash(path) != digest:
            what = "was changed after it was written" if path.is_file() else "is missing"
            raise StaleStageError(f"{path} {what}. {_made_anew_with(folder, path)}")


def _made_anew_with(folder: Path, path: Path) -> str:
    own = path.is_relative_to(folder)
    return made_anew(folder) if own else f"The stage {folder.name} writes it. {made_anew(folder)}"


def outputs_fingerprint(folder: Path) -> str:
    """One hash for all that a finished stage wrote."""
    manifest = read_manifest(folder)
    if manifest is None:
        raise StageError(f"{folder} has not finished. Run the stage that writes it first.")
    return text_hash(canonical_json(manifest["outputs"]))


def open_stage_folder(run_dir: Path, stage: str, inputs: Mapping[str, Any], resumable: bool = True) -> StageFolder:
    """Make `<stage>.partial/`, or continue the one that is there; the caller calls `finish`.

    A stage that is not `resumable` takes seconds and starts afresh, whatever an earlier attempt left.

    Raises
    ------
    StaleStageError
        When the folder holds work made from other inputs, or the stage's final folder is there: whole, or damaged.
    """
    partial, final = run_dir / f"{stage}.partial", run_dir / stage
    if read_manifest(final) is not None:
        raise StaleStageError(f"{final} is finished. {made_anew(final)}")
    if os.path.lexists(partial) and not partial.is_dir():
        raise StaleStageError(f"{partial} is not a folder. {made_anew(partial)}")
    partial.mkdir(parents=True, exist_ok=True)
    recorded = read_inputs(partial) if resumable else None
    if recorded is None:
        shutil.rmtree(partial)
        partial.mkdir()
        recorded = {"inputs": inputs, "wall_seconds": 0.0}
        write_json(partial / INPUTS, recorded)
    check_inputs(partial, recorded["inputs"], inputs)
    return StageFolder(partial, final, inputs, recorded["wall_seconds"])


def read_inputs(partial: Path) -> dict[str, Any] | None:
    """What unfinished work was made from, and its seconds; None where that is not recorded, so the work is of no use.

    Raises
    ------
    StaleStageError
        When it was damaged.
    """
    path = partial / INPUTS
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {"inputs": dict(found["inputs"]), "wall_seconds": float(found["wall_seconds"])}
    except (ValueError, RecursionError, KeyError, TypeError) as error:
        raise StaleStageError(
            f"{path} is damaged ({type(error).__name__}: {error}), so there is no telling what the work there was made "
            f"from. {made_anew(partial)}"
        ) from error


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
