"""The benches' own arithmetic and tables; the measurements themselves are made by `make bench`."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from bench import measure, table
from bench.measure import Settings, Timing

NAMES = sorted(path.stem for path in Path(measure.__file__).parent.glob("bench_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_every_bench_says_what_it_measures(name):
    module = import_module(f"bench.{name}")
    assert len(module.__doc__) > 80
    assert callable(module.measure)


def test_cosines_by_hand():
    """(3, 4) and (4, 3): 24 / 25; (3, 4) and (-4, 3): 0."""
    rows = np.array([[3.0, 4.0], [4.0, 3.0], [-4.0, 3.0]], np.float32)
    assert measure.cosine(rows[0], rows[1]) == pytest.approx(0.96)
    assert measure.pairwise_cosines(rows) == pytest.approx([0.96, 0.0, -0.28], abs=1e-6)


def test_overlap_by_hand():
    """The two highest are {0, 1} and {1, 3}."""
    assert measure.top_overlap(np.array([9, 8, 1, 2]), np.array([1, 8, 2, 9]), 2) == 0.5


def test_ratio_is_taken_turn_by_turn():
    found = measure.ratio(Timing([2.0, 9.0, 8.0]), Timing([1.0, 3.0, 2.0]))
    assert found == {"median": 3.0, "min": 2.0, "max": 4.0, "values": [2.0, 3.0, 4.0]}


def test_ways_run_in_turn_and_a_failing_one_is_left_out():
    calls = []

    def fail():
        calls.append("b")
        raise RuntimeError("no such kernel")

    timings = measure.in_turn({"a": lambda: calls.append("a"), "b": fail, "c": lambda: calls.append("c")}, 2)
    assert "".join(calls) == "abc" + "ac" + "ac"
    assert timings["b"].columns() == {"seconds": None, "note": "failed: RuntimeError: no such kernel"}
    assert len(timings["a"].seconds) == len(timings["c"].seconds) == 2


def test_a_failed_row_stays_in_the_table(tmp_path):
    def rows():
        yield {"way": "ours", "seconds": measure.spread([1.0, 3.0, 2.0]), "added_bytes": 3 * 2**20}
        yield measure.attempt({"way": "full logits"}, lambda: 1 / 0)
        raise MemoryError("out of memory: passed 20.0 GiB")

    kept = list(measure.failed_rows(rows(), "bench_memory"))
    measure.save("bench_memory", kept, Settings("full"), tmp_path)
    lines = table.results_table(tmp_path, lambda name: f"About {name}.").splitlines()
    assert "| way | seconds | added | what | note |" in lines
    assert "| ours | 2 (1 to 3) | 3.0 MiB |  |  |" in lines
    assert "| full logits |  |  |  | failed: ZeroDivisionError: division by zero |" in lines
    assert "|  |  |  | bench_memory | failed: MemoryError: out of memory: passed 20.0 GiB |" in lines


def test_a_quick_result_does_not_take_the_place_of_a_full_one(tmp_path):
    measure.save("bench_store", [{"way": "quick one"}], Settings("quick"), tmp_path)
    assert "quick one" in table.results_table(tmp_path, str)
    full = measure.save("bench_store", [{"way": "full one"}], Settings("full", seed=3), tmp_path)
    measure.save("bench_store", [{"way": "quick again"}], Settings("quick"), tmp_path)
    assert json.loads(full.read_text())["rows"] == [{"way": "full one"}]
    text = table.results_table(tmp_path, str)
    assert "full one" in text
    assert "quick" not in text.split("bench_store", 1)[1]
    assert "seed 3" in text


def test_a_result_names_its_machine(tmp_path):
    found = json.loads(measure.save("bench_store", [], Settings("full", repeats=7), tmp_path).read_text())
    assert found["repeats_asked"] == 7
    assert {"processor", "cores", "threads", "memory_bytes", "gpu", "git_commit", "versions"} <= set(found["machine"])


def test_a_child_that_fails_or_grows_says_why():
    from bench.child import ChildError, in_child

    with pytest.raises(ChildError, match="no_such_function"):
        in_child("measure:no_such_function")
    with pytest.raises(ChildError, match=r"out of memory: passed 1\.0 MiB"):
        in_child("measure:machine", cap_bytes=2**20, seed=0, device="cpu")


def test_the_shown_table_is_made_of_the_results():
    """RESULTS.md is made from what lies in bench/results."""
    from bench.__main__ import HERE, doc_of

    assert (HERE / "RESULTS.md").read_text() == table.results_table(measure.RESULTS, doc_of)
