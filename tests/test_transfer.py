"""Cosines of mean gradients by hand, their intervals, and `lean-align transfer` on runs and comparisons."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from lean_align.artifacts import read_json, write_json
from lean_align.cli import main
from lean_align.compare import Variant, compare, comparison_transfer, run_transfer, runner
from lean_align.compare.transfer import _Cell, _folder_name, _trusted
from lean_align.errors import DataError, RecipeError, StageError, StaleStageError
from lean_align.recipe import Recipe, load_recipe
from lean_align.report import Summary
from lean_align.report.transfer import (
    ChoiceTransfer,
    ComparisonTransfer,
    Direction,
    MethodTransfer,
    Transfer,
    Trust,
    comparison_transfer_lines,
    transfer_lines,
)
from lean_align.scoring import mean_cosines
from lean_align.selection import find_method, select_prompts
from lean_align.stages import run
from lean_align.stages.inputs import chosen_ids
from lean_align.stages.transfers import AimedPool
from lean_align.statistics import rank_correlation_test, spearman
from lean_align.store import StoreWriter, open_store

Array = NDArray[np.float64]
Ran = list[tuple[str, str]]
ROWS = np.array([[1.0, 0, 0], [0, 1, 0], [0.6, 0.8, 0], [0, 0, 0]])
V = [0.25, 0.25, 0.1, 0.0]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_three_choices_by_hand() -> None:
    """Target e1 and e2 with V 1/4 and 0: g_T = e1 / 8.

    {e1, e2}: (1/8, 1/8, 0), cosine 1 / sqrt 2; {e2, (.6, .8)}: (.03, .165, 0) = .03 / .167705; {0, e1}: 1.
    """
    choices = {"a": [0, 1], "b": [1, 2], "c": [3, 0]}
    found = mean_cosines(ROWS, V, choices, np.eye(3)[:2], [0.25, 0.0], seed=0)
    assert list(found) == ["a", "b", "c"]
    wanted = [np.sqrt(0.5), 0.03 / np.hypot(0.03, 0.165), 1.0]
    np.testing.assert_allclose([own.cosine for own in found.values()], wanted, rtol=1e-10)
    assert (found["a"].lead, found["a"].lead_interval) == (None, None)
    assert found["b"].lead == pytest.approx(wanted[0] - wanted[1])
    assert found["c"].lead == pytest.approx(wanted[0] - 1)


def test_a_mean_of_zero_has_no_direction() -> None:
    found = mean_cosines(ROWS, V, {"none": [3], "one": [0]}, np.eye(3)[:1], [0.25], seed=0)
    assert (found["none"].cosine, found["none"].interval) == (None, None)
    assert (found["one"].cosine, found["one"].lead) == (1.0, None)
    nowhere = mean_cosines(ROWS, V, {"one": [0]}, np.eye(3)[:1], [0.0], seed=0)
    assert nowhere["one"].cosine is None


def test_a_prompt_does_not_count_for_itself() -> None:
    """Prompt 0 is problem 0: of <g_S, g_T> = (1/4)(1/4)(1 + 0 + 0 + 1) / 4 the first term goes."""
    rows, v = np.eye(2), [0.25, 0.25]
    whole = mean_cosines(rows, v, {"a": [0, 1]}, rows, v, seed=0)["a"].cosine
    without = mean_cosines(rows, v, {"a": [0, 1]}, rows, v, seed=0, in_both={0: [0]})["a"].cosine
    assert (whole, without) == (pytest.approx(1.0), pytest.approx(0.5))


def test_a_store_gives_what_its_rows_give(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name, n in (("pool", 200), ("target", 30)):
        with StoreWriter.open(tmp_path / name, [f"{name}-{i}" for i in range(n)], 50) as writer:
            for row in range(n):
                writer.write(row, rng.normal(size=50) + 0.3)
    pool, target = (open_store(tmp_path / name) for name in ("pool", "target"))
    v, w = rng.random(200), rng.random(30)
    chosen = rng.permutation(200)[:70]
    found = mean_cosines(pool, v, {"a": chosen.tolist()}, target, w, seed=3)["a"]
    rows, problems = (np.asarray(store.rows, np.float64) for store in (pool, target))
    assert found.cosine == pytest.approx(cosine(v[chosen] @ rows[chosen], w @ problems), abs=1e-10)
    assert mean_cosines(pool, v, {"a": chosen.tolist()}, target, w, seed=3)["a"] == found
    assert mean_cosines(pool, v, {"a": chosen.tolist()}, target, w, seed=4)["a"].interval != found.interval


def drawn(rng: np.random.Generator, n: int, aim: float, k: int = 60) -> Array:
    """Rows whose mean points `aim` along the first axis, beside noise."""
    rows = rng.normal(size=(n, k)) / np.sqrt(k)
    rows[:, 0] += aim
    return np.asarray(rows)


def test_intervals_hold_what_other_prompts_and_problems_would_give() -> None:
    """200 draws of 60 prompts and 30 problems: the mean cosine of all draws lies in 95 of 100 intervals, give or take.

    A binomial of 200 and 0.95 is below 178 once in a thousand; the bootstrap itself costs a little, so 176.
    """
    rng = np.random.default_rng(1)
    found = []
    for seed in range(200):
        rows, problems = drawn(rng, 60, 0.15), drawn(rng, 30, 0.15)
        ones = np.ones(60)
        found.append(mean_cosines(rows, ones, {"a": range(60)}, problems, ones[:30], seed, replicates=400)["a"])
    mean = np.mean([own.cosine for own in found])
    covered = sum(own.interval is not None and own.interval[0] <= mean <= own.interval[1] for own in found)
    assert 176 <= covered <= 200
    centred = [(own.interval[0] + own.interval[1]) / 2 - own.cosine for own in found if own.interval and own.cosine]
    assert abs(np.mean(centred)) < 0.02  # lengths drawn again would put it at half the cosine


def test_a_choice_that_points_at_the_target_leads_and_one_of_the_same_kind_does_not() -> None:
    rng = np.random.default_rng(2)
    rows = np.vstack([drawn(rng, 50, 0.4), drawn(rng, 50, 0.4), drawn(rng, 50, 0.0)])
    choices = {"aimed": range(50), "alike": range(50, 100), "other": range(100, 150), "same": range(50)}
    found = mean_cosines(rows, np.ones(150), choices, drawn(rng, 40, 0.4), np.ones(40), seed=0)
    ends = {name: own.lead_interval for name, own in found.items()}
    assert ends["other"] is not None
    assert ends["other"][0] > 0
    assert ends["alike"] is not None
    assert ends["alike"][0] < 0 < ends["alike"][1]
    assert (found["same"].lead, found["same"].lead_interval) == (0.0, (0.0, 0.0))  # paired: its prompts are the same


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"choices": {}}, "got no choice"),
        ({"choices": {"a": []}}, "the choice a has 0 rows; expected distinct ones of 0 to 3"),
        ({"choices": {"a": [0, 4]}}, "the choice a has 2 rows; expected distinct"),
        ({"choices": {"a": [1, 1]}}, "expected distinct ones"),
        ({"weights": [1, 1, 1]}, r"the pool's weights have shape \(3,\); expected \(4,\)"),
        ({"weights": [1, -1, 1, 1]}, "at least 0 a row"),
        ({"target_weights": [np.nan, 1]}, "the target's weights"),
        ({"target_rows": np.eye(2)}, "3 columns and the target's 2; expected rows of one projection"),
        ({"target_rows": np.zeros((0, 3)), "target_weights": []}, "at least one row"),
        ({"target_rows": [[1, 0, np.nan], [0, 0, 1]]}, r"row 0 \(0\) holds NaN or Inf"),
    ],
)
def test_what_cannot_be_compared_is_refused(change: dict[str, Any], message: str) -> None:
    given = {"rows": ROWS, "weights": V, "choices": {"a": [0]}, "target_rows": np.eye(3)[:2], "target_weights": [1, 1]}
    with pytest.raises(ValueError, match=message):
        mean_cosines(**{**given, **change}, seed=0)


def test_a_rank_correlation_by_hand() -> None:
    """1 2 3 4 5 against 2 1 4 3 5: 1 - 6 * 4 / (5 * 24) = 0.8.  Of 120 orders 16 reach it in size: p = 0.133."""
    found = rank_correlation_test([1, 2, 3, 4, 5], [20, 10, 40, 30, 50], seed=0)
    assert found.value == pytest.approx(0.8)
    assert found.p_value == pytest.approx(16 / 120, abs=0.01)
    assert found.interval is not None
    assert found.interval[0] < 0.8 <= found.interval[1]
    assert found == rank_correlation_test([1, 2, 3, 4, 5], [20, 10, 40, 30, 50], seed=0)


def test_a_rank_correlation_is_found_and_not_invented() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=21)
    strong = rank_correlation_test(x.tolist(), (x + 0.3 * rng.normal(size=21)).tolist(), seed=0)
    none = rank_correlation_test(x.tolist(), rng.normal(size=21).tolist(), seed=0)
    assert strong.value is not None
    assert strong.value > 0.8
    assert strong.p_value == pytest.approx(1 / 20001)
    assert none.interval is not None
    assert none.interval[0] < 0 < none.interval[1]
    assert none.p_value is not None
    assert none.p_value > 0.05


def test_a_correlation_that_is_not_defined() -> None:
    assert rank_correlation_test([1, 2, 3], [1, 2, 3], 0).value is None
    constant = rank_correlation_test([1, 1, 1, 1], [1, 2, 3, 4], 0)
    assert (constant.value, constant.interval, constant.p_value, constant.n) == (None, None, None, 4)
    with pytest.raises(DataError, match="one finite number of each"):
        rank_correlation_test([1, 2, 3, np.nan], [1, 2, 3, 4], 0)
    with pytest.raises(DataError, match="shapes"):
        rank_correlation_test([1, 2, 3, 4], [1, 2, 3], 0)


def found_transfer() -> Transfer:
    own = Direction(0.31, (0.2, 0.4))
    other = Direction(0.1, (0.0, 0.2), 0.21, (0.05, 0.35))
    alike = Direction(0.3, (0.2, 0.4), 0.01, (-0.1, 0.12))
    return Transfer(
        "my.jsonl",
        64,
        40,
        0,
        2000,
        (
            ChoiceTransfer("learnalign-target", 130, 130, own, own),
            ChoiceTransfer("random", 130, 45, other, other),
            ChoiceTransfer("learnability", 130, 130, alike, alike),
        ),
    )


def test_the_table_of_a_run() -> None:
    lines = transfer_lines(found_transfer())
    assert lines[0] == "target my.jsonl: 64 problems, 40 with V > 0"
    assert lines[4].split()[:6] == ["learnalign-target", "130", "130", "+0.310", "[+0.200,", "+0.400]"]
    assert "+0.210 [+0.050, +0.350]  chosen points nearer" in lines[5]
    assert "no difference shown" in lines[6]
    assert "\N{MINUS SIGN}0.100" in lines[6]
    again = Transfer.from_json(json.loads(json.dumps(found_transfer().as_json())))
    assert again == found_transfer()


def test_the_table_of_a_comparison() -> None:
    methods = (
        MethodTransfer("low@5", 0.1, 2, 0.05, 0.01, {"0": (0.05, 0.01)}),
        MethodTransfer("high@5", 0.5, 2, 0.4, 0.2, {"0": (0.4, 0.2)}),
    )
    trust = Trust(0.8, (0.5, 0.95), 0.004, 21, 0.7)
    found = ComparisonTransfer("testbed:64", 64, (0, 1), trust, Trust(n=2), methods, ("full: none",))
    text = "\n".join(comparison_transfer_lines(found))
    assert text.index("high@5") < text.index("low@5")
    assert "by V: +0.80 [+0.50, +0.95], p = 0.004 over 21 methods; within a seed +0.70 on average" in text
    assert "of whole gradients: not defined over 2 methods" in text
    assert "left out: full: none" in text


@pytest.fixture
def recipe() -> Recipe:
    settings = {"selection.n": 10, "training.steps": 3, "warmup.steps": 2, "gradients.second_seed": False}
    return load_recipe("demo", settings)


@pytest.fixture(autouse=True)
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runner, "write_comparison", lambda folder, results, page: None)


def by_hand(aimed: AimedPool, chosen: list[str]) -> float:
    """cos(sum V u of the chosen, sum V u of the target)."""
    places = [aimed.pool.prompt_ids.index(i) for i in chosen]
    rows, problems = np.asarray(aimed.pool.gradients.rows, np.float64), np.asarray(aimed.target.gradients.rows)  # type: ignore
    return cosine(aimed.weights[0][places] @ rows[places], aimed.target_weights[0] @ problems.astype(np.float64))


def test_a_run_without_a_target_gets_the_stages_it_lacks(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Its own stages are linked and not made again; the second call makes nothing."""
    run_dir, target = tmp_path / "run", tmp_path / "wanted.jsonl"
    target.write_text("".join(json.dumps({"prompt": f"q{i}?", "answer": str(i)}) + "\n" for i in range(12)))
    run(recipe, run_dir, stop_after="select")
    fake_stages.clear()
    found = run_transfer(run_dir, str(target))
    place = run_dir / "transfer" / _folder_name(str(target))
    assert fake_stages == [(name, place.name) for name in ("target", "target_rollouts", "target_gradients")]
    assert (place / "gradients").resolve() == run_dir / "gradients"
    assert [(c.method, c.n) for c in found.choices] == [("learnalign", 10), ("random", 10), ("learnability", 10)]
    aimed = AimedPool.read(load_recipe(place / "recipe.yaml"), place)
    assert found.choices[0].by_learnability.cosine == pytest.approx(by_hand(aimed, chosen_ids(run_dir)), abs=1e-9)
    for choice in found.choices[1:]:
        selection, _ = select_prompts(find_method(choice.method), aimed.pool, 10)
        assert choice.by_learnability.cosine == pytest.approx(by_hand(aimed, list(selection.prompt_ids)), abs=1e-9)
        assert choice.by_learnability.lead is not None
    assert Transfer.from_json(read_json(place / "transfer.json")) == found
    written, fake_stages[:] = (place / "transfer.json").read_bytes(), []
    assert run_transfer(run_dir, str(target)) == found
    assert (fake_stages, (place / "transfer.json").read_bytes()) == ([], written)


def test_a_run_of_a_method_without_gradients_gets_them(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    run(replace(recipe, selection=replace(recipe.selection, method="random")), tmp_path, stop_after="select")
    fake_stages.clear()
    found = run_transfer(tmp_path, "testbed:12")
    made = [name for name, _ in fake_stages]
    assert made == ["target", "warmup", "target_rollouts", "target_gradients", "rollouts", "gradients"]
    assert [choice.method for choice in found.choices] == ["random", "learnability"]  # it is not compared with itself


def test_a_run_with_a_target_is_held_against_its_own_and_another(
    recipe: Recipe, tmp_path: Path, fake_stages: Ran
) -> None:
    """The report has a row of its own target without being asked, and of another once the command has run."""
    aimed = replace(recipe.selection, method="learnalign-target", target="testbed:12")
    run(replace(recipe, selection=aimed), tmp_path)
    summary = Summary.from_json(read_json(tmp_path / "summary.json"))
    assert summary.transfer is not None
    assert [t.target for t in summary.transfer] == ["testbed:12"]
    fake_stages.clear()
    own = run_transfer(tmp_path)
    assert fake_stages == []
    assert own == summary.transfer[0]
    other = run_transfer(tmp_path, "testbed:16")
    assert [name for name, _ in fake_stages] == ["target", "target_rollouts", "target_gradients"]
    summary = Summary.from_json(read_json(tmp_path / "summary.json"))
    assert summary.transfer == (own, other)
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Will it help?" in page
    assert "Target testbed:16, 8 problems" in page
    run(replace(recipe, selection=aimed), tmp_path)  # and the run is whole still


def test_a_report_without_a_target_has_no_such_row(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    run(recipe, tmp_path)
    assert "transfer" not in read_json(tmp_path / "summary.json")
    assert "Will it help?" not in (tmp_path / "report" / "index.html").read_text()


def test_what_a_run_cannot_be_held_against(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    own = replace(recipe, selection=replace(recipe.selection, target=None))
    run(own, tmp_path / "run", stop_after="rollout")
    with pytest.raises(StageError, match="has chosen nothing yet; expected a finished selection"):
        run_transfer(tmp_path / "run", "testbed:12")
    with pytest.raises(StageError, match="is not a run folder"):
        run_transfer(tmp_path, "testbed:12")
    run(own, tmp_path / "run", stop_after="select")
    fake_stages.clear()
    with pytest.raises(RecipeError, match=r"there is no target.*Give --target FILE"):
        run_transfer(tmp_path / "run")
    with pytest.raises(RecipeError, match="testbed:x"):
        run_transfer(tmp_path / "run", "testbed:x")
    assert fake_stages == []


def test_rows_that_were_in_the_pool_are_not_set_apart_afterwards(tmp_path: Path, fake_stages: Ran) -> None:
    """held-out:N of a file takes N prompts out of the pool that was chosen from."""
    path = tmp_path / "mine.jsonl"
    path.write_text("".join(json.dumps({"prompt": f"q{i}?", "answer": str(i)}) + "\n" for i in range(60)))
    recipe = load_recipe("demo", {"data.train_path": str(path), "selection.n": 10, "gradients.second_seed": False})
    run(recipe, tmp_path / "run", stop_after="select")
    fake_stages.clear()
    with pytest.raises(RecipeError, match=r"held-out:12 takes 12 rows out of the training data.*Give --target a file"):
        run_transfer(tmp_path / "run", "held-out:12")
    assert fake_stages == []


def test_gradients_that_were_changed_are_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """A planted fault: a row of the run's store is another than was written."""
    run(recipe, tmp_path, stop_after="select")
    with (tmp_path / "gradients" / "projected.npy").open("r+b") as file:
        file.seek(-2, 2)
        file.write(b"\x11\x11")
    with pytest.raises(StaleStageError, match=r"projected\.npy was changed after it was written"):
        run_transfer(tmp_path, "testbed:12")


def test_a_choice_from_another_pool_is_refused(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    run(recipe, tmp_path, stop_after="select")
    run_transfer(tmp_path, "testbed:12")
    place = tmp_path / "transfer" / _folder_name("testbed:12")
    aimed = AimedPool.read(load_recipe(place / "recipe.yaml"), place)
    with pytest.raises(StageError, match=r"its run chose 1 prompts that are not in the pool.*first: elsewhere"):
        aimed.places(["train-001", "elsewhere"], "its run")


METHODS = ("learnalign", "random", "full", "learnability", "alignment")


def test_a_comparison_is_held_against_its_accuracies(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    """Target stages are made once a seed, gradients not again; means and correlations are those of the cells."""
    results = compare(recipe, tmp_path, METHODS, 2)
    fake_stages.clear()
    found = comparison_transfer(tmp_path, "testbed:12")
    assert sorted(name for name, _ in fake_stages) == sorted(["target", "target_rollouts", "target_gradients"] * 2)
    assert [m.label for m in found.methods] == [m["label"] for m in results["methods"]]
    assert (found.seeds, found.n_target, found.left_out) == ((0, 1), 8, ())
    accuracy = {m["label"]: m["accuracy"] for m in results["methods"]}
    for method in found.methods:
        assert method.accuracy == pytest.approx(accuracy[method.label])
        assert method.by_learnability == pytest.approx(np.mean([pair[0] for pair in method.seeds.values()]))
    place = next((tmp_path / "transfer").glob("*/seed-1-*"))
    aimed = AimedPool.read(load_recipe(place / "recipe.yaml"), place)
    chosen = chosen_ids(tmp_path / "seed-1" / "alignment@10")
    own = next(m for m in found.methods if m.label == "alignment@10")
    assert own.seeds["1"][0] == pytest.approx(by_hand(aimed, chosen), abs=1e-9)
    wanted = spearman([m.by_learnability for m in found.methods], [m.accuracy for m in found.methods])
    assert found.by_learnability.value == pytest.approx(wanted)
    assert (found.by_learnability.n, found.by_norm.n) == (5, 5)
    assert found.by_learnability.within_seeds is not None
    fake_stages.clear()
    assert comparison_transfer(tmp_path, "testbed:12") == found
    assert fake_stages == []
    again = compare(recipe, tmp_path, METHODS, 2)  # the comparison itself is as it was
    assert (fake_stages, again["faults"]) == ([], [])


def test_a_comparison_that_cannot_be_ranked(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS[:3], 1)
    with pytest.raises(StageError, match="has results of 3 methods; expected at least 4"):
        comparison_transfer(tmp_path, "testbed:12")
    shutil.rmtree(tmp_path / "compare")
    with pytest.raises(StageError, match="has no results yet"):
        comparison_transfer(tmp_path, "testbed:12")


def test_trainings_that_are_still_to_come_are_left_out(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    compare(recipe, tmp_path, METHODS, 1)
    path = tmp_path / "compare" / "results.json"
    results = read_json(path)
    results["methods"][3]["by_seed"] = {"0": None}
    write_json(path, results)
    found = comparison_transfer(tmp_path, "testbed:12")
    assert len(found.methods) == 4
    assert "learnability@10" not in {m.label for m in found.methods}


def test_a_method_whose_choice_has_no_gradient_is_named_and_left_out() -> None:
    names = ("a", "b", "c", "d", "none")
    cells = [
        _Cell(Variant(name, 5), seed, accuracy=0.1 * i, cosines=(None, None) if name == "none" else (0.2 * i, -0.2 * i))
        for seed in (0, 1)
        for i, name in enumerate(names)
    ]
    found = _trusted("testbed:12", cells, [f"{name}@5" for name in names], 0)
    assert found.left_out == ("none@5: no chosen prompt has a gradient",)
    assert (found.by_learnability.value, found.by_norm.value) == (pytest.approx(1.0), pytest.approx(-1.0))
    assert (found.by_learnability.within_seeds, found.by_norm.within_seeds) == (pytest.approx(1.0), pytest.approx(-1.0))


def test_the_command_prints_json(recipe: Recipe, tmp_path: Path, fake_stages: Ran) -> None:
    run(recipe, tmp_path, stop_after="select")
    done = CliRunner().invoke(main, ["transfer", str(tmp_path), "--target", "testbed:12", "--json"])
    assert done.exit_code == 0, done.output
    tree = json.loads(done.stdout)
    assert Transfer.from_json(tree).choices[0].method == "learnalign"
    wrong = CliRunner().invoke(main, ["transfer", str(tmp_path), "--target", "testbed:1"])
    assert wrong.exit_code == 2
    assert "testbed:1" in wrong.stderr
