"""The gradient store: what lies on disk, what is refused, and what it costs in memory."""

from __future__ import annotations

import errno
import json
import shutil
import subprocess
import sys
import threading
import time
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lean_align.artifacts import stage_folder, write_json
from lean_align.disk import disk_errors
from lean_align.errors import DiskFullError, LeanAlignError, StoreError
from lean_align.stages.gradient_rows import check_projection
from lean_align.store import GradientStore, StoreWriter, open_store

IDS = ["a", "b", "c"]
ROOT = Path(__file__).parent.parent


def fill(folder: Path, vectors: Any, ids: list[str] | None = None) -> Path:
    vectors = np.asarray(vectors)
    with StoreWriter.open(folder, ids or [f"p-{i}" for i in range(len(vectors))], vectors.shape[1]) as writer:
        for row, vector in enumerate(vectors):
            writer.write(row, vector)
    return folder


def test_rows_by_hand(tmp_path: Path) -> None:
    """(3, 0, -4) has norm 5 and unit row (0.6, 0, -0.8); a zero gradient stays a zero row."""
    store = open_store(fill(tmp_path, [[3.0, 0.0, -4.0], [0.0, 0.0, 0.0]], ["x", "y"]))
    np.testing.assert_array_equal(store.rows, np.array([[0.6, 0.0, -0.8], [0, 0, 0]], dtype=np.float16))
    assert store.norms.tolist() == [5.0, 0.0]
    assert store.written.tolist() == [1, 1]
    assert store.prompt_ids == ("x", "y")
    assert (len(store), store.proj_dim) == (2, 3)


def test_files_are_plain_numpy_and_json(tmp_path: Path) -> None:
    """docs/store_format.md: other tools read these without lean_align."""
    fill(tmp_path, [[2.0, 0.0], [0.0, 4.0], [1.0, 1.0]], IDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "checksums.npy",
        "norms.npy",
        "projected.npy",
        "prompt_ids.json",
        "written.npy",
    ]
    rows, norms, written = (np.load(tmp_path / f"{name}.npy") for name in ("projected", "norms", "written"))
    assert (rows.dtype, norms.dtype, written.dtype) == (np.float16, np.float32, np.uint8)
    assert (rows.shape, norms.shape, written.shape) == ((3, 2), (3,), (3,))
    assert json.loads((tmp_path / "prompt_ids.json").read_text()) == IDS
    checksums = np.load(tmp_path / "checksums.npy")
    assert (checksums.dtype, checksums.shape) == (np.uint32, (3,))
    for prompt_id, norm, row, checksum in zip(IDS, norms, rows, checksums):
        assert zlib.crc32(prompt_id.encode() + norm.tobytes() + row.tobytes()) == checksum


def test_small_gradients_keep_their_direction(tmp_path: Path) -> None:
    """1e-9 is 0 in float16: that is why unit rows are stored, and norms apart."""
    store = open_store(fill(tmp_path, [[3e-9, 4e-9]]))
    np.testing.assert_allclose(store.rows[0], [0.6, 0.8], rtol=1e-3)
    np.testing.assert_allclose(store.norms[0], 5e-9, rtol=1e-6)


@pytest.mark.parametrize("block_rows", [1, 2, 3, 7])
def test_blocks_are_the_rows_in_order(tmp_path: Path, block_rows: int) -> None:
    store = open_store(fill(tmp_path, np.random.default_rng(0).normal(size=(7, 5))))
    starts, blocks = zip(*store.blocks(block_rows))
    assert starts == tuple(range(0, 7, block_rows))
    assert all(block.dtype == np.float32 and len(block) <= block_rows for block in blocks)
    np.testing.assert_array_equal(np.concatenate(blocks), store.rows.astype(np.float32))


def test_an_incomplete_store_is_refused_with_the_first_missing_row(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, IDS, 2) as writer:
        writer.write(0, np.ones(2))
    with pytest.raises(StoreError, match=r"2 of 3 rows are not written \(first: b\)"):
        open_store(tmp_path)


def test_opening_again_continues(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, IDS, 2) as writer:
        writer.write(1, np.array([0.0, 3.0]))
    again = StoreWriter.open(tmp_path, IDS, 2)
    assert again.written.tolist() == [0, 1, 0]
    assert again.rows[1].tolist() == [0.0, 1.0]


def test_a_store_whose_making_was_cut_short_is_made_again(tmp_path: Path) -> None:
    """The list of prompts is written last; without it whatever lies there is not to be trusted."""
    (tmp_path / "projected.npy").write_bytes(b"half a head")
    (tmp_path / "written.npy").write_bytes(b"")
    assert StoreWriter.open(tmp_path, IDS, 2).written.tolist() == [0, 0, 0]


@pytest.mark.parametrize(("ids", "proj_dim"), [(["a", "b"], 2), (["a", "c", "b"], 2), (IDS, 4)])
def test_another_prompt_list_or_length_is_refused(tmp_path: Path, ids: list[str], proj_dim: int) -> None:
    StoreWriter.open(tmp_path, IDS, 2).close()
    with pytest.raises(StoreError, match=r"holds 3 rows of 2, the run asks for .*--run-dir"):
        StoreWriter.open(tmp_path, ids, proj_dim)


@pytest.mark.parametrize("name", ["projected.npy", "norms.npy", "written.npy", "prompt_ids.json"])
def test_a_missing_file_is_a_store_error(tmp_path: Path, name: str) -> None:
    fill(tmp_path, np.eye(3))
    (tmp_path / name).unlink()
    with pytest.raises(StoreError, match=name):
        open_store(tmp_path)


@pytest.mark.parametrize("content", [b"", b'["a", "b"', b"\xff\xfe", b"5", b'{"a": 1}'])
def test_a_damaged_list_of_prompts_is_a_store_error(tmp_path: Path, content: bytes) -> None:
    fill(tmp_path, np.eye(3))
    (tmp_path / "prompt_ids.json").write_bytes(content)
    with pytest.raises(StoreError, match=r"prompt_ids\.json"):
        open_store(tmp_path)


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("projected.npy", np.zeros((3, 3), dtype=np.float32)),
        ("projected.npy", np.zeros((2, 3), dtype=np.float16)),
        ("projected.npy", np.zeros(3, dtype=np.float16)),
        ("projected.npy", np.zeros((3, 3, 1), dtype=np.float16)),
        ("norms.npy", np.zeros(3)),
        ("norms.npy", np.zeros((3, 1), dtype=np.float32)),
        ("written.npy", np.ones((3, 2), dtype=np.uint8)),
        ("written.npy", np.ones(4, dtype=np.uint8)),
    ],
    ids=lambda value: value if isinstance(value, str) else f"{value.dtype}{value.shape}",
)
def test_a_file_of_another_shape_or_type_is_a_store_error(tmp_path: Path, name: str, array: np.ndarray) -> None:
    fill(tmp_path, np.eye(3))
    np.save(tmp_path / name, array)
    with pytest.raises(StoreError, match=name):
        open_store(tmp_path)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_is_never_flagged(tmp_path: Path, bad: float) -> None:
    """A zero row would say "nothing to learn here", which is not what a NaN means."""
    writer = StoreWriter.open(tmp_path, IDS, 2)
    with pytest.raises((LeanAlignError, ValueError)):
        writer.write(0, np.array([1.0, bad]))
    assert writer.written[0] == 0


@pytest.mark.parametrize("length", [1, 3, 5])
def test_a_gradient_of_another_length_is_refused(tmp_path: Path, length: int) -> None:
    """NumPy would spread a single number over the whole row."""
    writer = StoreWriter.open(tmp_path, IDS, 4)
    with pytest.raises(ValueError, match=str(length)):
        writer.write(0, np.ones(length))
    assert writer.written[0] == 0


def test_an_open_store_cannot_be_written(tmp_path: Path) -> None:
    store = open_store(fill(tmp_path, np.eye(3)))
    with pytest.raises(ValueError, match="read-only"):
        store.rows[0] = 1


def write_peak_bytes(folder: Path, n: int) -> int:
    writer = StoreWriter.open(folder, [f"p-{i:06d}" for i in range(n)], 256)
    tracemalloc.start()
    for row in range(0, n, n // 8):
        writer.write(row, np.ones(256, dtype=np.float32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


def test_memory_of_writing_does_not_grow_with_the_store(tmp_path: Path) -> None:
    """A row is 256 x 8 bytes in float64, with its quotient 4 KiB; n = 16,000 rows would be 8 MB in float16."""
    for n in (2_000, 16_000):
        (tmp_path / str(n)).mkdir()
        assert write_peak_bytes(tmp_path / str(n), n) < 64 * 1024


def test_memory_of_reading_blocks_is_one_block(tmp_path: Path) -> None:
    """A block of 500 x 256 float32 is 512,000 bytes; two of them live while one takes the other's place."""
    StoreWriter.open(tmp_path, [f"p-{i:06d}" for i in range(16_000)], 256).close()
    store = GradientStore(tmp_path)
    tracemalloc.start()
    total = sum(float(block.sum()) for _, block in store.blocks(500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == 0
    assert peak < 2.2 * 512_000


def test_a_full_disk_is_met_when_the_store_is_made(tmp_path, monkeypatch):
    def full(descriptor: int, offset: int, length: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DiskFullError, match=r"is full.*run the same command again"), disk_errors(tmp_path):
        StoreWriter.open(tmp_path, ["a", "b"], 4)
    monkeypatch.undo()
    assert StoreWriter.open(tmp_path, ["a", "b"], 4).prompt_ids == ("a", "b")


FILL = """
import signal, sys
import numpy as np
from pathlib import Path
from lean_align.store import StoreWriter
folder, start, stop, ids, hold = Path(sys.argv[1]), *map(int, sys.argv[2:6])
with StoreWriter.open(folder, [f"p-{i}" for i in range(ids)], 8, range(start, stop)) as writer:
    print("open", flush=True)
    for row in writer.open_rows():
        writer.write(row, np.random.default_rng(row).normal(size=8))
    writer.flush()
    if hold:
        signal.pause()  # until it is killed
"""


def filler(folder: Path, start: int, stop: int, ids: int = 60, hold: bool = False) -> subprocess.Popen:
    """A process that makes or opens a store, fills rows start .. stop - 1, and holds them until it is killed."""
    arguments = [sys.executable, "-c", FILL, str(folder), str(start), str(stop), str(ids), str(int(hold))]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_processes_on_ranges_of_their_own_write_what_one_writes(tmp_path: Path) -> None:
    """Four start at the same time on a folder that is not there: who makes the files does not matter."""
    for _ in range(2):
        folder = tmp_path / "many"
        processes = [filler(folder, start, start + 15) for start in (30, 0, 45, 15)]
        for process in processes:
            _, errors = process.communicate()
            assert process.returncode == 0, errors
        one = filler(tmp_path / "one", 0, 60)
        assert one.wait() == 0
        assert files_of(folder) == files_of(tmp_path / "one")
        open_store(folder, verify=True)
        shutil.rmtree(folder)


def test_rows_that_another_process_fills_are_refused_until_it_ends(tmp_path: Path) -> None:
    process = filler(tmp_path, 10, 20, hold=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "open\n"
    ids = [f"p-{i}" for i in range(60)]
    for rows in (range(19, 30), range(0, 60), range(10, 20), None):
        with pytest.raises(StoreError, match=r"overlap rows 10:20 that another writer is filling\. Wait for it"):
            StoreWriter.open(tmp_path, ids, 8, rows)
    StoreWriter.open(tmp_path, ids, 8, range(0, 10)).close()
    StoreWriter.open(tmp_path, ids, 8, range(20, 60)).close()
    process.kill()
    process.communicate()
    StoreWriter.open(tmp_path, ids, 8).close()


def test_rows_that_this_process_fills_are_refused_until_they_are_closed(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, IDS, 2, range(0, 2)):
        with pytest.raises(StoreError, match=r"rows 1:3 of .* overlap rows 0:2"):
            StoreWriter.open(tmp_path, IDS, 2, range(1, 3))
        GradientStore(tmp_path)  # a reader takes no lock, and lets none go
        with pytest.raises(StoreError, match="overlap"):
            StoreWriter.open(tmp_path, IDS, 2, range(1, 3))
        StoreWriter.open(tmp_path, IDS, 2, range(2, 3)).close()
    StoreWriter.open(tmp_path, IDS, 2, range(1, 3)).close()


def test_only_rows_of_the_range_are_taken(tmp_path: Path) -> None:
    with StoreWriter.open(tmp_path, IDS, 2, range(1, 2)) as writer:
        assert writer.open_rows() == [1]
        with pytest.raises(StoreError, match=r"row 2 is not among this writer's rows 1:2"):
            writer.write(2, np.ones(2))
    with pytest.raises(StoreError, match="expected a range of step 1 within 0:3"):
        StoreWriter.open(tmp_path, IDS, 2, range(2, 4))


def test_a_killed_writer_leaves_flagged_rows_whole(tmp_path: Path) -> None:
    process = filler(tmp_path, 0, 60, hold=True)
    assert process.stdout is not None
    process.stdout.readline()
    while not GradientStore(tmp_path).written.any():
        time.sleep(0.01)
    process.kill()
    process.communicate()
    with StoreWriter.open(tmp_path, [f"p-{i}" for i in range(60)], 8) as again:
        assert again.unflagged == ()
        assert again.written[0] == 1


def test_rows_are_flagged_after_they_are_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within half a second they go to the disk together: rows, norms, checksums, then flags."""
    synced: list[str] = []
    writer = StoreWriter.open(tmp_path, IDS, 2)
    names = {file.fileno(): name for name, file in writer._files.items()}
    monkeypatch.setattr("lean_align.store.writing._sync", lambda descriptor: synced.append(names[descriptor]))
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    writer.write(0, np.ones(2))
    order = ["projected.npy", "norms.npy", "checksums.npy", "written.npy"]
    assert (synced, writer.written.tolist()) == (order, [1, 0, 0])
    monkeypatch.setattr("time.monotonic", lambda: 100.4)
    writer.write(1, np.ones(2))
    assert (synced, writer.written.tolist(), writer.open_rows()) == (order, [1, 0, 0], [2])
    monkeypatch.setattr("time.monotonic", lambda: 100.5)
    writer.write(2, np.ones(2))
    assert (synced, writer.written.tolist()) == (order * 2, [1, 1, 1])
    writer.close()


def format_1(folder: Path, rows: list[int]) -> Path:
    """A store as version 0.1.0 wrote it: no checksums."""
    np.save(folder / "projected.npy", np.eye(3, dtype=np.float16))
    np.save(folder / "norms.npy", np.ones(3, dtype=np.float32))
    np.save(folder / "written.npy", np.isin(np.arange(3), rows).astype(np.uint8))
    (folder / "prompt_ids.json").write_text(json.dumps(IDS, indent=2) + "\n")
    return folder


def test_a_store_of_format_1_opens_and_cannot_be_verified(tmp_path: Path) -> None:
    store = open_store(format_1(tmp_path, [0, 1, 2]))
    assert store.checksums is None
    with pytest.raises(StoreError, match=r"no checksums\.npy \(format 1\): it cannot be verified"):
        open_store(tmp_path, verify=True)


def test_a_store_of_format_1_is_continued_as_format_2(tmp_path: Path) -> None:
    with StoreWriter.open(format_1(tmp_path, [0, 2]), IDS, 3) as writer:
        assert writer.open_rows() == [1]
        writer.write(1, np.array([0.0, 1.0, 0.0]))
    assert open_store(tmp_path, verify=True).rows.tolist() == np.eye(3).tolist()


def test_checksums_that_are_gone_do_not_make_a_store_format_1(tmp_path: Path) -> None:
    fill(tmp_path, np.eye(3))
    (tmp_path / "manifest.json").write_text('{"format_version": 2}')
    (tmp_path / "checksums.npy").unlink()
    with pytest.raises(StoreError, match=r"checksums\.npy is missing"):
        open_store(tmp_path)


def test_what_is_damaged_is_named(tmp_path: Path) -> None:
    fill(tmp_path, np.eye(3), IDS)
    np.lib.format.open_memmap(tmp_path / "projected.npy", mode="r+")[1, 2] = 0.5
    open_store(tmp_path)
    with pytest.raises(StoreError, match=r"projected\.npy or norms\.npy: row 1 \(b\) has checksum .* Delete .* again"):
        open_store(tmp_path, verify=True)


@pytest.mark.parametrize("name", ["manifest.json", "projection.json", "second_seed/norms.npy"])
def test_no_byte_of_what_lies_beside_the_rows_changes_unseen(tmp_path: Path, name: str) -> None:
    """README: every byte."""
    with stage_folder(tmp_path, "gradients", {}) as folder:
        fill(folder.path, np.eye(3), IDS)
        fill(folder.path / "second_seed", np.eye(3), IDS)
        write_json(folder.path / "projection.json", {"projection": {"kind": "sjlt", "seed": 0}})
    store = tmp_path / "gradients"
    open_store(store, verify=True)
    open_store(store / "second_seed", verify=True)
    data = (store / name).read_bytes()
    for i in range(0, len(data), 7):
        (store / name).write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(StoreError, match="rm -r"):
            open_store(store, verify=True)


def test_damaged_rows_are_said_and_made_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill(tmp_path, np.eye(3), IDS)
    np.lib.format.open_memmap(tmp_path / "norms.npy", mode="r+")[2] = 7
    with StoreWriter.open(tmp_path, IDS, 3, range(0, 2)) as other:
        assert other.unflagged == ()
    with StoreWriter.open(tmp_path, IDS, 3, range(1, 3)) as writer:
        assert (writer.unflagged, writer.open_rows()) == ((2,), [2])
    assert "1 rows of" in capsys.readouterr().err


def test_memory_of_verifying_does_not_grow_with_the_store(tmp_path: Path) -> None:
    """One buffer of 4 MiB; 16,000 x 256 float16 are 8 MB."""
    StoreWriter.open(tmp_path, [f"p-{i:06d}" for i in range(16_000)], 256).close()
    np.lib.format.open_memmap(tmp_path / "written.npy", mode="r+")[:] = 1
    store = open_store(tmp_path)
    tracemalloc.start()
    damaged = sum(1 for _ in store.damaged_rows(range(16_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert damaged == 16_000
    assert peak < 4.5 * 2**20


def test_a_damaged_finished_store_is_to_be_deleted_as_a_whole(tmp_path):
    """The pipeline refuses a finished stage of which a part was deleted, so nothing less may be advised."""
    folder = tmp_path / "gradients"
    for place in (folder, folder / "second_seed"):
        with StoreWriter.open(place, ["a", "b"], 4) as writer:
            writer.write(0, np.ones(4))
            writer.write(1, np.ones(4))
    (folder / "manifest.json").write_text("{}")
    with (folder / "second_seed" / "projected.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x7f")
    with pytest.raises(StoreError, match=rf"Delete {folder} and run the gradients stage again"):
        open_store(folder / "second_seed", verify=True)
    with (folder / "written.npy").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x00")
    with pytest.raises(StoreError, match=rf"1 of 2 rows are not written \(first: b\)\. Delete {folder} and run"):
        open_store(folder)


def test_a_folder_that_is_no_store_says_where_one_lies(tmp_path):
    with pytest.raises(StoreError, match=r"is not a gradient store.*RUN/gradients"):
        open_store(tmp_path)


def test_workers_that_begin_together_keep_one_projection(tmp_path):
    """Eight at once, half of another seed: the first to come is kept, and only those unlike it are refused."""

    def begin(seed: int) -> str:
        barrier.wait()
        try:
            check_projection(tmp_path, path, {"projection": {"seed": seed}})
        except StoreError:
            return "refused"
        return "taken"

    seeds = [0, 1] * 4
    for attempt in range(20):
        path, barrier = tmp_path / f"projection-{attempt}.json", threading.Barrier(len(seeds))
        with ThreadPoolExecutor(len(seeds)) as workers:
            came = list(workers.map(begin, seeds))
        kept = json.loads(path.read_text())["projection"]["seed"]
        assert came == ["taken" if seed == kept else "refused" for seed in seeds]
