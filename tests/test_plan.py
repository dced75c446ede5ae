"""Bytes counted on shapes alone against real tensors, and the plans made of them."""

from __future__ import annotations

import dataclasses
import functools
import json
from types import SimpleNamespace

import pytest
import torch
from click.testing import CliRunner
from plans import plan_of

from lean_align.cli import main
from lean_align.errors import RecipeError
from lean_align.gradients import GradientSettings
from lean_align.gradients.rehearsal import rehearse_gradient
from lean_align.grpo import TrainerSettings
from lean_align.grpo.rehearsal import rehearse_group
from lean_align.live_bytes import LiveBytes
from lean_align.machine.place import Place, ProcessBytes, Speed
from lean_align.machine.plan import with_key
from lean_align.machine.plan_records import Plan, StagePlan
from lean_align.machine.pool_sizes import Pool, _known_benchmarks, pool_of
from lean_align.machine.rehearsals import Work, adapter_bytes, count, gradient_work, group_work
from lean_align.policy import load_policy
from lean_align.policy.shapes import loading_bytes, shape_policy, weight_bytes, with_prompt_length
from lean_align.projection import make_projector
from lean_align.recipe import Recipe, load_recipe, shipped_recipes

SPEED = Speed(1e12, 1e11, 1e-6, "made up")
GIB = 2**30


# --- counting


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_bytes_by_hand(device):
    with LiveBytes() as count:
        a = torch.empty(10, device=device)  # 40 bytes
        b = a + 1  # 80
        view = b[2:].reshape(2, 4)  # no more
        assert (count.live, count.peak) == (80, 80)
        del a
        assert count.live == 40
        c = torch.cat([b, b])  # 40 + 80
        del b, c
        assert (count.live, count.peak, count.written) == (40, 120, 160)  # the view keeps b
        del view
        assert count.live == 0


def test_arithmetic_by_hand():
    """A (2, 3) by (3, 5) product takes 2 x 2 x 3 x 5 operations."""
    with LiveBytes() as count:
        torch.ones(2, 3, device="meta") @ torch.ones(3, 5, device="meta")
    assert count.flops == 60


def test_what_was_there_before_is_not_counted():
    weight = torch.empty(1000)
    with LiveBytes() as count:
        weight.mul_(2)
        weight[3:7]
    assert (count.live, count.peak) == (0, 0)


def test_a_value_asked_of_shapes_is_false():
    with LiveBytes():
        assert not torch.ones(3, dtype=torch.bool, device="meta").all()


# --- shapes against loaded models


@pytest.mark.parametrize(
    ("model", "millions"),
    [("Qwen/Qwen2.5-1.5B-Instruct", 18.5), ("Qwen/Qwen2.5-3B-Instruct", 29.9), ("Qwen/Qwen2.5-7B-Instruct", 40.4)],
)
def test_lora_weights_of_known_models(model, millions):
    recipe = load_recipe("gsm8k", {"model.name": model})
    policy = shape_policy(recipe.model, recipe.lora, 10)
    n = sum(p.numel() for p in policy.lora_parameters.values())
    assert round(n / 1e6, 1) == millions


@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_weights_take_the_bytes_of_a_loaded_model(quantization):
    recipe = load_recipe("demo", {"model.quantization": quantization})
    loaded = load_policy(recipe.model, recipe.data, recipe.lora)
    states = [m.weight.quant_state for m in loaded.model.modules() if type(m).__name__ == "Linear4bit"]
    quantised = [t for s in states for t in (s.absmax, s.code, s.state2.absmax, s.state2.code, s.offset)]
    tensors = [*loaded.model.parameters(), *loaded.model.buffers(), *quantised]
    real = sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())
    assert weight_bytes(shape_policy(recipe.model, recipe.lora, 10)) == pytest.approx(real, rel=0.02)


@pytest.mark.parametrize("share_prompt", [True, False])
@pytest.mark.parametrize("checkpointing", [True, False])
def test_a_gradient_of_shapes_counts_what_a_real_one_takes(share_prompt, checkpointing):
    recipe = load_recipe("demo", {"model.quantization": "none"})
    settings = GradientSettings(token_budget=100, logprob_chunk=16, max_new_tokens=30, share_prompt=share_prompt)
    peaks = []
    for policy in (
        shape_policy(recipe.model, recipe.lora, 20),
        with_prompt_length(load_policy(recipe.model, recipe.data, recipe.lora), 20),
    ):
        if checkpointing:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
            policy.model.train()
        work = functools.partial(rehearse_gradient, n_completions=4, completion_tokens=30, settings=settings)
        peaks.append(count(policy, work).peak_bytes)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.15)  # shapes take another attention kernel
    assert peaks[0] > 100_000


def peak_of(**settings) -> int:
    recipe = load_recipe("gsm8k-cpu", settings)
    settings, count = GradientSettings.of(recipe), recipe.rollouts.num_generations
    return gradient_work(recipe.model, recipe.lora, recipe.gradients, settings, count, 40).peak_bytes


POOL = Pool(64, 64, 40, "made up")


def test_the_gradient_stage_takes_less_with_checkpointing_with_a_smaller_budget_and_with_smaller_chunks(few_layers):
    whole = peak_of()
    assert peak_of(**{"gradients.gradient_checkpointing": True}) < whole
    assert peak_of(**{"gradients.token_budget": 320}) < whole
    assert peak_of(**{"gradients.logprob_chunk": 64}) < whole


# --- plans


def test_every_shipped_recipe_can_be_planned(few_layers):
    for name in shipped_recipes():
        plan = plan_of(load_recipe(name), 24 * GIB, speed=SPEED)
        assert [stage.stage for stage in plan.stages] == ["warmup", "rollouts", "gradients", "training", "evaluation"]
        assert all(s.peak_bytes > s.work_bytes > 0 and s.hours > 0 and s.disk_bytes > 0 for s in plan.stages)
        assert all(s.tokens > 0 for s in plan.stages)


TRAININGS = ("warmup", "training")


def trained_by(backend: str, **settings: object) -> Recipe:
    """The recipe gsm8k with both trainings by a backend, and some of their keys."""
    keys = {"backend": backend, **settings}
    return load_recipe("gsm8k", {f"{name}.{key}": value for name in TRAININGS for key, value in keys.items()})


@pytest.mark.parametrize(("backend", "limit", "key"), [("trl", 4.0, "micro_batch"), ("lean", 1.85, "token_budget")])
def test_a_plan_for_a_small_card_says_what_to_change_and_with_it_the_recipe_fits(few_layers, backend, limit, key):
    recipe = with_key(trained_by(backend, gradient_checkpointing=False), "gradients.gradient_checkpointing", False)
    limit = int(limit * GIB)
    plan = plan_of(recipe, limit, POOL, SPEED)
    assert not plan.fits
    of_trainings = {change.partition("=")[0] for change in plan.changes if change.startswith(TRAININGS)}
    assert f"training.{key}" in of_trainings
    assert ("training.micro_batch" in of_trainings) == (backend == "trl")
    changed = recipe
    for change in plan.changes:
        key, value = change.split("=")
        changed = with_key(changed, key, True if value == "true" else int(value))
    assert plan_of(changed, limit, POOL, SPEED).fits
    assert f"--set {plan.changes[0]}" in "\n".join(plan.lines())


def test_a_key_that_two_stages_lower_is_lowered_as_far_as_the_one_of_them_needs():
    stages = [
        StagePlan("training", 1, 1, 1, 1, 1.0, 1, ("gradients.logprob_chunk=64", "training.beta=0.5"), False),
        StagePlan("gradients", 1, 1, 1, 1, 1.0, 1, ("gradients.logprob_chunk=128",), False),
    ]
    for order in (stages, stages[::-1]):
        plan = Plan("r", "m", "cuda", GIB, 1, 1, 1, tuple(order), ())
        assert sorted(plan.changes) == ["gradients.logprob_chunk=64", "training.beta=0.5"]


def trainings_of(plan: Plan) -> list[StagePlan]:
    return [stage for stage in plan.stages if stage.stage in TRAININGS]


def test_auto_plans_what_would_train_there(few_layers):
    """lean, or for a card of this machine on which Unsloth is installed that, as trl's."""
    auto, lean, trl = (
        trainings_of(plan_of(trained_by(name), 24 * GIB, POOL, SPEED)) for name in ("auto", "lean", "trl")
    )
    assert auto == lean
    assert all(a.peak_bytes < b.peak_bytes / 2 for a, b in zip(lean, trl))
    assert trainings_of(plan_of(trained_by("unsloth"), 24 * GIB, POOL, SPEED)) == trl
    card, trainer = Place("cuda", 24 * GIB, ProcessBytes(0, 0, 0, 0), SPEED, unsloth=True), trained_by("auto").training
    assert card.backend(trainer) == "unsloth"
    assert card.backend(dataclasses.replace(trainer, refill=True)) == "lean"
    assert card.backend(dataclasses.replace(trainer, backend="trl")) == "trl"


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("beta", [0.0, 0.1])
def test_a_group_of_a_training_by_lean_counts_what_a_real_one_takes(checkpointing, beta):
    recipe = load_recipe("demo", {"model.quantization": "none"})
    settings = GradientSettings(token_budget=100, logprob_chunk=16)
    peaks = []
    for policy in (
        shape_policy(recipe.model, recipe.lora, 20),
        with_prompt_length(load_policy(recipe.model, recipe.data, recipe.lora), 20),
    ):
        project = make_projector("sjlt", policy.lora_sizes, 64, 0, policy.device)
        named = {"beta": beta, "checkpointing": checkpointing, "project": project}
        work = functools.partial(rehearse_group, n_completions=4, completion_tokens=30, settings=settings, **named)
        peaks.append(count(policy, work).peak_bytes)
    assert peaks[0] == pytest.approx(peaks[1], rel=0.15)
    assert peaks[0] > 1_000_000


def test_lean_holds_moments_sum_and_initial_weights(few_layers):
    """P weights of 4 bytes: Adam's moments and the step's gradient always, the initial weights with a KL term."""
    plain, kl = (trained_by("lean", beta=beta) for beta in (0.0, 0.04))
    (_, group), (reference, group_with_kl) = (group_of(recipe) for recipe in (plain, kl))
    adapter = adapter_bytes(plain.model, plain.lora)
    for recipe, copies, passes in ((plain, 3, group), (kl, 4, group_with_kl)):
        for stage in trainings_of(plan_of(recipe, 24 * GIB, POOL, SPEED)):
            assert stage.work_bytes == copies * adapter + passes.peak_bytes
    assert 0 < reference.peak_bytes < group_with_kl.peak_bytes


def group_of(recipe: Recipe) -> tuple[Work, Work]:
    settings = TrainerSettings.of(recipe, "training")
    shape = settings.num_generations, POOL.longest_prompt
    how = settings.trainer.beta, settings.trainer.gradient_checkpointing, None
    return group_work(recipe.model, recipe.lora, settings.passes, *shape, *how)


def test_completions_that_serve_two_steps_are_counted_once_and_refilled_ones_to_their_budget(few_layers):
    """100 steps of 48 x 8 completions of up to 512 tokens; refill may draw twice as many again."""
    once = 100 * 48 * 8 * 512
    for settings, tokens in (
        ({}, once),
        ({"num_iterations": 2}, once // 2),
        ({"num_iterations": 3}, 34 * once // 100),
        ({"refill": True}, 3 * once),
        ({"refill": True, "refill_tokens": 512 * 48}, once + 100 * 512 * 48),
    ):
        plan = trainings_of(plan_of(trained_by("lean", **settings), 24 * GIB, POOL, SPEED))
        assert plan[1].tokens == tokens


def test_kept_rows_are_counted_on_the_disk_and_in_memory(few_layers):
    plain, kept = (
        trainings_of(plan_of(trained_by("lean", keep_rows=k), 24 * GIB, POOL, SPEED))[1] for k in (False, True)
    )
    assert kept.disk_bytes - plain.disk_bytes == 2 * 8192 * 100 * 48
    assert kept.peak_bytes >= plain.peak_bytes


def test_where_no_key_helps_the_plan_says_so():
    plan = plan_of(load_recipe("demo", {"selection.method": "random"}), GIB // 2, POOL, SPEED)
    assert not plan.fits
    assert plan.changes == ()
    assert "take a smaller model" in "\n".join(plan.lines())


def test_a_baseline_needs_no_gradients(few_layers):
    recipe = load_recipe("gsm8k", {"selection.method": "random"})
    assert [s.stage for s in plan_of(recipe, 24 * GIB, POOL, SPEED).stages] == ["training", "evaluation"]


def test_hours_follow_from_speed_and_amounts():
    """One second of arithmetic, one of traffic, and the starting of operations: the longer one and the last count."""
    assert Speed(10.0, 5.0, 0.1, "").seconds(20, 15, 2) == pytest.approx(3 + 0.2)
    assert Speed(10.0, 5.0, 0.1, "").seconds(50, 15, 2) == pytest.approx(5 + 0.2)


def test_the_pool_is_counted_where_data_and_tokenizer_are_at_hand():
    recipe = load_recipe("demo", {"data.demo_train": 12, "data.demo_test": 7, "data.limit": 5})
    pool = pool_of(recipe)
    assert (pool.n_train, pool.n_test) == (5, 7)
    assert 10 < pool.longest_prompt < 100


def test_benchmarks_are_counted_with_their_samples_and_the_longest_of_them_decides_the_peak(few_layers):
    """Both models, 20 problems greedily and 20 with 4 samples, of up to 512 and 3,072 tokens."""
    names = {"data.test_path": None, "evaluation.limit": 20, "evaluation.num_samples": 4}

    def planned(benchmarks):
        recipe = load_recipe("gsm8k", {**names, "evaluation.benchmarks": benchmarks})
        pool = dataclasses.replace(POOL, n_test=0, benchmarks=_known_benchmarks(recipe))
        return plan_of(recipe, 24 * GIB, pool, SPEED).stages[-1]

    gsm8k, both = planned(["gsm8k"]), planned(["gsm8k", "aime2024"])
    assert gsm8k.tokens == 2 * 20 * 512
    assert both.tokens == gsm8k.tokens + 2 * 20 * 4 * 3072
    assert both.peak_bytes > gsm8k.peak_bytes
    assert both.hours > gsm8k.hours


def test_the_problems_of_a_target_are_counted_in_stages_of_their_own(few_layers):
    """16 problems, 8 completions each of up to 512 tokens, and a prompt of 128 before the gradients."""
    recipe = load_recipe("gsm8k", {"selection.method": "learnalign-target"})
    aimed = plan_of(recipe, 24 * GIB, dataclasses.replace(POOL, n_target=16, longest_prompt=128), SPEED)
    plain = plan_of(load_recipe("gsm8k"), 24 * GIB, dataclasses.replace(POOL, longest_prompt=128), SPEED)
    names = [stage.stage for stage in plain.stages]
    assert [s.stage for s in aimed.stages] == [names[0], "target_rollouts", "target_gradients", *names[1:]]
    by_name = {stage.stage: stage for stage in aimed.stages}
    assert by_name["target_rollouts"].tokens == 16 * 8 * 512
    assert by_name["target_gradients"].tokens == 16 * (8 * 512 + 128)
    assert by_name["target_gradients"].disk_bytes == 16 * 2 * 8192 * 2
    assert by_name["target_gradients"].peak_bytes == by_name["gradients"].peak_bytes
    assert by_name["target_gradients"].hours == pytest.approx(by_name["gradients"].hours * 16 / POOL.n_train)
    assert [by_name[name] for name in names] == list(plain.stages)


def test_the_problems_of_a_target_are_counted_before_anything_runs(tmp_path):
    rows = tmp_path / "wanted.jsonl"
    rows.write_text("".join(json.dumps({"prompt": f"What is {i} + 1?", "answer": str(i + 1)}) + "\n" for i in range(9)))

    def counted(recipe, target):
        few = {"data.demo_train": 12, "data.demo_test": 7} if recipe == "demo" else {}
        aimed = {"selection.method": "learnalign-target", "selection.target": target}
        pool = pool_of(load_recipe(recipe, few | aimed))
        return pool.n_train, pool.n_target

    assert counted("demo", "held-out:5") == (12, 5)
    assert counted("demo", str(rows)) == (12, 9)
    assert counted("testbed", "testbed:16") == (1000, 16)
    assert counted("gsm8k", "held-out:128") == (7473 - 128, 128)
    assert pool_of(load_recipe("gsm8k")).n_train == 7473
    with pytest.raises(RecipeError, match=r"selection\.target is 'someone/else', on the hub.*Give a local file"):
        counted("demo", "someone/else")


def test_data_that_nobody_has_counted_are_refused():
    recipe = load_recipe("gsm8k", {"data.train_path": "someone/else"})
    with pytest.raises(RecipeError, match=r"data\.train_path is 'someone/else'.*Give a local file"):
        pool_of(recipe)


def test_lines_by_hand():
    stages = (
        StagePlan("rollouts", 3 * GIB, 5 * GIB, GIB, 1000, 1.5, 2048),
        StagePlan("gradients", 9 * GIB, 5 * GIB, 7 * GIB, 2000, 0.5, 4096, ("gradients.token_budget=512",), False),
    )
    plan = Plan("r", "m", "cuda", 8 * GIB, 2 * GIB, 1000, 3 * GIB, stages, ("it is made up",))
    assert plan.lines() == [
        "r on a card of 8.0 GiB: m, 2.0 GiB loaded, 1,000 LoRA weights, 3.0 GiB to download",
        "stage         VRAM      RAM  tokens  hours     disk",
        "rollouts   3.0 GiB  5.0 GiB   1,000   1.50  2.0 KiB",
        "gradients  9.0 GiB  5.0 GiB   2,000   0.50  4.0 KiB  does not fit; gradients.token_budget=512",
        "does not fit as it is (at most 2.0 hours); it does with: --set gradients.token_budget=512",
        "- it is made up",
    ]
    on_cpu = dataclasses.replace(plan, device="cpu").lines()
    assert on_cpu[1:3] == [
        "stage          RAM  tokens  hours     disk",
        "rollouts   3.0 GiB   1,000   1.50  2.0 KiB",
    ]
    assert dataclasses.replace(plan, download_bytes=0).lines()[0].endswith("nothing to download")
    fitting = dataclasses.replace(plan, stages=stages[:1])
    assert fitting.lines()[-2] == "fits; at most 1.5 hours"


# --- the command


def test_the_command_prints_a_table_or_json():
    arguments = ["plan", "demo", "--vram", "24GiB"]
    table = CliRunner().invoke(main, arguments)
    assert table.exit_code == 0, table.output
    assert "gradients" in table.stdout
    found = json.loads(CliRunner().invoke(main, [*arguments, "--json"]).stdout)
    assert found["limit_bytes"] == 24 * GIB
    assert {stage["stage"] for stage in found["stages"]} >= {"rollouts", "gradients", "training"}


@pytest.mark.parametrize(("fits", "status"), [(True, 0), (False, 1)])
def test_a_plan_that_does_not_fit_has_status_1(fits, status, monkeypatch):
    found = SimpleNamespace(fits=fits, lines=lambda: ["the plan"], as_json=lambda: {"fits": fits})
    monkeypatch.setattr("lean_align.machine.plan.plan_run", lambda *given: found)
    done = CliRunner().invoke(main, ["plan", "demo"])
    assert (done.stdout, done.exit_code) == ("the plan\n", status)
    assert CliRunner().invoke(main, ["plan", "demo", "--json"]).exit_code == 0


@pytest.mark.parametrize("size", ["24", "0GiB", "many", "-3GiB"])
def test_a_size_without_sense_is_wrong_usage(size):
    done = CliRunner().invoke(main, ["plan", "demo", "--vram", size])
    assert done.exit_code == 2
    assert "24GiB" in done.output


def test_vllm_is_planned_with_whole_weights_and_its_keys_and_values(few_layers):
    """2 layers of Qwen2.5-1.5B in 16 bits: 2 (K, V) x 2 layers x 2 heads x 128 x 2 bytes = 2,048 bytes a token."""
    plain, recipe = (load_recipe("gsm8k", {"rollouts.engine": engine}) for engine in ("transformers", "vllm"))
    pool = Pool(100, 100, 128, "made up")
    plan, other = (plan_of(r, 24 * GIB, pool, SPEED) for r in (recipe, plain))
    stage = next(stage for stage in plan.stages if stage.stage == "rollouts")
    model = dataclasses.replace(recipe.model, quantization="none")
    weights = weight_bytes(shape_policy(model, None, 1))
    assert stage.peak_bytes == weights + 2048 * 128 * (128 * 5 + 1) + 2 * GIB
    assert stage.disk_bytes == weights + next(s for s in other.stages if s.stage == "rollouts").disk_bytes
    assert any("vLLM" in line for line in plan.assumptions)
    assert not any("vLLM" in line for line in other.assumptions)
    assert stage.peak_bytes != next(stage for stage in other.stages if stage.stage == "rollouts").peak_bytes
    assert plan.stages[2] == other.stages[2]  # the gradients
    for here, there in zip(trainings_of(plan), trainings_of(other)):  # by lean, with vLLM beside the policy
        assert here.peak_bytes - there.peak_bytes == stage.peak_bytes
        assert here.disk_bytes - there.disk_bytes == weights
        assert here.hours == there.hours
    by_trl = (trained_by("trl"), with_key(trained_by("trl"), "rollouts.engine", "vllm"))
    without, with_vllm = (trainings_of(plan_of(r, 24 * GIB, pool, SPEED)) for r in by_trl)
    assert without == with_vllm


def test_where_vllm_does_not_fit_beside_the_policy_the_plan_names_the_engine(few_layers):
    """2.8 GiB of vLLM fit in 4.4 GiB alone, not with the 1.5 GiB of a training; fewer keys and values do not help."""
    recipe = with_key(trained_by("lean"), "rollouts.engine", "vllm")
    plan = plan_of(recipe, int(4.4 * GIB), Pool(100, 100, 128, "made up"), SPEED)
    assert [stage.fits for stage in plan.stages] == [stage.stage not in TRAININGS for stage in plan.stages]
    assert plan.changes == ("rollouts.engine=transformers",)


def test_a_card_s_recipe_planned_for_a_cpu_says_how_to_plan_for_a_card(few_layers):
    plan = plan_of(load_recipe("gsm8k"), None, Pool(100, 100, 128, "made up"), SPEED)
    assert any("--vram 24GiB" in line for line in plan.assumptions)


def test_a_plan_of_more_hours_than_anyone_waits_for_says_so(few_layers):
    plan = plan_of(load_recipe("gsm8k"), None, Pool(100, 100, 128, "made up"), SPEED)
    slower = dataclasses.replace(
        plan, stages=tuple(dataclasses.replace(s, hours=300.0, fits=True) for s in plan.stages)
    )
    assert "may take 1,500 hours: too many to be of use on this CPU" in "\n".join(slower.lines())


def test_loading_on_a_cpu_is_planned_with_the_pages_of_the_layers_that_are_made_4_bit(few_layers):
    """A layer of Qwen2.5-1.5B has 46,792,704 such weights: 2 bytes each in the file, then half a byte and scales."""
    recipe = load_recipe("gsm8k")
    found = loading_bytes(shape_policy(recipe.model, recipe.lora, 1))
    assert 2 * 46_792_704 * 2.5 < found < 2 * 46_792_704 * 2.53
    assert loading_bytes(shape_policy(dataclasses.replace(recipe.model, quantization="none"), None, 1)) == 0
