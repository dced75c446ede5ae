"""The hub, or what of it lies in the cache."""

from __future__ import annotations

from lean_align.machine.findings import MAIN_RECIPE, Finding, Machine
from lean_align.machine.needs import NEEDS, missing_sources, reaches_hub, shipped


def check_hub(machine: Machine) -> Finding:
    """Whether recipes get their model and data: from the hub, or without it from the cache."""
    report = machine.probes["hub"]
    endpoint, offline = report.values.get("endpoint", "the hub"), report.values.get("offline", False)
    fault = report.error or report.values.get("fault")
    if reaches_hub(machine):
        return Finding("hub", "ok", f"{endpoint} answers")
    got = "offline (HF_HUB_OFFLINE is set)" if offline else f"{endpoint} does not answer: {fault}"
    missing = missing_sources(machine)
    stops = tuple(recipe for recipe, sources in missing.items() if sources)
    if not stops:
        command = None if offline else "export HF_HUB_OFFLINE=1"
        return Finding("hub", "ok" if offline else "warn", f"{got}; all is in the cache", "no waiting for it", command)
    on_cpu = [name for name in stops if NEEDS[name].card_bytes == 0]
    recipe = MAIN_RECIPE if MAIN_RECIPE in stops and (machine.cards or not on_cpu) else (on_cpu or stops)[0]
    got = f"{got}; not in the cache: {', '.join(dict.fromkeys(s for recipe in stops for s in missing[recipe]))}"
    expected = "a connection" + (" (unset HF_HUB_OFFLINE)" if offline else "") + ", or local paths"
    return Finding("hub", "fail", got, expected, local_paths(recipe), stops)


def local_paths(recipe: str) -> str:
    """Commands that fetch a recipe's model and data elsewhere, and run it from local paths here."""
    model, data = shipped()[recipe].model.name, shipped()[recipe].data
    # the layout of a data set on the hub: a folder a configuration, a file a split
    train, test = (
        f"./data/{data.config}/{split}-00000-of-00001.parquet" for split in (data.train_split, data.test_split)
    )
    return "\n".join(
        [
            f"hf download {model} --local-dir model  # where there is a connection; then bring the folder here",
            f"hf download {data.train_path} --repo-type dataset --local-dir data  # likewise",
            f"lean-align run {recipe} --set model.name=./model --set data.train_path={train} "
            f"--set data.test_path={test}",
        ]
    )
