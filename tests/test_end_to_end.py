"""The real command on the embedded model: whole, killed in every stage, and met with bad input."""

from __future__ import annotations

import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow.parquet
import pytest
from forked import Command, Done, command

from lean_align.artifacts import file_hash
from lean_align.compare.costs import spent_at_steps
from lean_align.stages import GRAPH
from lean_align.store import StoreWriter, open_store

SMALL = {
    "data.demo_train": 24,
    "data.demo_test": 12,
    "rollouts.batch_size": 32,
    "rollouts.window": 64,
    "rollouts.max_new_tokens": 40,
    "warmup.n_prompts": 12,
    "warmup.steps": 2,
    "warmup.prompts_per_step": 4,
    "warmup.micro_batch": 16,
    "warmup.save_steps": 1,
    "gradients.proj_dim": 256,
    "selection.n": 6,
    "training.steps": 3,
    "training.prompts_per_step": 4,
    "training.micro_batch": 16,
    "training.save_steps": 1,
    "evaluation.batch_size": 4,
    "evaluation.window": 6,
    "evaluation.at_steps": "1,2",
    "evaluation.at_limit": 5,
}
STAGES = ("data", "warmup", "rollouts", "gradients", "scores", "selection", "training", "evaluation", "report")
MEASURED = ("wall_seconds", "peak_rss_bytes", "peak_vram_bytes", "beside", "seal")


def arguments(run_dir: Path, *more: str, recipe: str = "demo", settings: dict | None = None) -> list[str]:
    sets = [part for key, value in {**SMALL, **(settings or {})}.items() for part in ("--set", f"{key}={value}")]
    return ["run", recipe, "--run-dir", str(run_dir), *sets, *more]


def real(run_dir: Path) -> list[str]:
    """The command as a user gives it: an interpreter for itself and for each stage."""
    return [sys.executable, "-m", "lean_align", *arguments(run_dir)]


def run(run_dir: Path, *more: str, **options) -> Done:
    return command(*arguments(run_dir, *more, **options))


def comparable(run_dir: Path) -> dict[str, object]:
    """Every file of a run, without what was measured."""
    files: dict[str, object] = {}
    for path in sorted(run_dir.rglob("*")):
        name = path.relative_to(run_dir).as_posix()
        if not path.is_file() or name in (".lock", ".run.lock", ".turn", "report/index.html"):
            continue
        if name.endswith("manifest.json"):
            manifest = {k: v for k, v in json.loads(path.read_text()).items() if k not in MEASURED}
            manifest["outputs"].pop("index.html", None)
            manifest["counts"].pop("wall_seconds_by_set", None)
            files[name] = manifest
        elif name == "plan.json":  # the rest rests on a second of timing, and on this process's memory
            planned = ("stage", "work_bytes", "tokens", "disk_bytes")
            files[name] = [{key: stage[key] for key in planned} for stage in json.loads(path.read_text())["stages"]]
        elif name == "summary.json":
            summary = json.loads(path.read_text())
            files[name] = {k: v for k, v in summary.items() if k not in ("stages", "total_wall_seconds", *MEASURED)}
        else:
            files[name] = path.read_bytes()
    return files


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    done = subprocess.run(real(run_dir), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((run_dir / "summary.json").read_text())
    return run_dir


def test_the_run_folder_holds_what_it_should(whole):
    for name in (
        "recipe.yaml",
        "run.json",
        "plan.json",
        "summary.json",
        "rollouts/rollouts.jsonl",
        "gradients/projected.npy",
        "gradients/norms.npy",
        "gradients/checksums.npy",
        "gradients/written.npy",
        "gradients/prompt_ids.json",
        "scores/scores.parquet",
        "scores/stability.json",
        "selection/selected.jsonl",
        "training/adapter/adapter_model.safetensors",
        "training/adapter/adapter_config.json",
        "evaluation/base/demo.jsonl",
        "evaluation/trained/demo.jsonl",
        "evaluation/summary.json",
        "report/index.html",
        *(f"{stage}/manifest.json" for stage in STAGES),
    ):
        assert (whole / name).is_file(), name
    assert not list(whole.glob("*.partial"))


def test_each_stage_ran_in_a_process_of_its_own_with_its_own_peak(whole):
    peaks = {s: json.loads((whole / s / "manifest.json").read_text())["peak_rss_bytes"] for s in STAGES}
    assert peaks["selection"] < 400 * 2**20 < peaks["training"] < 3 * 2**30


def test_scores_equal_the_full_matrix(whole):
    rows = np.load(whole / "gradients/projected.npy").astype(np.float64)
    ids = json.loads((whole / "gradients/prompt_ids.json").read_text())
    rewards: dict[str, list[float]] = {}
    for line in (whole / "rollouts/rollouts.jsonl").read_text().splitlines():
        row = json.loads(line)
        rewards.setdefault(row["prompt_id"], []).append(row["reward"])
    p = np.array([np.mean(rewards[i]) for i in ids])
    v = p * (1 - p)
    norms = np.linalg.norm(rows, axis=1)
    assert np.array_equal(norms > 0, v > 0)
    assert np.allclose(norms[norms > 0], 1, atol=2e-3)
    matrix = np.outer(v, v) * (rows @ rows.T)
    table = pyarrow.parquet.read_table(whole / "scores/scores.parquet").to_pydict()
    assert table["prompt_id"] == ids
    largest = np.abs(matrix.mean(axis=1)).max()  # products are taken in float32
    assert np.abs(matrix.mean(axis=1) - table["score"]).max() < 1e-6 * largest
    without_self = (matrix.sum(axis=1) - matrix.diagonal()) / (len(ids) - 1)
    assert np.abs(without_self - table["leave_one_out"]).max() < 1e-6 * largest
    open_store(whole / "gradients", verify=True)
    stability = json.loads((whole / "scores/stability.json").read_text())
    assert stability["n"] == 6
    assert 0 < stability["bootstrap"]["low_overlap"] <= stability["bootstrap"]["mean_overlap"] <= 1
    assert 0 <= stability["second_seed"]["share_changed"] < 1
    assert stability["second_seed"]["spearman"] > 0.5
    other = np.load(whole / "gradients/second_seed/projected.npy")
    assert other.shape == rows.shape
    assert np.array_equal(np.any(other, axis=1), np.any(rows, axis=1))
    assert not np.array_equal(other, rows)
    assert abs(sum(table["inclusion"]) - 6) < 1e-9
    assert json.loads((whole / "summary.json").read_text())["stability"] == stability
    assert "When the pool is resampled 32 times" in (whole / "report/index.html").read_text()
    best = sorted(range(len(ids)), key=lambda i: (-matrix.mean(axis=1)[i], ids[i]))[:6]
    selected = [json.loads(line) for line in (whole / "selection/selected.jsonl").read_text().splitlines()]
    assert [row["prompt_id"] for row in selected] == [ids[i] for i in best]
    assert list(selected[0]) == ["prompt", "answer", "prompt_id", "score", "rank"]


def rows_of(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_tokens_are_those_of_the_completions(whole):
    """Counted again from the files: sampled, and of groups with a spread gone over with gradients."""
    counts = {name: json.loads((whole / name / "manifest.json").read_text())["counts"] for name in STAGES}
    groups: dict[str, list[dict]] = {}
    for row in rows_of(whole / "rollouts/rollouts.jsonl"):
        groups.setdefault(row["prompt_id"], []).append(row)
    lengths = {i: sum(len(row["token_ids"]) for row in rows) for i, rows in groups.items()}
    learnable = [i for i, rows in groups.items() if len({row["reward"] for row in rows}) > 1]
    by_hand = {"rollouts": (sum(lengths.values()), 0), "gradients": (0, sum(lengths[i] for i in learnable))}
    by_step = {}
    for name in ("warmup", "training"):
        steps = rows_of(whole / name / "rewards.jsonl")
        sampled = [sum(map(sum, row["n_tokens"])) for row in steps]
        passed = [sum(sum(n) for r, n in zip(row["rewards"], row["n_tokens"]) if len(set(r)) > 1) for row in steps]
        by_step[name], by_hand[name] = (sampled, passed), (sum(sampled), sum(passed))
        assert [row["trained_tokens"] for row in rows_of(whole / name / "log.jsonl")] == passed
    for name, tokens in by_hand.items():
        assert (counts[name].get("generated_tokens", 0), counts[name].get("trained_tokens", 0)) == tokens, name
        assert max(tokens) > 0
    chosen = np.sum([by_hand[name] for name in ("warmup", "rollouts", "gradients")], axis=0)
    found = spent_at_steps(whole)
    assert [at.step for at in found] == [0, 1, 2, 3]
    assert [at.n_problems for at in found] == [5] * 4
    for at in found:
        own = chosen + [sum(kind[: at.step]) for kind in by_step["training"]]
        assert (at.spent.generated_tokens, at.spent.trained_tokens) == tuple(own)
        assert at.spent.tokens == sum(own)
    seconds = [json.loads((whole / name / "manifest.json").read_text())["wall_seconds"] for name in STAGES]
    before = sum(seconds[STAGES.index("warmup") : STAGES.index("training")])
    assert found[0].spent.seconds == pytest.approx(before)
    assert found[3].spent.seconds == pytest.approx(before + seconds[STAGES.index("training")])
    assert found[0].spent.seconds < found[1].spent.seconds < found[2].spent.seconds < found[3].spent.seconds


def test_steps_are_evaluated_on_one_subset_with_the_adapters_of_these_steps(whole):
    """The start and the last step are the base's and the trained model's own answers."""
    rows = rows_of(whole / "evaluation/at_steps.jsonl")
    folders = ["base", "at_steps/step-1", "at_steps/step-2", "trained"]
    answers = [{r["prompt_id"]: r for r in rows_of(whole / "evaluation" / f / "demo.jsonl")} for f in folders]
    subset = set(answers[1])
    assert len(subset) == 5
    assert subset == set(answers[2]) < set(answers[0])
    for row, found in zip(rows, answers, strict=True):
        assert row["accuracy"] == pytest.approx(np.mean([found[i]["reward"] for i in subset]))
    kept = [whole / "training" / name / "adapter_model.safetensors" for name in (*folders[1:3], "adapter")]
    assert len({path.read_bytes() for path in kept}) == 3


def stage(name: str, run_dir: Path, *more: str) -> Command:
    return Command(name, run_dir, *more)


def without_gradients(whole: Path, run_dir: Path) -> Path:
    """A copy of a run as it is before the gradient stage."""
    shutil.copytree(whole, run_dir)
    for name in ("gradients", "scores", "selection", "training", "evaluation", "report"):
        shutil.rmtree(run_dir / name)
    return run_dir


def assert_gradients_are_those_of_one_process(whole: Path, run_dir: Path) -> None:
    for folder in (whole, run_dir):
        assert not (folder / "gradients.partial").exists()
    one, many = ({k: v for k, v in comparable(r).items() if k.startswith("gradients/")} for r in (whole, run_dir))
    assert many == one
    assert len(one) == 12


def test_workers_on_rows_of_their_own_write_what_one_process_writes(whole, tmp_path):
    run_dir = without_gradients(whole, tmp_path / "run")
    first, second = stage("gradients", run_dir, "--rows", ":11"), stage("gradients", run_dir, "--rows", "11:")
    (code_1, out_1, err_1), (code_2, out_2, err_2) = first.wait(), second.wait()
    assert (code_1, code_2) == (0, 0), err_1 + err_2
    assert_gradients_are_those_of_one_process(whole, run_dir)
    manifest = json.loads((run_dir / "gradients/manifest.json").read_text())
    counts = [json.loads(out_1), json.loads(out_2)]
    assert manifest["counts"] in counts
    for found in counts:
        assert found == manifest["counts"] or (found["finished"], found["n_rows"]) == (False, 24)
    assert manifest["wall_seconds"] > 0
    assert manifest["peak_rss_bytes"] > 400 * 2**20


def test_rows_are_refused_while_another_worker_has_them_and_the_rest_is_made_later(whole, tmp_path):
    run_dir = without_gradients(whole, tmp_path / "run")
    ids = json.loads((whole / "gradients/prompt_ids.json").read_text())
    code, out, err = stage("gradients", run_dir, "--rows", "4:9").wait()
    assert code == 0, err
    assert json.loads(out) == {"rows": [4, 9], "n_rows": 24, "n_open": 19, "finished": False}
    seconds = [json.loads(p.read_text())["wall_seconds"] for p in (run_dir / "gradients.partial/workers").iterdir()]
    assert len(seconds) == 1
    with StoreWriter.open(run_dir / "gradients.partial", ids, 256, range(8, 12)):
        code, _, err = stage("gradients", run_dir, "--rows", "11:20").wait()
    assert code == 1
    assert "rows 11:20" in err
    assert "overlap rows 8:12 that another writer is filling" in err
    assert "Traceback" not in err
    code, out, err = stage("gradients", run_dir).wait()
    assert code == 0, err
    assert "continuing at 5 of 24" in err
    assert_gradients_are_those_of_one_process(whole, run_dir)
    manifest = json.loads((run_dir / "gradients/manifest.json").read_text())
    assert json.loads(out) == manifest["counts"]
    assert manifest["wall_seconds"] > seconds[0]


def test_a_killed_worker_is_replaced_by_another(whole, tmp_path):
    """Killed with some rows flagged; its lock is gone at once, and its rows are taken up by whoever comes."""
    run_dir = without_gradients(whole, tmp_path / "run")
    written = run_dir / "gradients.partial" / "second_seed" / "written.npy"  # flagged after the first store
    worker = stage("gradients", run_dir, "--rows", "0:16")
    while not flagged(written):
        assert worker.running
        time.sleep(0.001)
    worker.kill()
    code, _, err = stage("gradients", run_dir, "--rows", "0:24").wait()
    assert code == 0, err
    assert "gradients: continuing at" in err
    assert_gradients_are_those_of_one_process(whole, run_dir)


def flagged(written: Path) -> bool:
    """Whether a store's file of flags has one set."""
    return written.exists() and any(written.read_bytes()[128:])  # 128 bytes of header


VARIANT = {
    "gradients.precondition": "adam",
    "gradients.projection": "rademacher",
    "gradients.loss": "dr_grpo",
    "gradients.rollouts": "one_correct",
    "gradients.share_prompt": "false",
}


def test_every_choice_of_the_gradient_stage_runs_and_two_workers_write_what_one_process_writes(whole, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    for run_dir in (one, two):
        without_gradients(whole, run_dir)
    done = run(one, "--stop-after", "score", settings=VARIANT)
    assert done.returncode == 0, done.stderr
    shutil.copy(one / "recipe.yaml", two / "recipe.yaml")
    workers = [stage("gradients", two, "--rows", rows) for rows in (":7", "7:")]
    ended = [worker.wait() for worker in workers]
    assert [done.returncode for done in ended] == [0, 0], [done.stderr for done in ended]
    assert_gradients_are_those_of_one_process(one, two)
    manifest = json.loads((one / "gradients/manifest.json").read_text())
    assert manifest["counts"]["projection"]["kind"] == manifest["counts"]["second_projection"]["kind"] == "rademacher"
    rows, plain = (np.load(r / "gradients/projected.npy").astype(np.float64) for r in (one, whole))
    assert np.array_equal(np.any(rows, axis=1), np.any(plain, axis=1))
    assert np.allclose(np.linalg.norm(rows[np.any(rows, axis=1)], axis=1), 1, atol=2e-3)


def test_rows_of_another_projection_are_refused_with_both_shown(whole, tmp_path):
    run_dir = without_gradients(whole, tmp_path / "run")
    assert stage("gradients", run_dir, "--rows", ":5").wait().returncode == 0
    kept = run_dir / "gradients.partial/projection.json"
    kept.write_text(kept.read_text().replace('"stream_version": 1', '"stream_version": 0'))
    code, _, error = stage("gradients", run_dir).wait()
    assert code == 1
    assert "projection.stream_version: 0 -> 1" in error


@pytest.mark.parametrize("rows", ["5:5", "7:3", "x:3", "5", "-3:", "1:2:3", ":99", "24:"])
def test_rows_that_are_none_are_wrong_usage(whole, tmp_path, rows):
    run_dir = without_gradients(whole, tmp_path / "run")
    code, _, err = stage("gradients", run_dir, f"--rows={rows}").wait()
    assert code == 2
    assert "expected" in err
    assert "Traceback" not in err
    assert not list(run_dir.glob("gradients.partial/*.npy"))


def test_a_second_projection_seed_is_compared(whole, tmp_path):
    """Planted: the second store is the first with its columns turned around, which changes no inner product."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for name in ("scores", "selection", "training", "evaluation", "report"):
        shutil.rmtree(run_dir / name)
    gradients = run_dir / "gradients"
    rows, norms = np.load(gradients / "projected.npy"), np.load(gradients / "norms.npy")
    ids = json.loads((gradients / "prompt_ids.json").read_text())
    with StoreWriter.open(gradients / "second_seed", ids, 256) as writer:
        for row, (vector, norm) in enumerate(zip(rows, norms)):
            writer.write(row, vector[::-1].astype(np.float64) * norm)
    manifest = json.loads((gradients / "manifest.json").read_text())
    for name in manifest["outputs"]:  # as if the stage had written them
        manifest["outputs"][name] = file_hash(gradients / name)
    (gradients / "manifest.json").write_text(json.dumps(manifest))
    code, out, err = stage("score", run_dir).wait()
    assert code == 0, err
    second = json.loads(out)["stability"]["second_seed"]
    assert second["share_changed"] == 0
    assert second["spearman"] > 0.99


def test_a_plain_peft_user_can_load_the_adapter(whole):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    from lean_align.policy import DEMO_MODEL

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(DEMO_MODEL), whole / "training/adapter")
    assert sum("lora" in name for name, _ in model.named_parameters()) == 56


def test_the_same_command_on_a_finished_run_changes_nothing(whole):
    before = {p: p.stat().st_mtime_ns for p in whole.rglob("manifest.json")}
    done = run(whole)
    assert done.returncode == 0
    assert "already finished" in done.stderr
    assert {p: p.stat().st_mtime_ns for p in whole.rglob("manifest.json")} == before


def test_a_changed_recipe_is_refused_with_what_changed(whole):
    done = run(whole, settings={"rollouts.temperature": 0.9})
    assert done.returncode == 1
    assert "rollouts.temperature: 1.0 -> 0.9" in done.stderr
    assert "Traceback" not in done.stderr
    assert "temperature: 1.0" in (whole / "recipe.yaml").read_text()


def lines_in(*files: Path) -> bool:
    return any(file.exists() and b"\n" in file.read_bytes() for file in files)


BEGUN = {
    "warmup": lambda partial: (partial / "checkpoints/checkpoint-1/complete").exists(),
    "rollouts": lambda partial: lines_in(partial / "rollouts.jsonl"),
    "gradients": lambda partial: flagged(partial / "written.npy"),
    "training": lambda partial: (partial / "checkpoints/checkpoint-1/complete").exists(),
    "evaluation": lambda partial: lines_in(*partial.glob("*/demo.jsonl")),
}
"""Whether a resumable stage has a part of its work on the disk; the others start from scratch."""


def kill_in(
    name: str, run_dir: Path, settings: dict | None = None, begun: Callable[[Path], bool] | None = None
) -> bool:
    """Run the command, kill it in a stage that has begun its work, and tell whether the stage was cut off there."""
    begun = begun or BEGUN.get(name, lambda partial: (partial / "inputs.json").exists())
    running = Command(*arguments(run_dir, settings=settings))
    while running.running and not begun(run_dir / f"{name}.partial"):
        time.sleep(0.0005)
    running.kill()
    return (run_dir / f"{name}.partial").exists() and not (run_dir / name).exists()


def assert_same_files(run_dir: Path, whole: Path) -> None:
    expected, found = comparable(whole), comparable(run_dir)
    assert found.keys() == expected.keys()
    assert [name for name in expected if found[name] != expected[name]] == []


def killed_and_continued(
    name: str, run_dir: Path, whole: Path, settings: dict, begun: Callable[[Path], bool] | None = None
) -> str:
    """Kill a stage in its work; it and the run go on to the files of an uninterrupted run.  What the stage said."""
    while not kill_in(name, run_dir, settings, begun):
        shutil.rmtree(run_dir / name)
    code, _, err = command(GRAPH.by_folder[name].command, run_dir)
    assert code == 0, err
    done = run(run_dir, settings=settings)
    assert done.returncode == 0, done.stderr
    assert_same_files(run_dir, whole)
    return err


def test_killed_in_every_stage_the_files_are_those_of_an_uninterrupted_run(whole, tmp_path):
    """Killed when a part of a stage's work is there; a stage that ended before the kill came is made again."""
    run_dir = tmp_path / "run"
    for name in STAGES:
        for _ in range(50):
            if kill_in(name, run_dir):
                break
            shutil.rmtree(run_dir / name)
        else:
            pytest.fail(f"{name} ended 50 times before it was killed")
    done = run(run_dir)
    assert done.returncode == 0, done.stderr
    assert_same_files(run_dir, whole)


@pytest.mark.parametrize("name", BEGUN)
def test_a_stage_killed_in_its_work_goes_on_with_it(whole, tmp_path, name):
    """The check of the kill: what was there when it came is not made again."""
    run_dir = tmp_path / "run"
    shutil.copytree(whole, run_dir)
    for later in STAGES[STAGES.index(name) :]:
        shutil.rmtree(run_dir / later)
    while not kill_in(name, run_dir):
        shutil.rmtree(run_dir / name)
    code, _, err = stage(GRAPH.by_folder[name].command, run_dir).wait()
    assert code == 0, err
    assert f"{'demo' if name == 'evaluation' else name}: continuing at" in err


def test_a_killed_parent_leaves_no_child_behind(tmp_path):
    with subprocess.Popen(real(tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        while not (found := children.read_text().split()):
            assert process.poll() is None
            time.sleep(0.001)
        ended = select.poll()
        ended.register(os.pidfd_open(int(found[0])), select.POLLIN)  # readable once the process is no more
        process.kill()
    assert ended.poll(120_000)


def test_random_selection_runs_without_gradients(tmp_path):
    done = run(tmp_path / "run", "--stop-after", "select", settings={"selection.method": "random"})
    assert json.loads(done.stdout)["finished"] == ["data", "selection"]
    assert len((tmp_path / "run/selection/selected.jsonl").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    ("rows", "settings", "status", "message"),
    [
        ("", {}, 1, "has no rows"),
        ('\n{"prompt": "1+1?"}\n{"prompt": "2+2?"}\n', {}, 1, "line 2 has no answer"),
        ('{"prompt": "1+1?", "answer": "2"}\n{"prompt"\n', {}, 1, "line 2 is not valid JSON"),
        ('{"prompt": "1+1?", "answer": "2"}\n', {"selection.n": 2}, 2, "selection.n is 2 and the pool has 1"),
        ("PROMPT", {}, 1, "past the context"),
    ],
)
def test_bad_data_is_named_before_anything_heavy_runs(tmp_path, rows, settings, status, message):
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "word " * 600, "answer": "2"}) if rows == "PROMPT" else rows)
    paths = {"data.train_path": data, "data.test_path": data, "selection.n": 1}
    done = run(tmp_path / "run", settings={**paths, **settings})
    assert done.returncode == (1 if status == 2 else status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_when_nothing_can_be_learned_it_says_why_and_keeps_the_rollouts(tmp_path):
    data = tmp_path / "mine.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"Say {i}.", "answer": "123456"}) + "\n" for i in range(8)))
    paths = {"data.train_path": data, "data.test_path": data, "warmup.steps": 0, "selection.n": 2}
    done = run(tmp_path / "run", settings=paths)
    assert done.returncode == 1
    assert "0.0% of 8 prompts can teach" in done.stderr
    assert "Nothing can be learned from these rollouts." in done.stderr
    assert done.stderr.count("gold 123456, reward 0:") >= 3
    assert (tmp_path / "run/rollouts/rollouts.jsonl").exists()


def test_select_from_writes_the_chosen_prompts(tmp_path):
    data = tmp_path / "mine.jsonl"
    with data.open("w") as file:
        for line in (Path(__file__).parent / "golden" / "prompts.jsonl").read_text().splitlines():
            file.write(line + "\n")
    output = tmp_path / "selected.jsonl"
    sets = {**SMALL, "model.dtype": "float32", "warmup.n_prompts": 8}
    given = [part for key, value in sets.items() if key != "selection.n" for part in ("--set", f"{key}={value}")]
    done = command("select-from", data, "--model", "demo", "-n", 3, "-o", output, *given)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["n"] == 3
    assert len(output.read_text().splitlines()) == 3


def test_select_from_never_writes_over_what_it_reads(tmp_path):
    data = tmp_path / "mine.jsonl"
    data.write_text(json.dumps({"prompt": "1+1?", "answer": "2"}) + "\n")
    before = data.read_bytes()
    done = command("select-from", data, "--model", "demo", "-n", 1, "-o", data)
    assert done.returncode == 2
    assert "it would be lost" in done.stderr
    assert data.read_bytes() == before


def test_a_corrected_data_file_is_taken_by_the_same_command(tmp_path):
    data = tmp_path / "mine.jsonl"
    paths = {"data.train_path": data, "data.test_path": data, "selection.n": 1}
    data.write_text('{"prompt": "1+1?"}\n')
    assert run(tmp_path / "run", "--stop-after", "prepare", settings=paths).returncode == 1
    data.write_text('{"prompt": "1+1?", "answer": "2"}\n')
    done = run(tmp_path / "run", "--stop-after", "prepare", settings=paths)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    done = run(tmp_path / "file" / "run")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert str(tmp_path / "file") in done.stderr
