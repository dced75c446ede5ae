"""The gradient store: what lies on disk, what is refused, and what it costs in memory."""

from __future__ import annotations

import errno
import json
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lean_align.artifacts import disk_errors
from lean_align.errors import DiskFullError, LeanAlignError, StoreError
from lean_align.store import GradientStore, StoreWriter, open_store

IDS = ["a", "b", "c"]


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


def test_a_store_whose_making_was_cut_short_is_made_anew(tmp_path: Path) -> None:
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
