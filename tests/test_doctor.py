"""`lean-align doctor`: planted facts and the findings and commands that they must give; real probes where they run."""

from __future__ import annotations

import dataclasses
import http.server
import json
import os
import re
import shlex
import socket
import subprocess
import sys
import threading
import types
from importlib.metadata import requires
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from plans import plan_of

from lean_align.cli import main
from lean_align.errors import ModelError
from lean_align.machine import inventory as facts
from lean_align.machine import probes
from lean_align.machine.costs import Cost
from lean_align.machine.doctor import examine
from lean_align.machine.findings import Diagnosis, Finding
from lean_align.machine.inventory import OPTIONAL, TESTED, Disk, Machine, supported_ranges
from lean_align.machine.place import ProcessBytes, Speed
from lean_align.machine.plan_records import Plan, StagePlan
from lean_align.machine.probes import Report, hub_sources, shipped
from lean_align.recipe import Recipe, load_recipe, shipped_recipes

ROOT = Path(__file__).parent.parent
GIB = 2**30
ALL = ("demo", "gsm8k-cpu", "gsm8k")
SOURCES = {name: list(hub_sources(recipe)) for name, recipe in shipped().items()}
CARD = {"name": "RTX 4090", "total_bytes": 24 * GIB, "free_bytes": 23 * GIB, "capability": [8, 9]}
BUILD = {"version": "2.13.0", "cuda": "13.0", "cards": [CARD], "fault": None}
ENDPOINT = "https://hub.example"
NO_CARDS = {**BUILD, "cards": [], "fault": "RuntimeError: No CUDA GPUs are available"}
CPU_BUILD = {"version": "2.13.0+cpu", "cuda": None, "cards": [], "fault": None}
PLANNED = {  # GiB of weights, on a card, of RAM, in the run folder and to download; hours on a CPU
    "demo": (0.01, 0.5, 1, 0.1, 0, 0.3),
    "gsm8k-cpu": (0.3, 1.5, 7, 0.2, 0.3, 9),
    "gsm8k": (1.2, 11, 5, 2, 3, 5000),
}


def planned(name: str, card_bytes: int | None) -> Plan:
    """A made-up plan for a card, or for a CPU of 64 GiB; half the settings take half the card."""
    weights, peak, ram, disk, download, hours = PLANNED[name]
    on_card = card_bytes is not None
    need, limit = int((peak if on_card else ram) * GIB), 64 * GIB if card_bytes is None else card_bytes
    changes = ("training.micro_batch=4",) if limit < need <= 2 * limit else ()
    stage = StagePlan("training", need, int(ram * GIB), 0, 1, hours, int(disk * GIB), changes, need <= limit)
    device, sizes = "cuda" if on_card else "cpu", (int(weights * GIB), 1, int(download * GIB))
    return Plan(name, "a/model", device, limit, *sizes, (stage,), ("made up",))


def plan_report(card_bytes: int | None) -> Report:
    return Report({"plans": {name: planned(name, card_bytes).as_json() for name in ALL}, "faults": {}})


GOOD = Machine(
    python="3.12.4",
    cpus=16,
    memory_bytes=64 * GIB,
    available_bytes=60 * GIB,
    driver="580.65.06",
    nvidia_devices=1,
    visible_devices=None,
    versions={"lean-align": "0.1.0", **TESTED},
    ranges=supported_ranges(),
    disk=Disk("/work", 100 * GIB, 1),
    cache=Disk("/cache", 100 * GIB, 2),
    probes={
        "torch": Report(BUILD),
        "bitsandbytes": Report({"device": "cuda:0", "matrices": 28}),
        "unsloth": Report({"version": OPTIONAL["unsloth"]}),
        "vllm": Report({"version": OPTIONAL["vllm"] + "+cu130"}),
        "cache": Report({"folder": "/cache", "missing": SOURCES}),
        "plan": plan_report(24 * GIB),
        "hub": Report({"endpoint": ENDPOINT, "offline": False, "fault": None}),
    },
)
ON_CPU = {"driver": None, "nvidia_devices": 0}


def planted(probe: dict[str, Report] | None = None, **changes: object) -> Machine:
    """The good machine with other facts, other reports of probes, and the plans for its card or its CPU."""
    reports = {**GOOD.probes, **(probe or {})}
    cards = reports["torch"].values.get("cards") or [{"total_bytes": None}]
    plans = {"plan": plan_report(cards[0]["total_bytes"])}
    return dataclasses.replace(GOOD, probes=reports | ({} if "plan" in (probe or {}) else plans), **changes)


def finding(machine: Machine, name: str) -> Finding:
    (found,) = [finding for finding in examine(machine).findings if finding.name == name]
    return found


def torch_report(**values: object) -> dict[str, Report]:
    return {"torch": Report({**BUILD, **values})}


def card_report(**values: object) -> dict[str, Report]:
    return torch_report(cards=[{**CARD, **values}])


def test_a_good_machine_has_nothing_to_fix() -> None:
    diagnosis = examine(GOOD)
    assert {f.name: (f.got, f.expected) for f in diagnosis.findings if f.status != "ok"} == {}
    assert all(f.command is None and f.stops == () for f in diagnosis.findings)
    assert diagnosis.can_run == dict.fromkeys(ALL, True)


@pytest.mark.parametrize(
    ("machine", "name", "status", "got", "command", "stops"),
    [
        (planted(python="3.10.12"), "Python", "fail", "3.10.12", "python3.13 -m venv .venv && .venv/bin/pip", ALL),
        (planted(python="3.14.0"), "Python", "warn", "3.14.0", "python3.13 -m venv .venv && .venv/bin/pip", ()),
        (planted({"vllm": Report({"version": "dev"})}), "vllm", "warn", "dev", "pip install 'vllm==0.32.0'", ()),
        (planted(cpus=1), "CPU cores", "warn", "1", None, ()),
        (
            planted(memory_bytes=4 * GIB),
            "memory",
            "fail",
            "4.0 GiB",
            "lean-align run demo",
            ("gsm8k-cpu", "gsm8k"),
        ),
        (planted(memory_bytes=GIB // 2), "memory", "fail", "512.0 MiB", "free -h", ALL),
        (planted(available_bytes=GIB), "memory", "warn", "1.0 GiB available", "ps -eo rss,pid,comm --sort=-rss", ()),
        (planted(memory_bytes=None), "memory", "warn", "unknown", None, ()),
        (planted(torch_report(**CPU_BUILD), **ON_CPU), "card", "fail", "none", "lean-align run gsm8k-cpu", ("gsm8k",)),
        (
            planted(torch_report(**CPU_BUILD)),
            "CUDA",
            "fail",
            "torch 2.13.0+cpu, built without CUDA",
            "pip uninstall -y torch && pip install 'torch==2.13.0'",
            ("gsm8k",),
        ),
        (planted(torch_report(**CPU_BUILD)), "card", "fail", "torch sees none", "pip uninstall -y torch", ("gsm8k",)),
        (
            planted({"torch": Report({}, "OSError: libcudart.so.13")}),
            "CUDA",
            "fail",
            "OSError: libcudart.so.13",
            "pip install --force-reinstall 'torch==2.13.0'",
            ALL,
        ),
        (
            planted(torch_report(**NO_CARDS), driver="550.54"),
            "driver",
            "fail",
            "550.54",
            "sudo apt-get install nvidia-driver-580",
            ("gsm8k",),
        ),
        (
            planted(torch_report(**{**NO_CARDS, "cuda": "12.6"}), driver="470.10"),
            "driver",
            "fail",
            "470.10",
            "sudo apt-get install nvidia-driver-525",
            ("gsm8k",),
        ),
        (
            planted(torch_report(**CPU_BUILD), driver=None),
            "driver",
            "fail",
            "an NVIDIA card without a driver",
            "sudo apt-get install nvidia-driver-580",
            ("gsm8k",),
        ),
        (
            planted(torch_report(**NO_CARDS), visible_devices=""),
            "card",
            "fail",
            "none, with CUDA_VISIBLE_DEVICES=''",
            "unset CUDA_VISIBLE_DEVICES",
            ("gsm8k",),
        ),
        (
            planted(torch_report(cards=[], fault="RuntimeError: CUDA unknown error"), visible_devices="0"),
            "card",
            "fail",
            "torch sees none: RuntimeError: CUDA unknown error",
            "nvidia-smi",
            ("gsm8k",),
        ),
        (
            planted(card_report(total_bytes=8 * GIB, free_bytes=7 * GIB)),
            "card memory",
            "warn",
            "8.0 GiB, 7.0 GiB free",
            "lean-align run gsm8k --set training.micro_batch=4",
            (),
        ),
        (
            planted(card_report(total_bytes=2 * GIB)),
            "card memory",
            "fail",
            "2.0 GiB",
            "lean-align run gsm8k-cpu",
            ("gsm8k",),
        ),
        (planted(card_report(free_bytes=3 * GIB)), "card memory", "warn", "3.0 GiB free", "nvidia-smi", ()),
        (
            planted(card_report(capability=[7, 5])),
            "bfloat16",
            "warn",
            "emulated: compute capability 7.5",
            "lean-align run gsm8k --set model.dtype=float32",
            (),
        ),
        (
            planted(versions={**GOOD.versions, "lean-align": None}, ranges={}),
            "lean-align",
            "warn",
            "not installed",
            "pip install --no-deps --editable .",
            (),
        ),
        (
            planted(versions={**GOOD.versions, "trl": "1.15.0"}),
            "trl",
            "fail",
            "1.15.0",
            "pip install 'trl==1.14.2'",
            ALL,
        ),
        (
            planted(versions={**GOOD.versions, "numpy": "2.5.0"}),
            "numpy",
            "warn",
            "2.5.0",
            f"pip install 'numpy=={TESTED['numpy']}'",
            (),
        ),
        (
            planted(versions={**GOOD.versions, "peft": None}),
            "peft",
            "fail",
            "not installed",
            "pip install 'peft==0.21.2'",
            ALL,
        ),
        (
            planted({"bitsandbytes": Report({}, "ended by SIGSEGV")}),
            "4-bit backward",
            "fail",
            "ended by SIGSEGV",
            "pip install --force-reinstall --no-deps 'bitsandbytes==0.50.2'",
            ("demo", "gsm8k"),
        ),
        (
            planted({"bitsandbytes": Report({}, "OutOfMemoryError: CUDA out of memory.")}),
            "4-bit backward",
            "fail",
            "OutOfMemoryError",
            "nvidia-smi",
            ("demo", "gsm8k"),
        ),
        (
            planted({"bitsandbytes": Report({}, "ImportError: peft")}, versions={**GOOD.versions, "peft": "0.1"}),
            "4-bit backward",
            "fail",
            "ImportError: peft",
            "pip install 'peft==0.21.2'",
            ("demo", "gsm8k"),
        ),
        (
            planted({"unsloth": Report({}, "RuntimeError: Unsloth needs a newer torchao")}),
            "unsloth",
            "fail",
            "does not import: RuntimeError: Unsloth needs a newer torchao",
            "pip install --force-reinstall --no-deps 'unsloth==2026.10.9'",
            (),
        ),
        (
            planted({"vllm": Report({}, "ModuleNotFoundError: No module named 'msgspec'")}),
            "vllm",
            "fail",
            "No module named 'msgspec'",
            "pip install 'lean-align[gpu]'",
            (),
        ),
        (
            planted({"vllm": Report({"version": "0.33.0"})}),
            "vllm",
            "warn",
            "0.33.0",
            "pip install 'vllm==0.32.0'",
            (),
        ),
        (
            planted(disk=Disk("/work", GIB // 2, 1)),
            "disk",
            "fail",
            "512.0 MiB free at /work",
            "lean-align run gsm8k --run-dir /OTHER/DISK/gsm8k",
            ("gsm8k",),
        ),
        (
            planted(cache=Disk("/cache", GIB, 2)),
            "hub cache",
            "fail",
            "1.0 GiB free at /cache",
            "export HF_HOME=/OTHER/DISK/huggingface",
            ("gsm8k",),
        ),
        (
            planted({"hub": Report({"endpoint": ENDPOINT, "offline": False, "fault": "ConnectError: no route"})}),
            "hub",
            "fail",
            f"{ENDPOINT} does not answer: ConnectError: no route; not in the cache: "
            "HuggingFaceTB/SmolLM2-135M-Instruct, openai/gsm8k, Qwen/Qwen2.5-1.5B-Instruct",
            "lean-align run gsm8k --set model.name=./model "
            "--set data.train_path=./data/main/train-00000-of-00001.parquet",
            ("gsm8k-cpu", "gsm8k"),
        ),
        (
            planted({"hub": Report({"endpoint": ENDPOINT, "offline": True, "fault": None})}),
            "hub",
            "fail",
            "offline (HF_HUB_OFFLINE is set); not in the cache: HuggingFaceTB",
            "hf download Qwen/Qwen2.5-1.5B-Instruct --local-dir model",
            ("gsm8k-cpu", "gsm8k"),
        ),
        (planted({"hub": Report({}, "no answer in 30 s")}), "hub", "fail", "no answer in 30 s", "hf download", ALL[1:]),
        (
            planted({"plan": Report({}, "no answer in 300 s")}),
            "plan",
            "warn",
            "none: no answer in 300 s",
            "lean-align plan gsm8k",
            (),
        ),
        (
            planted({"plan": Report({"plans": {}, "faults": {"gsm8k": "a/model: no config.json"}})}),
            "plan",
            "warn",
            "none of gsm8k: a/model: no config.json",
            "lean-align plan gsm8k",
            (),
        ),
    ],
)
def test_a_planted_fact_is_found(
    machine: Machine, name: str, status: str, got: str, command: str | None, stops: tuple[str, ...]
) -> None:
    found = finding(machine, name)
    assert found.status == status
    assert got in found.got
    assert found.expected
    assert command is None if found.command is None else command in found.command
    assert found.stops == stops
    assert examine(machine).can_run["gsm8k"] == ("gsm8k" not in stops)


def test_without_card_and_connection_the_commands_are_those_that_can_run() -> None:
    fault = Report({"endpoint": ENDPOINT, "offline": False, "fault": "ConnectError: no route"})
    machine = planted(torch_report(**CPU_BUILD) | {"hub": fault}, **ON_CPU)
    assert finding(machine, "card").command == "lean-align run demo"
    assert "gsm8k-cpu" not in finding(machine, "card").expected
    assert "lean-align run gsm8k-cpu --set model.name=./model" in (finding(machine, "hub").command or "")


def test_the_table_above_makes_every_check_fail_or_warn() -> None:
    table = test_a_planted_fact_is_found.pytestmark[0].args[1]
    assert {f.name for f in examine(GOOD).findings} - set(TESTED) <= {name for _, name, *_ in table}


def test_every_fail_has_a_command() -> None:
    for machine, *_ in test_a_planted_fact_is_found.pytestmark[0].args[1]:
        assert all(f.command for f in examine(machine).findings if f.status == "fail")


def test_every_recipe_named_in_a_command_loads_with_its_settings() -> None:
    parent, n_commands = click.Context(main, **main.context_settings), 0
    for machine, *_ in test_a_planted_fact_is_found.pytestmark[0].args[1]:
        for line in "\n".join(f.command or "" for f in examine(machine).findings).splitlines():
            if line.startswith("lean-align run"):
                _, name, *arguments = shlex.split(line, comments=True)
                context = main.get_command(None, name).make_context(name, arguments, parent=parent)
                settings = dict(setting.split("=", 1) for setting in context.params["settings"])
                assert load_recipe(context.params["recipe"], settings)
                n_commands += 1
    assert n_commands > 5


def test_without_a_connection_the_cache_is_enough() -> None:
    held = {"cache": Report({"folder": "/cache", "missing": {name: [] for name in ALL}})}
    silent = {"hub": Report({"endpoint": ENDPOINT, "offline": False, "fault": "ConnectError"})}
    found = finding(planted({**held, **silent}), "hub")
    assert (found.status, found.command, found.stops) == ("warn", "export HF_HUB_OFFLINE=1", ())
    offline = {"hub": Report({"endpoint": ENDPOINT, "offline": True, "fault": None})}
    assert finding(planted({**held, **offline}), "hub").status == "ok"


def test_a_model_in_the_cache_needs_no_space() -> None:
    full = Disk("/cache", GIB, 2)
    only_data = {"cache": Report({"folder": "/cache", "missing": {**SOURCES, "gsm8k": ["openai/gsm8k"]}})}
    assert finding(planted(cache=full), "hub cache").stops == ("gsm8k",)
    assert finding(planted(only_data, cache=full), "hub cache").stops == ()


def test_run_folder_and_cache_on_one_disk_share_its_bytes() -> None:
    either = 4 * GIB  # the download or the run folder, not both
    apart = planted(disk=Disk("/work", either, 1), cache=Disk("/cache", either, 2))
    together = planted(disk=Disk("/work", either, 1), cache=Disk("/cache", either, 1))
    assert examine(apart).can_run["gsm8k"]
    assert finding(together, "disk").stops == finding(together, "hub cache").stops == ("gsm8k",)


def test_an_unknown_cache_counts_against_the_run_folder() -> None:
    unknown = planted({"cache": Report({}, "no answer in 300 s")}, cache=None, disk=Disk("/work", 2 * GIB, 1))
    assert finding(unknown, "disk").stops == ("gsm8k",)


def test_an_optional_package_that_is_absent_is_no_fault() -> None:
    absent = {name: report for name, report in GOOD.probes.items() if name not in OPTIONAL}
    machine = dataclasses.replace(GOOD, probes=absent)
    for name in OPTIONAL:
        assert (finding(machine, name).status, finding(machine, name).command) == (
            "ok",
            "pip install 'lean-align[gpu]'",
        )
        assert finding(dataclasses.replace(machine, **ON_CPU), name).command is None


def test_a_card_that_torch_sees_needs_no_known_driver() -> None:
    assert examine(planted(driver=None)).can_run["gsm8k"]
    assert "the first of 2" in finding(planted(torch_report(cards=[CARD, CARD])), "card").got


def test_without_metadata_the_tested_versions_are_the_measure() -> None:
    machine = planted(ranges={}, versions={**GOOD.versions, "trl": "1.15.0"})
    assert finding(machine, "trl").status == "warn"


def test_tested_versions_are_those_of_the_lock_file() -> None:
    lines = (ROOT / "requirements" / "cpu.txt").read_text().splitlines()
    locked = {canonicalize_name(name): v for name, _, v in (line.partition("==") for line in lines if line[0] != "#")}
    assert {name: locked[name] for name in TESTED} == TESTED


def test_every_requirement_is_checked_against_its_range() -> None:
    text = (ROOT / "pyproject.toml").read_text()
    (block,) = re.findall(r"^dependencies = \[\n(.*?)^\]", text, re.DOTALL | re.MULTILINE)
    declared = {r.name: str(r.specifier) for r in map(Requirement, re.findall(r'"(.*?)"', block))}
    assert set(TESTED) == set(declared) == set(supported_ranges())
    assert supported_ranges() == declared
    extras = [Requirement(line) for line in requires("lean-align") or () if "extra == 'gpu'" in line]
    assert {r.name: str(r.specifier) for r in extras} == {name: f"=={version}" for name, version in OPTIONAL.items()}


# Doctor and plan


def test_doctor_and_plan_say_the_same(few_layers, monkeypatch) -> None:
    """Of every shipped recipe, with made-up peaks: some fit, some with other settings, some not at all."""

    def cost_of(work: str, section: str):
        """A GiB for each 512 tokens of a budget, and 9 GiB that no key lowers for the largest models."""

        def cost(recipe: Recipe, *_: object) -> Cost:
            rows = getattr(getattr(recipe, section), "token_budget", 512) // 512
            return Cost((rows + (9 if recipe.name in ("gsm8k-7b", "dapo-math-17k") else 0)) * GIB, 3600.0)

        return cost

    monkeypatch.setattr("lean_align.machine.plan.cost_of", cost_of)
    monkeypatch.setattr("lean_align.machine.place.process_bytes", lambda: ProcessBytes(GIB, GIB, GIB, GIB))
    monkeypatch.setattr(probes, "RECIPES", tuple(shipped_recipes()))
    shipped.cache_clear()
    held = {"cache": Report({"folder": "/cache", "missing": {name: [] for name in shipped()}})}
    seen: set[str | None] = set()
    for size in (8 * GIB, 12 * GIB, 16 * GIB, 24 * GIB):
        speed = Speed(1e13, 1e12, 1e-6, "made up")
        plans = {name: plan_of(recipe, size, speed=speed) for name, recipe in shipped().items()}
        values = json.loads(json.dumps({"plans": {name: plan.as_json() for name, plan in plans.items()}, "faults": {}}))
        machine = planted({"plan": Report(values), **held, **card_report(total_bytes=size, free_bytes=size)})
        assert machine.plans == plans
        seen |= {plan.fit for plan in plans.values()}
        check_agreement(plans, finding(machine, "card memory"), examine(machine).can_run)
    shipped.cache_clear()
    assert {None, ""} < seen


def check_agreement(plans: dict[str, Plan], found: Finding, can_run: dict[str, bool]) -> None:
    commands = (found.command or "").splitlines()
    for name, plan in plans.items():
        verdict = plan.lines()[len(plan.stages) + 2]
        own = [command for command in commands if command.startswith(f"lean-align run {name} --set")]
        assert can_run[name] == (name not in found.stops) == ("no key helps" not in verdict)
        assert len(own) == ("it does with" in verdict)
        assert all(command.removeprefix(f"lean-align run {name} ") in verdict for command in own)
    assert (found.status == "ok") == all(plan.fits for plan in plans.values())


def test_a_recipe_that_fits_a_cpu_with_other_settings_can_run_there() -> None:
    plan = planned("gsm8k-cpu", None)
    short = dataclasses.replace(plan.stages[0], fits=False, changes=("training.micro_batch=4",))
    plans = {**plan_report(None).values["plans"], "gsm8k-cpu": dataclasses.replace(plan, stages=(short,)).as_json()}
    machine = planted(torch_report(**CPU_BUILD) | {"plan": Report({"plans": plans, "faults": {}})}, **ON_CPU)
    found = finding(machine, "memory")
    assert (found.status, found.command) == ("warn", "lean-align run gsm8k-cpu --set training.micro_batch=4")
    assert examine(machine).can_run["gsm8k-cpu"]


def test_without_plans_nothing_is_said_of_memory_and_without_a_card_nothing_can_be_promised() -> None:
    none = {"plan": Report({}, "no answer in 300 s")}
    assert all(examine(planted(none)).can_run.values())
    assert finding(planted(none), "card memory").status == "warn"
    assert not any(examine(planted(none | torch_report(**CPU_BUILD), **ON_CPU)).can_run.values())


def test_a_model_that_cannot_be_planned_does_not_keep_the_others_from_it(monkeypatch) -> None:
    def plan(recipe, stages) -> Plan:
        if recipe.name == "gsm8k":
            raise ModelError("a/model: no config.json")
        if recipe.name == "gsm8k-cpu":
            raise KeyError("hidden_size")
        return planned(recipe.name, None)

    monkeypatch.setattr("lean_align.machine.plan.plan_run", plan)
    told = probes.report("plan")
    assert told["error"] is None
    assert told["values"]["faults"] == {"gsm8k-cpu": "KeyError: 'hidden_size'", "gsm8k": "a/model: no config.json"}
    assert set(told["values"]["plans"]) == {"demo"}


# The command


def run_doctor(monkeypatch, machine: Machine, *arguments: str):
    monkeypatch.setattr("lean_align.machine.doctor.diagnose", lambda: examine(machine))
    return CliRunner().invoke(main, ["doctor", *arguments])


def test_exit_0_and_a_line_for_each_finding(monkeypatch) -> None:
    done = run_doctor(monkeypatch, planted(versions={**GOOD.versions, "numpy": "2.5.0"}))
    lines = done.stdout.splitlines()
    assert done.exit_code == 0
    assert "warn  numpy           2.5.0" in lines
    assert (
        lines[lines.index("warn  numpy           2.5.0") + 2] == " " * 22 + f"$ pip install 'numpy=={TESTED['numpy']}'"
    )
    assert "ok    card            RTX 4090, compute capability 8.9" in lines
    assert lines[-1] == "gsm8k can run here. Shipped recipes that can: demo, gsm8k-cpu, gsm8k."


def test_exit_1_when_gsm8k_cannot_run(monkeypatch) -> None:
    done = run_doctor(monkeypatch, planted(torch_report(**CPU_BUILD), **ON_CPU))
    assert done.exit_code == 1
    assert any(line.startswith("FAIL  card ") for line in done.stdout.splitlines())
    assert done.stdout.splitlines()[-1] == ("gsm8k cannot run here (card). Shipped recipes that can: demo, gsm8k-cpu.")
    stopped = run_doctor(monkeypatch, planted(python="3.10.1"))
    assert stopped.stdout.splitlines()[-1].endswith("(Python). Shipped recipes that can: none.")


def test_a_fault_that_stops_another_recipe_only_is_exit_0(monkeypatch) -> None:
    assert run_doctor(monkeypatch, planted({"unsloth": Report({}, "ImportError: x")})).exit_code == 0


def test_json_is_one_object(monkeypatch) -> None:
    done = run_doctor(monkeypatch, planted(torch_report(**CPU_BUILD), **ON_CPU), "--json")
    told = json.loads(done.stdout)
    assert done.exit_code == 1
    assert set(told) == {"can_run", "findings"}
    assert told["can_run"] == {"demo": True, "gsm8k": False, "gsm8k-cpu": True}
    assert {tuple(row) for row in told["findings"]} == {("name", "status", "got", "expected", "command", "stops")}
    (card,) = [row for row in told["findings"] if row["name"] == "card"]
    assert (card["status"], card["command"], card["stops"]) == ("fail", "lean-align run gsm8k-cpu", ["gsm8k"])


def test_a_diagnosis_of_nothing_can_run_everything() -> None:
    assert Diagnosis((), ALL).lines() == ["gsm8k can run here. Shipped recipes that can: demo, gsm8k-cpu, gsm8k."]


# Facts


def test_facts_of_this_machine(monkeypatch) -> None:
    """Each reader on the real machine; the probes, which take long, are planted."""
    monkeypatch.setattr(facts, "run_probe", lambda *_: Report({"folder": "/no/such/folder"}))
    machine = facts.read_machine()
    assert machine.python == ".".join(str(part) for part in sys.version_info[:3])
    assert machine.cpus >= 1
    assert machine.disk.free_bytes > 0
    assert machine.cache.folder == "/no/such/folder"
    assert machine.cache.free_bytes > 0  # of the nearest folder that exists
    assert set(machine.versions) == {"lean-align", *TESTED}
    if Path("/proc/meminfo").exists():
        assert 0 < machine.available_bytes <= machine.memory_bytes


def test_only_the_probe_of_the_hub_goes_to_the_network(monkeypatch) -> None:
    seen = {}
    monkeypatch.setattr(facts, "run_probe", lambda name, environment: seen.setdefault(name, environment))
    monkeypatch.setattr(facts, "is_installed", lambda name: name == "vllm")
    facts._run_probes()
    offline = {"HF_HUB_OFFLINE": "1"}
    assert seen == {
        "torch": offline,
        "bitsandbytes": offline,
        "vllm": offline,
        "cache": offline,
        "plan": offline,
        "hub": {},
    }


def test_memory_of_a_container_is_its_limit(tmp_path, monkeypatch) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 65536 kB\nMemFree: 1 kB\nMemAvailable: 32768 kB\n")
    monkeypatch.setattr(facts, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(facts, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n")
    assert facts.memory_bytes() == (64 * 2**20, 32 * 2**20)
    (tmp_path / "memory.max").write_text(f"{8 * 2**20}\n")
    assert facts.memory_bytes() == (8 * 2**20, 8 * 2**20)
    (tmp_path / "memory.current").write_text(f"{5 * 2**20}\n")
    (tmp_path / "memory.stat").write_text(f"anon 1\ninactive_file {2 * 2**20}\n")  # a cache that gives way
    assert facts.memory_bytes() == (8 * 2**20, 5 * 2**20)
    monkeypatch.setattr(facts, "_MEMINFO", tmp_path / "absent")
    assert facts.memory_bytes() == (None, None)


def test_nvidia_devices_are_counted_on_the_bus(tmp_path, monkeypatch) -> None:
    for name, (vendor, kind) in {
        "a": ("0x10de", "0x030000"),
        "b": ("0x10de", "0x040300"),
        "c": ("0x8086", "0x030000"),
    }.items():
        (tmp_path / name).mkdir()
        (tmp_path / name / "vendor").write_text(vendor + "\n")
        (tmp_path / name / "class").write_text(kind + "\n")
    (tmp_path / "empty").mkdir()
    monkeypatch.setattr(facts, "_PCI", tmp_path)
    assert facts.nvidia_devices() == 1


@pytest.mark.parametrize(
    ("script", "expected"),
    [("echo 580.65.06; echo 580.65.06", "580.65.06"), ("echo failed; exit 9", None), ("echo '[N/A]'", None)],
)
def test_the_driver_is_what_nvidia_smi_says(tmp_path, monkeypatch, script: str, expected: str | None) -> None:
    (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
    (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert facts.driver_version() == expected
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert facts.driver_version() is None


def test_a_clone_in_the_current_folder_is_no_installation(tmp_path, monkeypatch) -> None:
    (tmp_path / "vllm").mkdir()
    monkeypatch.syspath_prepend(tmp_path)
    assert not facts.is_installed("vllm")
    (tmp_path / "vllm" / "__init__.py").touch()
    assert facts.is_installed("vllm")


# Probes


@pytest.fixture
def plant_unsloth(tmp_path, monkeypatch):
    """Put an `unsloth` of these lines before any other, for this process and its children."""

    def plant(source: str) -> None:
        (tmp_path / "unsloth").mkdir()
        (tmp_path / "unsloth" / "__init__.py").write_text(source)
        monkeypatch.syspath_prepend(tmp_path)

    return plant


def test_a_package_that_imports_reports_its_version(plant_unsloth) -> None:
    plant_unsloth("print('a banner'); open('unsloth_compiled_cache', 'w').close(); __version__ = '1.2'")
    assert probes.run_probe("unsloth") == Report({"version": "1.2"})
    assert not Path("unsloth_compiled_cache").exists()


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("raise RuntimeError('first\\nsecond\\nlast')", "RuntimeError: first ... last"),
        ("import no_such_package_at_all", "ModuleNotFoundError: No module named 'no_such_package_at_all'"),
        ("raise SystemExit('Unsloth: no card')", "SystemExit: Unsloth: no card"),
        ("import os; os.kill(os.getpid(), 11)", "ended by SIGSEGV"),
        (
            "import os, sys; print('the reason', file=sys.stderr, flush=True); os._exit(3)",
            "ended with status 3: the reason",
        ),
    ],
)
def test_a_package_that_breaks_is_a_report(plant_unsloth, source: str, error: str) -> None:
    plant_unsloth(source)
    assert probes.run_probe("unsloth") == Report({}, error)


def test_a_package_that_hangs_is_a_report(plant_unsloth) -> None:
    plant_unsloth("import signal; signal.pause()")
    assert probes.run_probe("unsloth", seconds=2) == Report({}, "no answer in 2 s")


def test_what_a_probe_started_ends_with_it() -> None:
    with subprocess.Popen(
        ["sh", "-c", "sleep 600 & echo $!; wait"], stdout=subprocess.PIPE, start_new_session=True
    ) as p:
        assert p.stdout.readline()
        probes._end(p)
        assert p.stdout.read() == b""  # the pipe is closed, so the grandchild that held it is gone too
    assert p.returncode == -9


def test_the_real_four_bit_backward_passes_here() -> None:
    report = probes.run_probe("bitsandbytes", {"HF_HUB_OFFLINE": "1"})
    assert report.error is None
    assert report.values["matrices"] == 28  # layers x linear maps


@pytest.mark.parametrize("fault", ["zero", "nan", "none"])
def test_a_four_bit_backward_that_gives_no_gradient_is_caught(monkeypatch, fault: str) -> None:
    from lean_align import policy

    load = policy.load_policy

    def load_faulty(*arguments):
        loaded = load(*arguments)
        parameter = [p for name, p in loaded.lora_parameters.items() if "lora_B" in name][9]
        if fault == "none":
            parameter.requires_grad_(False)
        else:
            parameter.register_hook(lambda gradient: gradient * (0.0 if fault == "zero" else float("nan")))
        return loaded

    monkeypatch.setattr(policy, "load_policy", load_faulty)
    error = probes.report("bitsandbytes")["error"]
    assert re.match(r"GradientError: .*lora_B.* expected a finite number above 0\.", error)


def fake_cuda(monkeypatch, available: bool) -> None:
    import torch

    properties = types.SimpleNamespace(name="RTX", total_memory=24 * GIB, major=8, minor=9)
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: available)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: properties)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda index: (20 * GIB, 24 * GIB))


def test_cards_that_torch_sees(monkeypatch) -> None:
    fake_cuda(monkeypatch, True)
    report = Report(json.loads(json.dumps(probes.torch_build())))
    assert report.values["fault"] is None
    (card,) = planted({"torch": report}).cards
    assert (card.name, card.total_bytes, card.free_bytes, card.capability) == ("RTX", 24 * GIB, 20 * GIB, (8, 9))


def test_why_torch_sees_none(monkeypatch) -> None:
    import torch

    def init() -> None:
        raise RuntimeError("The NVIDIA driver on your system is too old\nPlease update")

    fake_cuda(monkeypatch, False)
    monkeypatch.setattr(torch.cuda, "init", init)
    facts_of_torch = probes.torch_build()
    assert facts_of_torch["cards"] == []
    assert facts_of_torch["fault"] == "RuntimeError: The NVIDIA driver on your system is too old ... Please update"


class Hub(http.server.BaseHTTPRequestHandler):
    status = 200

    def do_HEAD(self) -> None:
        self.send_response(self.status)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def local_hub(monkeypatch):
    """A server on this machine in place of the hub; call it with the status that it shall answer."""
    from huggingface_hub import constants

    with http.server.HTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield lambda status: monkeypatch.setattr(Hub, "status", status)
        server.shutdown()


@pytest.mark.parametrize(
    ("status", "fault"), [(200, None), (307, None), (404, "HTTP status 404"), (503, "HTTP status 503")]
)
def test_the_hub_answers(local_hub, status: int, fault: str | None) -> None:
    local_hub(status)
    told = probes.hub()
    assert not told["offline"]
    assert told["fault"] is None if fault is None else told["fault"].startswith(fault)


def test_the_hub_does_not_answer(local_hub, monkeypatch) -> None:
    from huggingface_hub import constants

    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: refused
        monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{closed.getsockname()[1]}")
        assert "ConnectError" in probes.hub()["fault"]


def test_offline_asks_nothing(local_hub, monkeypatch) -> None:
    from huggingface_hub import constants

    local_hub(503)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert probes.hub() == {"endpoint": constants.ENDPOINT, "offline": True, "fault": None}


def plant_model(cache: Path, name: str, files: tuple[str, ...]) -> None:
    folder = cache / ("models--" + name.replace("/", "--"))
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("c0ffee")
    snapshot = folder / "snapshots" / "c0ffee"
    snapshot.mkdir(parents=True)
    for file in files:
        (snapshot / file).write_text("{}")
    (snapshot / "weights.safetensors").symlink_to("../../blobs/gone")


def test_a_model_is_cached_only_whole(tmp_path, monkeypatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    model = shipped()["gsm8k"].model
    assert not probes.model_is_cached(model)
    plant_model(tmp_path, model.name, ("config.json", "tokenizer.json"))
    assert not probes.model_is_cached(model)  # its weights are a link that leads nowhere
    (weights,) = tmp_path.rglob("*.safetensors")
    weights.unlink()
    weights.write_text("weights")
    assert probes.model_is_cached(model)
    (tokenizer,) = tmp_path.rglob("tokenizer.json")
    tokenizer.unlink()
    assert not probes.model_is_cached(model)


def test_the_cache_is_read_without_the_hub(tmp_path) -> None:
    """In a child, as the libraries read HF_HOME once."""
    plant_model(tmp_path / "hub", shipped()["gsm8k"].model.name, ("config.json", "tokenizer.json", "model.safetensors"))
    environment = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(tmp_path / "hub")}
    environment["HF_DATASETS_CACHE"] = str(tmp_path / "datasets")
    before = probes.run_probe("cache", environment)
    assert before.values["folder"] == str(tmp_path / "hub")
    assert before.values["missing"] == {**SOURCES, "gsm8k": ["openai/gsm8k"]}
    folder = tmp_path / "datasets" / "openai___gsm8k" / "main" / "0.0.0" / "c0ffee"
    folder.mkdir(parents=True)
    (folder / "dataset_info.json").write_text('{"config_name": "main"}')
    after = probes.run_probe("cache", environment)
    assert after.values["missing"]["demo"] == after.values["missing"]["gsm8k"] == []
    assert after.values["missing"]["gsm8k-cpu"] == [shipped()["gsm8k-cpu"].model.name]


def test_a_local_folder_goes_before_the_hub(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probes, "model_is_cached", lambda model: False)
    recipe = shipped()["gsm8k"]
    assert not probes.is_cached(recipe.model.name, recipe)
    Path(recipe.model.name).mkdir(parents=True)
    assert probes.is_cached(recipe.model.name, recipe)


def test_the_child_prints_one_line_of_json(tmp_path) -> None:
    """Whatever a package prints goes to standard error."""
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "__init__.py").write_text("print('banner')")
    command = [sys.executable, "-m", "lean_align.machine.probes", "vllm"]
    path = os.pathsep.join([str(tmp_path), *sys.path])
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, cwd=ROOT)
    assert json.loads(done.stdout) == {"values": {"version": None}, "error": None}
    assert "banner" in done.stderr
