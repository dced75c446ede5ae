"""Methods that reach for golds or evaluation problems: each is caught, and caught for that reason."""

from __future__ import annotations

import copy
import json
import os
import pickle
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from lean_align.errors import LeanAlignError
from lean_align.selection import (
    Choice,
    PeekingError,
    SelectionMethod,
    SelectionPool,
    TargetProblems,
    WithheldError,
    no_peeking,
    select_prompts,
)

IDS = ("a", "b", "c")
POOL = SelectionPool(IDS, ("one?", "two?", "three?"), seed=0)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A run's folder with golds, evaluation problems and an array."""
    folder = tmp_path / "run"
    for name, stage in (("train", "data"), ("test", "data"), ("selected", "selection")):
        (folder / stage).mkdir(parents=True, exist_ok=True)
        (folder / stage / f"{name}.jsonl").write_text(json.dumps({"prompt_id": "c", "answer": "42"}) + "\n")
    np.save(folder / "data" / "golds.npy", np.arange(3))
    return folder


def method(look: Callable[[SelectionPool], object]) -> SelectionMethod:
    """Looks, then takes the last prompts first."""

    def choose(pool: SelectionPool, n: int) -> Choice:
        look(pool)
        return Choice(np.arange(len(pool))[::-1][:n].astype(np.int64), None, "after a look")

    return SelectionMethod("peeker", frozenset(), choose, "test")


def peek_and_swallow(path: Path) -> str:
    try:
        return path.read_text()
    except Exception:
        return ""


def in_a_thread(path: Path) -> None:
    thread = threading.Thread(target=peek_and_swallow, args=(path,))
    thread.start()
    thread.join()


PEEKERS: dict[str, Callable[[Path], object]] = {
    "open": lambda run: open(run / "data/train.jsonl").close(),
    "open of a text": lambda run: open(str(run / "data/test.jsonl")).close(),
    "open of bytes": lambda run: open(os.fsencode(run / "data/test.jsonl")).close(),
    "Path.read_text": lambda run: (run / "data/train.jsonl").read_text(),
    "os.open": lambda run: os.close(os.open(run / "data/train.jsonl", os.O_RDONLY)),
    "numpy.load": lambda run: np.load(run / "data/golds.npy"),
    "a mapped array": lambda run: np.load(run / "data/golds.npy", mmap_mode="r"),
    "numpy.fromfile": lambda run: np.fromfile(run / "data/golds.npy", dtype=np.uint8),
    "a way round": lambda run: (run / "selection/../data/train.jsonl").read_text(),
    "swallowed": lambda run: peek_and_swallow(run / "data/test.jsonl"),
    "in a thread": lambda run: in_a_thread(run / "data/test.jsonl"),
    "writing": lambda run: (run / "selection/selected.jsonl").write_text("mine"),
}


@pytest.mark.parametrize("peeker", PEEKERS.values(), ids=PEEKERS)
def test_a_look_into_the_run_is_refused(run_dir: Path, peeker: Callable[[Path], object]) -> None:
    planted = method(lambda pool: peeker(run_dir))
    with (
        pytest.raises(PeekingError, match="golds, evaluation problems and the run's files are closed"),
        no_peeking(run_dir),
    ):
        select_prompts(planted, POOL, 2)
    select_prompts(planted, POOL, 2)  # and for no other reason: afterwards it passes


def test_a_relative_path_and_a_link_lead_to_the_same_file(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(run_dir / "data")
    (tmp_path / "innocent").symlink_to(run_dir / "data" / "golds.npy")
    for path in (Path("golds.npy"), tmp_path / "innocent"):
        with pytest.raises(PeekingError), no_peeking(run_dir):
            select_prompts(method(lambda pool, path=path: path.read_bytes()), POOL, 2)


@pytest.mark.parametrize(
    ("name", "refused"),
    [
        ("test.jsonl", True),
        ("train.json", True),
        ("test-00000-of-00001.parquet", True),
        ("validation.csv", True),
        ("train_settings.json", False),
        ("words.txt", False),
        ("testing.jsonl", False),
    ],
)
def test_splits_are_known_by_name_wherever_they_lie(tmp_path: Path, run_dir: Path, name: str, refused: bool) -> None:
    (tmp_path / name).write_text("{}")
    look = method(lambda pool: (tmp_path / name).read_text())
    if not refused:
        with no_peeking(run_dir):
            select_prompts(look, POOL, 2)
        return
    for folder in (run_dir, None):
        with pytest.raises(PeekingError, match=name), no_peeking(folder):
            select_prompts(look, POOL, 2)


def test_further_files_and_folders_can_be_closed(tmp_path: Path, run_dir: Path) -> None:
    (tmp_path / "benchmarks").mkdir()
    for path in (tmp_path / "held out.txt", tmp_path / "benchmarks" / "gsm8k.txt"):
        path.write_text("42")
        look = method(lambda pool, path=path: path.read_text())
        with no_peeking(run_dir):
            select_prompts(look, POOL, 2)
        with pytest.raises(PeekingError), no_peeking(run_dir, tmp_path / "held out.txt", str(tmp_path / "benchmarks")):
            select_prompts(look, POOL, 2)


def test_a_neighbour_of_the_run_stays_open(run_dir: Path) -> None:
    neighbour = run_dir.parent / "run2.txt"
    neighbour.write_text("mine")
    with no_peeking(run_dir):
        assert neighbour.read_text() == "mine"


def test_what_was_opened_before_stays_readable(run_dir: Path) -> None:
    mapped = np.load(run_dir / "data/golds.npy", mmap_mode="r")
    with (run_dir / "data/golds.npy").open("rb") as file, no_peeking(run_dir):
        assert mapped.tolist() == [0, 1, 2]
        assert os.pread(file.fileno(), 6, 0) == b"\x93NUMPY"
        with os.fdopen(os.dup(file.fileno()), "rb") as again:
            assert again.read(6) == b"\x93NUMPY"


def test_the_way_is_open_again_after_an_error(run_dir: Path) -> None:
    with pytest.raises(KeyError), no_peeking(run_dir):
        raise KeyError("other")
    assert (run_dir / "data/train.jsonl").read_text()


def test_an_inner_block_leaves_the_outer_in_force(run_dir: Path) -> None:
    with no_peeking(run_dir.parent / "another"):
        with no_peeking(run_dir):
            pass
        assert (run_dir / "data/golds.npy").read_bytes()
    with pytest.raises(PeekingError), no_peeking(run_dir), no_peeking():
        (run_dir / "data/golds.npy").read_bytes()


@pytest.mark.parametrize("name", ["answers", "answer", "gold", "golds", "gold_answers", "test_problems", "evaluation"])
def test_the_pool_has_no_golds(name: str) -> None:
    with pytest.raises(WithheldError, match=f"asked its pool for '{name}': golds and evaluation problems are withheld"):
        select_prompts(method(lambda pool: getattr(pool, name)), POOL, 2)
    with pytest.raises(AttributeError):
        getattr(POOL, name)
    assert not hasattr(POOL, name)
    assert issubclass(WithheldError, LeanAlignError)


def test_another_missing_attribute_is_plainly_missing() -> None:
    with pytest.raises(
        AttributeError, match="SelectionPool has no n_token; it has prompt_ids, prompts, seed"
    ) as caught:
        _ = POOL.n_token  # type: ignore[attr-defined]
    assert not isinstance(caught.value, LeanAlignError)


def test_a_pool_can_be_copied_and_pickled() -> None:
    assert copy.deepcopy(POOL) == POOL == pickle.loads(pickle.dumps(POOL))


def test_the_pool_holds_nothing_of_the_gold() -> None:
    """Fields come and go: each new one has to be looked at here."""
    assert set(SelectionPool.__dataclass_fields__) == {
        *("prompt_ids", "prompts", "seed", "scores", "n_tokens", "rewards", "gradients", "perplexity", "ifd", "rating"),
        *("features", "reward_curves", "estimated_learnability", "target", "whiten_ridge"),
    }
    assert set(TargetProblems.__dataclass_fields__) == {
        *("prompt_ids", "success_rate", "learnability", "gradients", "features", "in_both"),
    }
