"""Make the run folders of tests/golden/: `python -m tests.make_old_run`, in a checkout of the version they shall be of.

`old_run.tar.gz` is a run that ended with its evaluation, without a report yet; `old_half.tar.gz` the same run after its
gradients.  They are kept as they are: what newer code makes of them is what tests/test_old_runs.py asks.
"""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path
from tempfile import TemporaryDirectory

GOLDEN = Path(__file__).parent / "golden"
SETTINGS = {
    "lora.r": 2,
    "lora.alpha": 4,
    "data.demo_train": 8,
    "data.demo_test": 4,
    "rollouts.batch_size": 32,
    "rollouts.window": 64,
    "rollouts.max_new_tokens": 40,
    "warmup.n_prompts": 4,
    "warmup.steps": 2,
    "warmup.prompts_per_step": 2,
    "warmup.micro_batch": 16,
    "gradients.proj_dim": 64,
    "selection.n": 3,
    "training.steps": 2,
    "training.prompts_per_step": 2,
    "training.micro_batch": 16,
    "evaluation.batch_size": 4,
    "evaluation.window": 4,
}


def main() -> None:
    """Write both archives."""
    with TemporaryDirectory() as scratch:
        run_dir = Path(scratch) / "run"
        for name, last in (("old_half", "gradients"), ("old_run", "evaluate")):
            sets = [part for key, value in SETTINGS.items() for part in ("--set", f"{key}={value}")]
            command = [sys.executable, "-m", "lean_align", "run", "demo", "--run-dir", str(run_dir), *sets]
            subprocess.run([*command, "--stop-after", last], check=True)
            with tarfile.open(GOLDEN / f"{name}.tar.gz", "w:gz") as archive:
                archive.add(run_dir, "run", filter=_plain)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    """Without locks, and without the name of whoever made it."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    return None if Path(member.name).name in (".lock", ".run.lock", ".turn") else member


if __name__ == "__main__":
    main()
