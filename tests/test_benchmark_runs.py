"""Benchmarks on the embedded model: `lean-align evaluate MODEL`, and as the stage of a run."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from forked import command

from lean_align.artifacts import read_json, read_jsonl
from lean_align.benchmarks import find_benchmarks, registry
from lean_align.demo.problems import problem_stream
from lean_align.errors import DataError, ModelError, RecipeError, StaleStageError
from lean_align.evaluation import evaluate_model, joint_table
from lean_align.evaluation.figures import evaluation_summary, read_outcomes
from lean_align.evaluation.model import _label
from lean_align.evaluation.problem_sets import check_room, held_out_name
from lean_align.pipeline.stage import Stage
from lean_align.recipe import load_recipe
from lean_align.stages import GRAPH
from lean_align.stages.report import _solved

NAMES = ("gsm8k", "amc2023")
BARE = ("bare", "amc2023")
# GSM8K without an instruction, which the embedded model does not know
BARE_BENCHMARK = dataclasses.replace(find_benchmarks(["gsm8k"])[0], name="bare", plain_template="{prompt}")
package = {"benchmark": BARE_BENCHMARK}
SETTINGS = {
    "data.prompt_format": "plain",
    "model.dtype": "float32",
    "evaluation.max_new_tokens": 40,
    "evaluation.num_samples": 4,
    "evaluation.batch_size": 16,
}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two benchmarks of generated problems, 12 of GSM8K's form and 6 of AMC's with whole floats as answers."""
    folder = tmp_path_factory.mktemp("benchmarks")
    problems = list(problem_stream(11, 18, {1: 1.0}))
    rows = {
        "gsm8k/test.jsonl": [{"question": p.question, "answer": f"steps\n#### {p.answer}"} for p in problems[:12]],
        "amc23/aimo-validation-amc.jsonl": [{"problem": p.question, "answer": float(p.answer)} for p in problems[12:]],
    }
    for name, found in rows.items():
        (folder / name).parent.mkdir()
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in found))
    return folder


def evaluated(data_dir: Path, output: Path, names=BARE, model: str = "demo", adapter=None, against=None, **more):
    own = {"evaluation.data_dir": str(data_dir), **SETTINGS, **{k.replace("__", "."): v for k, v in more.items()}}
    return evaluate_model(model, adapter, names, output, against, own).summary


@pytest.fixture(scope="module", autouse=True)
def bare() -> Iterator[None]:
    """Makes `bare` a benchmark that a package of one's own would add."""

    class Entry(EntryPoint):
        def load(self) -> object:
            return package["benchmark"]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registry, "entry_points", lambda group: [Entry("bare", "package:BENCHMARK", group)])
        yield


@pytest.fixture(scope="module")
def done(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    output = tmp_path_factory.mktemp("evaluations") / "demo"
    return output, evaluated(data_dir, output)


def test_every_figure_follows_from_the_completions(done, data_dir: Path) -> None:
    output, summary = done
    assert summary == read_json(output / "summary.json")
    for name, n, k in (("bare", 12, 1), ("amc2023", 6, 4)):
        rows, found = read_jsonl(output / "evaluation/demo" / f"{name}.jsonl"), summary["benchmarks"][name]
        score = found["models"]["demo"]
        assert len(rows) == n * k
        assert (found["n"], score["num_samples"], score["metric"]) == (n, k, "pass@1" if k == 1 else "avg@4")
        assert score["value"] == pytest.approx(sum(row["reward"] for row in rows) / len(rows))
        assert score["n_correct"] == sum(row["reward"] for row in rows)
        assert score["n_truncated"] == sum(not row["finished"] for row in rows)
        assert score["wall_seconds"] > 0
        assert found["decoding"]["max_new_tokens"] == 40
        assert max(row["n_tokens"] for row in rows) <= 40
    assert summary["benchmarks"]["bare"]["models"]["demo"]["value"] > 0  # one step: the model can do some
    values = [b["models"]["demo"]["value"] for b in summary["benchmarks"].values()]
    assert summary["mean"]["demo"]["value"] == pytest.approx(sum(values) / 2)
    assert "GSM8K" in (output / "results.md").read_text()
    assert "AMC2023" in (output / "results.tex").read_text()


def test_sampled_completions_differ_and_greedy_ones_come_again(done, data_dir: Path, tmp_path: Path) -> None:
    output, _ = done
    sampled = [row["completion"] for row in read_jsonl(output / "evaluation/demo/amc2023.jsonl")]
    assert len(set(sampled)) > 6
    evaluated(data_dir, tmp_path / "again", seed=5)
    again = tmp_path / "again/evaluation/demo"
    assert (again / "bare.jsonl").read_bytes() == (output / "evaluation/demo/bare.jsonl").read_bytes()
    assert (again / "amc2023.jsonl").read_bytes() != (output / "evaluation/demo/amc2023.jsonl").read_bytes()


def test_the_same_call_samples_nothing_and_another_is_refused(done, data_dir: Path, capsys) -> None:
    output, summary = done
    assert evaluated(data_dir, output) == summary
    assert "already finished" in capsys.readouterr().err
    with pytest.raises(StaleStageError, match=r"evaluation.limit: None -> 3"):
        evaluated(data_dir, output, evaluation__limit=3)


def test_a_benchmark_with_another_prompt_or_other_problems_is_another_evaluation(
    done, data_dir: Path, tmp_path
) -> None:
    """The template of the entry point, and a row of the file, though names and sizes are the same."""
    package["benchmark"] = dataclasses.replace(BARE_BENCHMARK, plain_template="Q: {prompt}")
    try:
        with pytest.raises(StaleStageError, match=r"benchmarks.bare.plain_template: '\{prompt\}' -> 'Q: \{prompt\}'"):
            evaluated(data_dir, done[0])
    finally:
        package["benchmark"] = BARE_BENCHMARK
    shutil.copytree(data_dir, tmp_path / "data")
    path = tmp_path / "data/gsm8k/test.jsonl"
    path.write_text(path.read_text().replace("#### ", "#### 1"))
    with pytest.raises(StaleStageError, match=r"benchmarks.bare.problems"):
        evaluated(tmp_path / "data", done[0])
    with pytest.raises(StaleStageError, match=r"vllm_adapter: 'auto' -> 'merged'"):
        evaluated(data_dir, done[0], rollouts__vllm_adapter="merged")


def test_a_reward_that_is_none_is_named_with_its_benchmark(data_dir: Path, tmp_path: Path) -> None:
    def broken(gold: str, completion: str) -> float:
        raise RuntimeError("no such gold")

    try:
        for reward, message in (
            (lambda *_: 0.5, r"reward of bare gave 0\.5"),
            (broken, "reward of bare raised Runtime"),
        ):
            package["benchmark"] = dataclasses.replace(BARE_BENCHMARK, reward=reward)
            with pytest.raises(DataError, match=message):
                evaluated(data_dir, tmp_path / "out", names=("bare",), evaluation__limit=1)
    finally:
        package["benchmark"] = BARE_BENCHMARK
    evaluated(data_dir, tmp_path / "out", names=("bare",), evaluation__limit=1)  # mended, it goes on


def test_an_evaluation_that_fails_before_its_first_answer_leaves_no_folder(
    data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that had begun keeps what it has."""

    def fail(recipe, sets, adapters, folder) -> None:
        raise ModelError("no weights")

    def fail_later(recipe, sets, adapters, folder) -> None:
        (folder.path / "demo").mkdir()
        (folder.path / "demo/bare.jsonl").write_text("{}\n")
        fail(recipe, sets, adapters, folder)

    for sample, left in ((fail, False), (fail_later, True)):
        monkeypatch.setattr("lean_align.evaluation.model.sample_sets", sample)
        with pytest.raises(ModelError, match="no weights"):
            evaluated(data_dir, tmp_path / "evaluations/new/demo", names=("bare",))
        assert (tmp_path / "evaluations").exists() == left


def test_models_are_told_apart_by_their_run(tmp_path: Path) -> None:
    assert _label("a/Model", None) == "Model"
    assert _label("a/Model", tmp_path / "run-7/training/adapter") == "Model+run-7"
    assert _label("a/Model", tmp_path / "mine") == "Model+mine"
    names = {_label(model, None) for model in ("..", "../..", ".", "/", "a/..", "problems", ".hidden", "a\nb")}
    assert all(len(Path(name).parts) == 1 and name not in ("..", "problems", ".hidden") for name in names)


def test_a_subset_of_the_problems_gives_the_same_completions(done, data_dir: Path, tmp_path: Path) -> None:
    evaluated(data_dir, tmp_path, names=("bare",), evaluation__limit=3)
    whole = {row["prompt_id"]: row["reward"] for row in read_jsonl(done[0] / "evaluation/demo/bare.jsonl")}
    few = {row["prompt_id"]: row["reward"] for row in read_jsonl(tmp_path / "evaluation/demo/bare.jsonl")}
    assert len(few) == 3
    assert few.items() <= whole.items()


def test_two_models_are_compared_on_the_same_problems(done, data_dir: Path, tmp_path: Path) -> None:
    """The 4-bit model against the whole one: a difference with an interval, and its sign."""
    output, before = done
    found = evaluated(data_dir, tmp_path / "nf4", against=output, model__quantization="nf4")
    for name in BARE:
        models = found["benchmarks"][name]["models"]
        assert list(models) == ["demo (demo)", "demo"]
        assert models["demo (demo)"]["value"] == before["benchmarks"][name]["models"]["demo"]["value"]
        difference = found["benchmarks"][name]["difference"]
        assert difference["difference"] == pytest.approx(models["demo"]["value"] - models["demo (demo)"]["value"])
        assert difference["interval"][0] <= difference["difference"] <= difference["interval"][1]
    with pytest.raises(DataError, match=r"'n': 12.*expected.*'n': 3"):
        evaluated(data_dir, tmp_path / "few", against=output, evaluation__limit=3)
    with pytest.raises(DataError, match=r"'num_samples': 4.*expected.*'num_samples': 2"):
        evaluated(data_dir, tmp_path / "two", against=output, evaluation__num_samples=2)
    assert not (tmp_path / "two/evaluation").exists()  # refused before anything was sampled


def test_what_cannot_be_evaluated_is_refused_before_it_is_begun(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"bare: its longest prompt has \d+ tokens and a completion up to 600"):
        evaluated(data_dir, tmp_path / "a", evaluation__max_new_tokens=600)
    with pytest.raises(ModelError, match=r"has no adapter_config\.json"):
        evaluated(data_dir, tmp_path / "b", adapter=tmp_path)
    with pytest.raises(DataError, match=r"there is no .*math500/test.jsonl"):
        evaluated(data_dir, tmp_path / "c", names=("math500",))
    with pytest.raises(RecipeError, match="did you mean 'gsm8k'"):
        evaluated(data_dir, tmp_path / "d", names=("gsm8",))
    with pytest.raises(RecipeError, match=r"got 'selection\.n', which has no effect on an evaluation"):
        evaluated(data_dir, tmp_path / "e", selection__n=3)
    to_the_template = {"data__prompt_format": "chat", "data__chat_template_kwargs": {"tokenize": True}}
    with pytest.raises(RecipeError, match=r"data\.chat_template_kwargs holds 'tokenize'"):
        evaluated(data_dir, tmp_path / "g", **to_the_template)
    with pytest.raises(DataError, match="holds neither an evaluation"):
        evaluated(data_dir, tmp_path / "f", against=tmp_path / "nothing")
    assert not any(tmp_path.iterdir())


def test_a_joint_table_has_a_row_a_model(done, run_dir: Path, tmp_path: Path) -> None:
    other = json.loads((done[0] / "summary.json").read_text())
    other["benchmarks"]["bare"]["models"] = {"other": other["benchmarks"]["bare"]["models"]["demo"] | {"value": 0.25}}
    other["benchmarks"].pop("amc2023")
    (tmp_path / "summary.json").write_text(json.dumps(other))
    text = joint_table([done[0], done[0], tmp_path], paper=False).markdown()
    assert text.count("\n| demo") == 1  # the same evaluation twice is one row
    assert "\n| other | 25.0" in text
    assert "*paper:*" not in text
    assert "LearnAlign (Qwen2.5-7B)" in joint_table([run_dir]).markdown()
    (tmp_path / "summary.json").write_text(json.dumps({"benchmarks": {}}))
    with pytest.raises(DataError, match="on neither a benchmark nor a held-out set"):
        joint_table([tmp_path])


def test_a_held_out_set_of_a_benchmarks_name_is_refused() -> None:
    recipe = load_recipe("demo", {"data.test_path": "gsm8k.jsonl", "evaluation.benchmarks": ["gsm8k"]})
    with pytest.raises(RecipeError, match="called gsm8k"):
        held_out_name(recipe)
    with pytest.raises(RecipeError, match="nothing to evaluate on"):
        load_recipe("demo", {"data.test_path": None})


@pytest.fixture(scope="module")
def run_dir(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on benchmarks alone, with training prompts of which two are a benchmark's."""
    folder = tmp_path_factory.mktemp("run")
    stolen = [json.loads(line) for line in (data_dir / "gsm8k/test.jsonl").open()][:2]
    rows = [{"prompt": p.question, "answer": str(p.answer)} for p in problem_stream(1, 10, {1: 1.0, 2: 1.0})]
    rows += [{"prompt": row["question"].upper(), "answer": row["answer"]} for row in stolen]
    train = folder / "train.jsonl"
    train.write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = {
        "data.train_path": train,
        "data.test_path": "null",
        "data.contamination": "drop_exact",
        "selection.method": "random",
        "selection.n": 4,
        "rollouts.max_new_tokens": 40,
        "training.steps": 2,
        "training.prompts_per_step": 2,
        "training.micro_batch": 16,
        "evaluation.benchmarks": "[gsm8k, amc2023]",
        "evaluation.data_dir": data_dir,
        "evaluation.max_new_tokens": 40,
        "evaluation.num_samples": 2,
    }
    sets = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
    finished = command("run", "demo", "--run-dir", folder / "run", *sets)
    assert finished.returncode == 0, finished.stderr
    assert "lean-align" not in finished.stdout
    return folder / "run"


def test_a_run_leaves_both_models_on_every_benchmark(run_dir: Path) -> None:
    summary, tree = read_json(run_dir / "summary.json"), read_json(run_dir / "evaluation/summary.json")
    assert summary["benchmark"] is summary["accuracy"] is None
    assert list(summary["benchmarks"]) == list(NAMES)
    for name, n, k in (("gsm8k", 12, 1), ("amc2023", 6, 2)):
        models = summary["benchmarks"][name]["models"]
        assert list(models) == ["base", "trained"]
        assert all(score["wall_seconds"] > 0 and score["n"] == n for score in models.values())
        assert len(read_jsonl(run_dir / "evaluation/trained" / f"{name}.jsonl")) == n * k
    assert "wall_seconds" not in json.dumps(tree)  # a stage's outputs do not depend on the clock
    page = (run_dir / "report/index.html").read_text()
    assert "AMC2023" in page
    amc = read_jsonl(run_dir / "evaluation/problems/amc2023.jsonl")[0]["prompt"]
    assert amc not in page  # not to be passed on


def test_a_benchmarks_problems_are_not_trained_on(run_dir: Path) -> None:
    found = read_json(run_dir / "data/contamination.json")
    assert found["benchmarks"]["gsm8k"]["n_exact"] == 2
    dropped = read_jsonl(run_dir / "data/dropped.jsonl")
    assert [row["prompt_id"] for row in dropped if "gsm8k-00000" in row["reason"]] == ["train-000010", "train-000011"]
    chosen = {row["prompt_id"] for row in read_jsonl(run_dir / "selection/selected.jsonl")}
    assert chosen.isdisjoint({"train-000010", "train-000011"})
    assert read_json(run_dir / "summary.json")["contamination"]["mode"] == "drop_exact"


def test_the_stage_command_tells_a_run_from_a_model(run_dir: Path) -> None:
    done = command("evaluate", run_dir)
    assert done.returncode == 0
    assert json.loads(done.stdout)["n_problems"] == {"gsm8k": 12, "amc2023": 6}
    done = command("evaluate", run_dir, "--limit", "3")
    assert done.returncode == 2
    assert "got --limit too" in " ".join(done.stderr.split())
    assert command("evaluate", run_dir, "--json").returncode == 0


def test_another_benchmark_makes_stale_what_depends_on_it(run_dir: Path) -> None:
    """The evaluation; the training prompts only where matches with benchmarks are dropped."""
    more = {"evaluation.benchmarks": ["gsm8k"]}
    data, evaluation = GRAPH.by_folder["data"], GRAPH.by_folder["evaluation"]

    def inputs(stage: Stage, contamination: str, **other: object) -> dict:
        settings = {"data.contamination": contamination, **other}
        return GRAPH.stage_inputs(stage, load_recipe(run_dir / "recipe.yaml", settings), run_dir)

    assert inputs(data, "keep") == inputs(data, "keep", **more)
    assert inputs(data, "drop") != inputs(data, "drop", **more)
    assert inputs(evaluation, "keep") != inputs(evaluation, "keep", **more)


def test_figures_of_planted_completions(run_dir: Path, tmp_path: Path) -> None:
    """Every answer of the one model right and of the other wrong: 1 and 0, all wins, and a missing one is an error."""
    sets = _solved(load_recipe(run_dir / "recipe.yaml"), run_dir)
    for model in ("no", "yes"):
        (tmp_path / model).mkdir()
        for problems in sets:
            rows = [
                {"prompt_id": p.prompt_id, "index": i, "completion": "1", "n_tokens": 1, "finished": i == 0}
                for p in problems.prompts
                for i in range(problems.num_samples)
            ]
            rows = [row | {"reward": float(model == "yes")} for row in rows]
            (tmp_path / model / f"{problems.name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tree = evaluation_summary(sets, {model: tmp_path / model for model in ("no", "yes")}, seed=0)
    assert [b["difference"]["difference"] for b in tree["benchmarks"].values()] == [1.0, 1.0]
    assert [b["difference"]["wins"] for b in tree["benchmarks"].values()] == [12, 6]
    assert tree["benchmarks"]["amc2023"]["models"]["yes"]["n_truncated"] == 6
    assert tree["mean"]["difference"]["difference"] == 1.0
    path = tmp_path / "yes/gsm8k.jsonl"
    path.write_text(path.read_text().splitlines()[0] + "\n")
    assert any(not found for found in read_outcomes(path, sets[0]).values())
    with pytest.raises(ValueError, match=r"problem"):
        evaluation_summary(sets, {model: tmp_path / model for model in ("no", "yes")}, seed=0)


def test_room_is_checked_for_the_longest_prompt_of_each_set(run_dir: Path) -> None:
    from lean_align.policy import load_encoder

    recipe = load_recipe(run_dir / "recipe.yaml")
    sets, encoder = _solved(recipe, run_dir), load_encoder(recipe.model, recipe.data)
    longest = max(s.longest_sequence(encoder) for s in sets)
    check_room(sets, encoder, longest)
    with pytest.raises(DataError, match="leave"):
        check_room(sets, encoder, longest - 1)
    with pytest.raises(DataError, match=f"the model's context {longest}"):
        check_room([dataclasses.replace(s, max_new_tokens=longest) for s in sets], encoder, longest)
