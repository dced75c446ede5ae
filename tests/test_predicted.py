"""Runs whose rollouts are predicted, on the embedded model: what is sampled, what is chosen, kills, faults."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from conftest import QUESTIONS
from forked import command
from test_end_to_end import comparable, killed_and_continued, lines_in, run

from lean_align.artifacts import open_stage_folder, read_json, write_json
from lean_align.errors import RecipeError, StoreError
from lean_align.prediction import cover
from lean_align.recipe import load_recipe
from lean_align.rng import rng_for
from lean_align.scoring.tables import read_table
from lean_align.selection import recipe_method
from lean_align.signals import HiddenStates, prompt_state_dim, prompt_states
from lean_align.stages import GRAPH
from lean_align.stages.dependencies import numbers_sampled
from lean_align.stages.gradient_rows import fill_rows, open_rows
from lean_align.stages.inputs import POOL, Sampled
from lean_align.stages.prompt_states import read_features
from lean_align.stages.rollout_facts import groups_to_learn
from lean_align.store import PROJECTION, open_store
from lean_align.types import Prompt

PREDICTED = {"rollouts.allocation": "predicted", "rollouts.share": 0.3, "rollouts.budget_share": 0.7}
FIRST, MOST = 8, 17  # of 24


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("predicted") / "run"
    done = run(run_dir, settings=PREDICTED)
    assert done.returncode == 0, done.stderr
    return run_dir


@pytest.fixture(scope="module")
def fixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run_dir = tmp_path_factory.mktemp("fixed") / "run"
    done = run(run_dir, "--stop-after", "select")
    assert done.returncode == 0, done.stderr
    return run_dir


def sampled_ids(run_dir: Path) -> list[str]:
    return json.loads((run_dir / "rollouts" / "sampled.json").read_text())


def test_a_first_share_that_covers_the_states_is_sampled_and_then_the_likeliest(whole: Path) -> None:
    prompts = POOL.prompts(whole)
    decided = read_json(whole / "rollouts" / "rounds.json")
    first = cover(read_features(whole, prompts), FIRST, rng_for(0, "rollouts", "first share"))
    assert decided["rounds"][0]["prompt_ids"] == [prompts[i].prompt_id for i in first]
    ids = [i for one in decided["rounds"] for i in one["prompt_ids"]]
    assert len(set(ids)) == len(ids) <= MOST
    assert sampled_ids(whole) == sorted(ids)
    for one in decided["rounds"][1:]:
        chances = one["predicted"]["chance"]
        assert len(chances) == len(one["prompt_ids"])
        assert chances == sorted(chances, reverse=True)
        assert all(0 <= chance <= 1 for chance in chances)
    lines = [json.loads(line) for line in (whole / "rollouts" / "rollouts.jsonl").read_text().splitlines()]
    assert sorted({row["prompt_id"] for row in lines}) == sorted(ids)
    assert len(lines) == 8 * len(ids)


def test_completions_are_those_of_a_fixed_allocation(whole: Path, fixed: Path) -> None:
    """But for the rounding of a batch of other prompts, which hardly ever draws another token."""

    def completions(run_dir: Path) -> dict[tuple[str, int], str]:
        rows = map(json.loads, (run_dir / "rollouts" / "rollouts.jsonl").read_text().splitlines())
        return {(row["prompt_id"], row["index"]): row["completion"] for row in rows}

    own, other = completions(whole), completions(fixed)
    assert np.mean([other[key] == text for key, text in own.items()]) > 0.98


def test_only_sampled_prompts_have_rows_and_scores_and_are_chosen(whole: Path) -> None:
    ids = sampled_ids(whole)
    assert len(ids) < 24
    assert json.loads((whole / "gradients" / "prompt_ids.json").read_text()) == ids
    assert list(read_table(whole / "scores" / "scores.parquet")["prompt_id"]) == ids
    table = read_table(whole / "selection" / "values.parquet")
    assert list(table["prompt_id"]) == ids
    rows = np.load(whole / "gradients" / "projected.npy").astype(np.float64)
    rewards: dict[str, list[float]] = {}
    for line in (whole / "rollouts" / "rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    p = np.array([np.mean(rewards[i]) for i in ids])
    v = p * (1 - p)
    score = v * (rows @ (v @ rows)) / len(ids)
    assert np.abs(np.asarray(table["value"]) - score).max() < 1e-5 * np.abs(score).max()
    best = sorted(range(len(ids)), key=lambda i: (-table["value"][i], ids[i]))[:6]
    selected = [json.loads(line) for line in (whole / "selection" / "selected.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in selected] == [ids[i] for i in best]


def test_rows_that_the_rounds_took_are_those_that_the_gradient_stage_takes(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "gradients")
    assert POOL.row_folders(run_dir)
    taken = {i for place in POOL.row_folders(run_dir) for i in open_store(place).prompt_ids}
    groups = groups_to_learn(run_dir)
    assert taken == {group.prompt.prompt_id for group in groups if group.learnability > 0}
    monkeypatch.setattr(Sampled, "row_folders", lambda self, run_dir: [])
    folder = open_stage_folder(run_dir, "gradients", {})
    recipe = load_recipe(run_dir / "recipe.yaml")
    with open_rows(recipe, groups, folder.path) as store:
        fill_rows(recipe, run_dir, folder, groups, store)
    for name in ("", "second_seed/"):
        for file in ("projected.npy", "norms.npy", "checksums.npy", "written.npy", "prompt_ids.json"):
            own, other = (place / f"{name}{file}" for place in (folder.path, whole / "gradients"))
            assert own.read_bytes() == other.read_bytes(), own
    assert (folder.path / PROJECTION).read_bytes() == (whole / "gradients" / PROJECTION).read_bytes()


def test_rows_of_another_projection_are_not_taken_over(whole: Path, tmp_path: Path) -> None:
    """Planted: the round's rows say that they are of another seed."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    shutil.rmtree(run_dir / "gradients")
    path = POOL.row_folders(run_dir)[0] / PROJECTION
    kept = read_json(path)
    kept["projection"]["seed"] += 1
    write_json(path, kept)
    recipe, groups = load_recipe(run_dir / "recipe.yaml"), groups_to_learn(run_dir)
    folder = open_stage_folder(run_dir, "gradients", {})
    with (
        open_rows(recipe, groups, folder.path) as store,
        pytest.raises(StoreError, match=r"rows of another projection:\s+projection.seed"),
    ):
        fill_rows(recipe, run_dir, folder, groups, store)


def test_the_manifest_and_the_report_say_what_was_predicted(whole: Path) -> None:
    found = json.loads((whole / "rollouts" / "manifest.json").read_text())["counts"]["prediction"]
    n_sampled = len(sampled_ids(whole))
    assert (found["n_pool"], found["n_first"], found["n_most"], found["n_sampled"]) == (24, FIRST, MOST, n_sampled)
    assert found["stopped"] == ("budget" if n_sampled == MOST else "settled")
    assert found["rounds"][-1]["n_sampled"] == n_sampled
    assert found["rounds"][-1]["expected_missing"] == found["expected_missing"]
    assert 0 < found["tokens"] < found["tokens_of_fixed"]
    table = read_table(whole / "rollouts" / "predictions.parquet")
    assert np.sum(table["round"] >= 0) == n_sampled
    assert np.array_equal(np.isnan(table["measured"]), table["round"] < 0)
    assert np.array_equal(np.isnan(table["chance"]), table["round"] == 0)
    later = table["round"] > 0
    predicted, measured = table["success_rate"][later], table["measured"][later]
    assert sum(row["n"] for row in found["calibration"]) == later.sum()
    if np.ptp(measured) > 0:
        assert found["correlation"] == pytest.approx(np.corrcoef(predicted, measured)[0, 1])
    assert found["expected_missing"] == pytest.approx(table["chance"][table["round"] < 0].sum())
    summary = json.loads((whole / "summary.json").read_text())
    assert summary["rollouts"]["prediction"] == found
    assert summary["selection"]["pool_size"] == n_sampled
    page = (whole / "report" / "index.html").read_text()
    assert f"{n_sampled} of 24 prompts were sampled" in page
    assert "Best expected elsewhere" in page


def test_a_share_of_all_is_the_fixed_allocation_byte_for_byte(fixed: Path, tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = run(run_dir, "--stop-after", "select", settings={**PREDICTED, "rollouts.share": 1})
    assert done.returncode == 0, done.stderr
    assert not (run_dir / "prompt_states").exists()
    for name in (
        "rollouts/rollouts.jsonl",
        "gradients/projected.npy",
        "scores/scores.parquet",
        "selection/selected.jsonl",
        "selection/values.parquet",
    ):
        assert (run_dir / name).read_bytes() == (fixed / name).read_bytes(), name


def test_states_are_the_last_and_the_mean_of_a_prompt_and_the_same_whichever_are_wanted(make_policy) -> None:
    policy = make_policy()
    prompts = [Prompt(f"p-{i}", question, answer) for i, (question, answer) in enumerate(QUESTIONS)]
    whole = dict(prompt_states(policy, prompts, token_budget=64))
    assert sorted(whole) == [0, 1, 2, 3]
    for place, prompt in enumerate(prompts):
        alone = next(HiddenStates(policy, 4096).of([policy.encoder.encode(prompt)])).numpy()
        assert whole[place] == pytest.approx(np.concatenate([alone[-1], alone.mean(0)]), abs=1e-4)
        assert whole[place].shape == (prompt_state_dim(policy),)
    for wanted in ({2}, {0, 3}):
        part = dict(prompt_states(policy, prompts, wanted, token_budget=64))
        assert part.keys() == wanted
        assert all((part[place] == whole[place]).all() for place in wanted)


def a_round_is_begun(partial: Path) -> bool:
    return lines_in(partial / "rounds" / "1" / "completions.jsonl")


def test_a_run_killed_in_its_rounds_gives_the_same_files(whole: Path, tmp_path: Path) -> None:
    run_dir, name = tmp_path / "run", "rollouts"
    shutil.copytree(whole, run_dir)
    order = [stage.folder for stage in GRAPH.stages]
    for later in order[order.index(name) :]:
        shutil.rmtree(run_dir / later, ignore_errors=True)
    killed_and_continued(name, run_dir, whole, PREDICTED, a_round_is_begun)


@pytest.mark.parametrize("until", ["decided", "taken", "merged"])
def test_rollouts_cut_off_between_their_steps_go_on_there(whole: Path, tmp_path: Path, until: str) -> None:
    """What a kill leaves after a round was decided on, after its rows were taken, and after the merge."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for later in ("gradients", "scores", "selection", "training", "evaluation", "report"):
        shutil.rmtree(run_dir / later)
    expected = {n: f for n, f in comparable(whole).items() if n.startswith("rollouts/")}
    partial, final = run_dir / "rollouts.partial", run_dir / "rollouts"
    manifest = read_json(final / "manifest.json")
    final.rename(partial)
    (partial / "manifest.json").unlink()
    write_json(partial / "inputs.json", {"inputs": manifest["inputs"], "wall_seconds": 0.0})
    decided = read_json(partial / "rounds.json")
    by_round = [set(one["prompt_ids"]) for one in decided["rounds"]]
    lines = (partial / "rollouts.jsonl").read_text().splitlines(keepends=True)
    for number, ids in enumerate(by_round):
        place = partial / "rounds" / str(number)
        place.mkdir(parents=True, exist_ok=True)
        own = [line for line in lines if json.loads(line)["prompt_id"] in ids]
        (place / "completions.jsonl").write_text("".join(own))
    if until != "merged":
        for file in ("rollouts.jsonl", "sampled.json", "predictions.parquet"):
            (partial / file).unlink()
        last = decided["rounds"][1]
        kept = {key: last[key] for key in ("prompt_ids", "predicted")}
        write_json(partial / "rounds.json", {"rounds": [decided["rounds"][0], kept], "found": {}})
        for number in range(1 if until == "decided" else 2, len(by_round)):
            shutil.rmtree(partial / "rounds" / str(number), ignore_errors=True)
    code, _, err = command("rollout", run_dir)
    assert code == 0, err
    found = {n: f for n, f in comparable(run_dir).items() if n.startswith("rollouts/")}
    assert found.keys() == expected.keys()
    assert [file for file in expected if found[file] != expected[file]] == []


def test_a_choice_by_v_alone_takes_no_gradients(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    done = run(run_dir, "--stop-after", "select", settings={**PREDICTED, "selection.method": "learnability"})
    assert done.returncode == 0, done.stderr
    assert not (run_dir / "gradients").exists()
    assert not list((run_dir / "rollouts").rglob("projected.npy"))
    found = json.loads((run_dir / "rollouts" / "manifest.json").read_text())
    assert {row["alignment_error"] for row in found["counts"]["prediction"]["rounds"]} == {None}
    assert "gradients" not in found["inputs"]["recipe"]


def test_a_choice_that_aims_is_predicted_by_its_alignment_with_the_target(tmp_path: Path) -> None:
    run_dir = tmp_path / "run"
    aimed = {"selection.method": "learnalign-target", "selection.target": "held-out:8"}
    done = run(run_dir, "--stop-after", "select", settings={**PREDICTED, **aimed})
    assert done.returncode == 0, done.stderr
    assert len(list(open_store(run_dir / "target_gradients").prompt_ids)) == 8
    inputs = json.loads((run_dir / "rollouts" / "manifest.json").read_text())["inputs"]
    assert {"prompt_states", "target_rollouts", "target_gradients"} <= set(inputs["stages"])
    assert len(sampled_ids(run_dir)) <= MOST
    selected = [json.loads(line) for line in (run_dir / "selection" / "selected.jsonl").read_text().splitlines()]
    assert {row["prompt_id"] for row in selected} <= set(sampled_ids(run_dir))


def test_a_method_that_must_see_every_prompt_is_refused() -> None:
    predicted = load_recipe("demo", {"rollouts.allocation": "predicted", "selection.method": "token-length"})
    with pytest.raises(RecipeError, match=r"predicted and selection\.method token-length, which must see every"):
        recipe_method(predicted)
    assert recipe_method(dataclasses.replace(predicted, rollouts=dataclasses.replace(predicted.rollouts, share=1.0)))
    assert recipe_method(load_recipe("demo", {"rollouts.allocation": "predicted", "selection.method": "random"}))


def test_a_budget_below_the_choice_is_refused_before_anything_is_sampled(tmp_path: Path) -> None:
    done = run(tmp_path / "run", settings={**PREDICTED, "rollouts.share": 0.1, "rollouts.budget_share": 0.2})
    assert done.returncode == 1
    assert "rollouts.budget_share is 0.2, which is 5 of the 24 prompts, and selection.n 6" in done.stderr
    assert not (tmp_path / "run" / "warmup").exists()


@pytest.mark.parametrize(
    ("share", "budget", "n_pool", "expected"),
    [(0.15, 0.4, 1000, (150, 400)), (0.3, 0.1, 1000, (300, 300)), (0.15, 0.4, 7473, (1121, 2990)), (1, 0.4, 9, (9, 9))],
)
def test_shares_are_rounded_up(share: float, budget: float, n_pool: int, expected: tuple[int, int]) -> None:
    keys = {"rollouts.share": share, "rollouts.budget_share": budget, "selection.n": 1}
    assert numbers_sampled(load_recipe("demo", {**keys, "rollouts.allocation": "predicted"}), n_pool) == expected
    assert load_recipe("demo", keys).rollouts.sampled_of(n_pool) == (n_pool, n_pool)
