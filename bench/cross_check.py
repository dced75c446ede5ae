"""Our benchmark evaluation against lm-eval's, problem by problem: `python -m bench.cross_check MODEL --data-dir DIR`.

Both sides get the same model, the same problems (those of `lean-align evaluate --limit`; `problems.json` names them)
and the same messages, and decode greedily.  Compared, in this order:

1. prompts: the same token ids;
2. generations: the same token ids; where they diverge, how close the two tokens were, or who stopped;
3. verdicts end to end: ours on our text against theirs on their text;
4. verifiers: our verdict on THEIR text against theirs;
5. verifiers on the sources' own solutions, each problem's and its neighbour's: a weak model is seldom right, and then
   4 says little.

Every difference is printed with its kind (see lm_eval_tasks/findings.py).  The same command continues: our completions
and lm-eval's answer are kept in the output folder.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.lm_eval_tasks.findings import TIES, Finding, Ours, Theirs, parting, problem_findings, shown, verifier_finding
from lean_align.errors import LeanAlignError
from lean_align.verify import verify


def table_rows(
    ours: Mapping[str, Ours], theirs: Mapping[str, Theirs], findings: Sequence[Finding]
) -> Iterator[dict[str, Any]]:
    """One row per benchmark and metric: how many are right on each side, and how many agree in what."""
    for name in dict.fromkeys(problem.benchmark for problem in ours.values()):
        ids = [key for key, problem in ours.items() if problem.benchmark == name]
        for metric in theirs[ids[0]].metrics:
            yield {"benchmark": name, "metric": metric, "n": len(ids)} | _counts(
                [(ours[key], theirs[key]) for key in ids],
                metric,
                [f for f in findings if f.prompt_id in ids and f.metric in (None, metric)],
            )


def _counts(pairs: list[tuple[Ours, Theirs]], metric: str, findings: list[Finding]) -> dict[str, int]:
    verdicts = [(a.verdict, verify(a.gold, b.generated.text), b.metrics[metric][0]) for a, b in pairs]
    return {
        "ours_right": sum(own == 1.0 for own, _, _ in verdicts),
        "theirs_right": sum(their == 1.0 for _, _, their in verdicts),
        "verdicts_agree": sum(own == their for own, _, their in verdicts),
        "prompts_agree": sum(a.generated.prompt_ids == b.generated.prompt_ids for a, b in pairs),
        "generations_agree": sum(a.generated.token_ids == b.generated.token_ids for a, b in pairs),
        "verifiers_agree": sum(on_theirs == their for _, on_theirs, their in verdicts),
        "unexplained": sum(not finding.explained for finding in findings),
    }


def given_table(
    given: Sequence[Mapping[str, Any]], golds: Mapping[str, str]
) -> tuple[list[dict[str, Any]], list[Finding]]:
    """Both verifiers on the sources' own solutions: one row per benchmark, metric and kind of text; what differs."""
    rows: dict[tuple[str, ...], dict[str, Any]] = {}
    findings = []
    for entry in given:
        prompt_id, text, gold = entry["prompt_id"], entry["text"], golds[entry["prompt_id"]]
        for metric, their in entry["metrics"].items():
            where = {"texts": entry["texts"], "benchmark": entry["benchmark"], "metric": metric}
            counts = dict.fromkeys(("n", "ours_right", "theirs_right", "verifiers_agree", "unexplained"), 0)
            row = rows.setdefault(tuple(where.values()), where | counts)
            found = verifier_finding(prompt_id, gold, text, metric, (their["verdict"], their["read"]))
            right = verify(gold, text), their["verdict"]
            row["n"], row["ours_right"] = row["n"] + 1, row["ours_right"] + int(right[0])
            row["theirs_right"] += int(right[1])
            row["verifiers_agree"] += found is None
            row["unexplained"] += found is not None and not found.explained
            findings += [] if found is None else [found]
    return list(rows.values()), findings


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a table."""
    names = list(rows[0])
    lines = [" | ".join(name.replace("_", " ") for name in names), " | ".join("---" for _ in names)]
    return "\n".join(
        f"| {line} |" for line in [*lines, *(" | ".join(str(row[name]) for name in names) for row in rows)]
    )


def differences(findings: Sequence[Finding], golds: Mapping[str, str]) -> str:
    """One line per finding, with the problem's gold."""
    lines = [
        f"- {f.prompt_id}, gold {shown(golds[f.prompt_id].rpartition('####')[2].strip())}, {f.metric or 'generation'}: "
        f"{f.kind}{'' if f.explained else ' (UNEXPLAINED)'}: {f.note}"
        for f in findings
    ]
    return "\n".join(lines or ["No difference."])


def cross_check(model: str, data_dir: Path, limits: Mapping[str, int], given: argparse.Namespace, output: Path) -> str:
    """Run both sides, compare them, write cross_check.json and cross_check.md; return the latter."""
    from bench.lm_eval_tasks.sides import our_side, problems_of, settings, their_side, token_gaps

    output.mkdir(parents=True, exist_ok=True)
    problems = {name: problems_of(name, data_dir, limit) for name, limit in limits.items()}
    ids = {name: [problem.prompt_id for problem in chosen] for name, chosen in problems.items()}
    (output / "problems.json").write_text(json.dumps(ids, indent=2) + "\n")
    overrides, request = settings(model, data_dir, problems, given, output)
    ours = our_side(model, overrides, problems, output)
    theirs, answer = their_side(request, output)
    places = {key: place for key in ours if (place := parting(ours[key], theirs[key])) is not None}
    gaps, tie = token_gaps(model, places), TIES[given.dtype]
    findings = [f for key in ours for f in problem_findings(ours[key], theirs[key], gaps.get(key), tie)]
    about = {key: answer[key] for key in ("request", "versions", "seconds")}
    return _written(ours, theirs, findings, answer["given"], about, output)


def _written(
    ours: Mapping[str, Ours],
    theirs: Mapping[str, Theirs],
    findings: Sequence[Finding],
    given: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
    output: Path,
) -> str:
    rows, golds = list(table_rows(ours, theirs, findings)), {key: problem.gold for key, problem in ours.items()}
    given_rows, given_findings = given_table(given, golds)
    found = {"rows": rows, "findings": [asdict(f) for f in findings], "given": given_rows}
    found["given_findings"] = [asdict(f) for f in given_findings]
    (output / "cross_check.json").write_text(json.dumps({**about, **found}, indent=2) + "\n")
    parts = [markdown(rows), differences(findings, golds), "Both verifiers on the sources' own solutions:"]
    text = "\n\n".join([*parts, markdown(given_rows), differences(given_findings, golds)]) + "\n"
    (output / "cross_check.md").write_text(text)
    return text


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cross_check", description=__doc__.splitlines()[0])
    parser.add_argument("model", help="folder or hub id; it has to have a chat template")
    parser.add_argument("--data-dir", type=Path, required=True, help="folder with gsm8k/test.jsonl, math500/test.jsonl")
    parser.add_argument("--gsm8k", type=int, default=100, metavar="N", help="problems of GSM8K; 0: none (100)")
    parser.add_argument("--math500", type=int, default=50, metavar="N", help="problems of MATH500; 0: none (50)")
    parser.add_argument("--max-new-tokens", type=int, default=512, help="longest completion, on both sides (512)")
    parser.add_argument("--dtype", choices=sorted(TIES), default="float32", help="on both sides (float32)")
    parser.add_argument("--batch-size", type=int, default=32, help="on both sides (32)")
    parser.add_argument("-o", "--output", type=Path, required=True)
    given = parser.parse_args()
    limits = {name: n for name, n in (("gsm8k", given.gsm8k), ("math500", given.math500)) if n > 0}
    if not limits or given.gsm8k < 0 or given.math500 < 0:
        parser.error("--gsm8k and --math500 take numbers of problems, not both 0: there is nothing to compare")
    try:
        print(cross_check(given.model, given.data_dir, limits, given, given.output.resolve()))
    except LeanAlignError as error:
        sys.exit(f"cross_check: {error}")


if __name__ == "__main__":
    main()
