"""The store under any order of writes, any interruption and any cut: never a wrong row that is flagged."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from lean_align.errors import StoreError
from lean_align.store import GradientStore, StoreWriter, open_store

FEW = settings(max_examples=50, deadline=None)
SCRATCH = "/dev/shm" if Path("/dev/shm").is_dir() else None  # every row is flushed: spare the disk
N, K = 5, 4
IDS = tuple(f"p-{i}" for i in range(N))
FILES = ("projected.npy", "norms.npy", "checksums.npy", "written.npy", "prompt_ids.json")
NUMBERS = st.floats(-1e6, 1e6, width=32).map(lambda x: x if abs(x) > 1e-6 else 0.0)
VECTORS = hnp.arrays(np.float32, K, elements=NUMBERS)
MATRICES = hnp.arrays(np.float32, (N, K), elements=NUMBERS)


def unit(vector: np.ndarray) -> np.ndarray:
    """What the format promises: the direction in float16, or zeros."""
    norm = float(np.sqrt((vector.astype(np.float64) ** 2).sum()))
    return (vector.astype(np.float64) / norm if norm else np.zeros(K)).astype(np.float16)


def write_all(folder: Path, matrix: np.ndarray, rows: list[int] | range = range(N)) -> None:
    with StoreWriter.open(folder, IDS, K) as writer:
        for row in rows:
            writer.write(row, matrix[row])


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in FILES}


def tear(folder: Path, rows: set[int], noise: bytes) -> None:
    """Put noise into rows and their norms, behind the writer's back."""
    projected, norms = (np.lib.format.open_memmap(folder / f"{name}.npy", mode="r+") for name in ("projected", "norms"))
    for row in rows:
        projected[row] = np.frombuffer(noise[: 2 * K], dtype=np.float16)
        norms[row] = np.frombuffer(noise[2 * K :], dtype=np.float32)[0]


def assert_flagged_rows_are_right(store: GradientStore, matrix: np.ndarray) -> None:
    for row in np.flatnonzero(store.written):
        np.testing.assert_array_equal(store.rows[row], unit(matrix[row]))
        np.testing.assert_allclose(store.norms[row], np.linalg.norm(matrix[row].astype(np.float64)), rtol=1e-6)


@FEW
@given(MATRICES)
def test_rows_come_back_as_unit_rows(matrix: np.ndarray) -> None:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        write_all(Path(name), matrix)
        store = open_store(name)
        assert store.prompt_ids == IDS
        assert store.written.all()
        assert_flagged_rows_are_right(store, matrix)
        lengths = np.linalg.norm(store.rows.astype(np.float64), axis=1)
        np.testing.assert_allclose(lengths, (store.norms > 0).astype(float), atol=K * 2**-11)


@FEW
@given(MATRICES, st.permutations(range(N)), st.lists(st.integers(0, N), max_size=4))
def test_a_store_written_in_pieces_is_the_same_to_the_byte(
    matrix: np.ndarray, order: list[int], cuts: list[int]
) -> None:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        once, pieces = Path(name, "once"), Path(name, "pieces")
        once.mkdir(), pieces.mkdir()
        write_all(once, matrix)
        ends = sorted([*cuts, N])
        for start, end in zip([0, *ends], ends):
            write_all(pieces, matrix, order[start:end])
        assert bytes_of(once) == bytes_of(pieces)


@FEW
@given(MATRICES, st.sets(st.integers(0, N - 1)), st.binary(min_size=2 * K + 4, max_size=2 * K + 4))
def test_a_row_torn_by_a_kill_is_written_again(matrix: np.ndarray, done: set[int], noise: bytes) -> None:
    """A kill before the flag may leave anything in the row and its norm."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        whole, torn = Path(name, "whole"), Path(name, "torn")
        whole.mkdir(), torn.mkdir()
        write_all(whole, matrix)
        write_all(torn, matrix, sorted(done))
        write_all(torn, matrix, [])
        tear(torn, set(range(N)) - done, noise)
        with StoreWriter.open(torn, IDS, K) as again:
            assert_flagged_rows_are_right(again, matrix)
            assert again.unflagged == ()
            missing = again.open_rows()
        write_all(torn, matrix, missing)
        assert bytes_of(whole) == bytes_of(torn)


@FEW
@given(MATRICES, st.sets(st.integers(0, N - 1)), st.binary(min_size=2 * K + 4, max_size=2 * K + 4))
def test_a_flagged_row_torn_by_a_power_cut_is_written_again(matrix: np.ndarray, torn: set[int], noise: bytes) -> None:
    """Pages reach the disk in any order: a flag may be there and its row not."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        whole, cut = Path(name, "whole"), Path(name, "cut")
        for folder in (whole, cut):
            write_all(folder, matrix)
        tear(cut, torn, noise)
        with StoreWriter.open(cut, IDS, K) as again:
            assert set(again.unflagged) <= torn
            assert_flagged_rows_are_right(again, matrix)
            missing = again.open_rows()
            assert tuple(missing) == again.unflagged
        write_all(cut, matrix, missing)
        assert bytes_of(whole) == bytes_of(cut)


def verify_catches(folder: Path, file: str, position: int, bit: int) -> bool:
    """Whether `open_store(..., verify=True)` refuses the store with one bit of a file changed."""
    content = bytearray((folder / file).read_bytes())
    content[position] ^= 1 << bit
    (folder / file).write_bytes(content)
    try:
        open_store(folder, verify=True)
    except StoreError:
        return True
    return False


@pytest.mark.parametrize("file", FILES)
@settings(FEW, max_examples=100)
@given(data=st.data())
def test_one_changed_bit_anywhere_is_found(file: str, data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        write_all(Path(name), np.arange(1, N * K + 1, dtype=np.float32).reshape(N, K))
        open_store(name, verify=True)
        size = (Path(name) / file).stat().st_size
        position, bit = data.draw(st.integers(0, size - 1), label="byte"), data.draw(st.integers(0, 7), label="bit")
        assert verify_catches(Path(name), file, position, bit)


def test_the_check_of_changed_bits_can_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: without the checksums a bit of a row goes unseen."""
    monkeypatch.setattr(GradientStore, "damaged_rows", lambda self, rows: iter(()))
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        write_all(Path(name), np.eye(N, K, dtype=np.float32))
        assert not verify_catches(Path(name), "projected.npy", 128 + 3, 0)


@pytest.mark.parametrize("file", FILES)
@settings(FEW, max_examples=100)
@given(data=st.data())
def test_a_file_cut_at_any_byte_is_refused_or_its_flagged_rows_are_right(file: str, data: st.DataObject) -> None:
    matrix = np.arange(1, N * K + 1, dtype=np.float32).reshape(N, K)
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        folder = Path(name)
        write_all(folder, matrix)
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: data.draw(st.integers(0, len(content) - 1), label="bytes kept")])
        try:
            with StoreWriter.open(folder, IDS, K) as store:
                assert_flagged_rows_are_right(store, matrix)
        except StoreError:
            return


@pytest.mark.parametrize("file", FILES)
@FEW
@given(data=st.data())
def test_a_finished_store_cut_at_any_byte_is_refused(file: str, data: st.DataObject) -> None:
    """But for the newline at the end of prompt_ids.json, which means nothing."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as name:
        folder = Path(name)
        write_all(folder, np.eye(N, K, dtype=np.float32))
        content = (folder / file).read_bytes()
        (folder / file).write_bytes(content[: data.draw(st.integers(0, len(content) - 2), label="bytes kept")])
        with pytest.raises(StoreError):
            open_store(folder)


class WriterAgainstDict(RuleBasedStateMachine):
    """Any sequence of writes, reopenings and refused openings, against a dict of vectors."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp(dir=SCRATCH))
        self.writer = StoreWriter.open(self.folder, IDS, K)
        self.model: dict[int, np.ndarray] = {}

    @rule(row=st.integers(0, N - 1), vector=VECTORS)
    def write(self, row: int, vector: np.ndarray) -> None:
        self.writer.write(row, vector)
        self.model[row] = vector

    @rule()
    def flush(self) -> None:
        self.writer.flush()

    @rule()
    def reopen(self) -> None:
        self.writer.close()
        self.writer = StoreWriter.open(self.folder, IDS, K)

    @rule()
    def refuse_another_writer(self) -> None:
        with pytest.raises(StoreError, match="another writer"):
            StoreWriter.open(self.folder, IDS, K, range(1, 3))

    @rule(ids=st.sampled_from([IDS[:-1], (*IDS, "more"), IDS[::-1]]))
    def refuse_other_prompts(self, ids: tuple[str, ...]) -> None:
        with pytest.raises(StoreError):
            StoreWriter.open(self.folder, ids, K)

    @rule(proj_dim=st.sampled_from([1, K - 1, K + 1]))
    def refuse_other_lengths(self, proj_dim: int) -> None:
        with pytest.raises(StoreError):
            StoreWriter.open(self.folder, IDS, proj_dim)

    @rule()
    def read(self) -> None:
        self.writer.flush()
        if len(self.model) < N:
            with pytest.raises(StoreError):
                open_store(self.folder)
        else:
            assert_flagged_rows_are_right(open_store(self.folder), np.stack([self.model[row] for row in range(N)]))

    @invariant()
    def flags_are_the_keys(self) -> None:
        assert set(range(N)) - set(self.writer.open_rows()) == set(self.model)
        assert set(np.flatnonzero(self.writer.written)) <= set(self.model)

    @invariant()
    def rows_are_the_values(self) -> None:
        for row in range(N):
            expected = unit(self.model[row]) if row in self.model else np.zeros(K)
            np.testing.assert_array_equal(self.writer.rows[row], expected)

    def teardown(self) -> None:
        self.writer.close()
        shutil.rmtree(self.folder)


TestWriterAgainstDict = WriterAgainstDict.TestCase
TestWriterAgainstDict.settings = settings(max_examples=40, stateful_step_count=20, deadline=None)
