"""lm-eval's environment, .venv-lm-eval, from requirements/lm-eval.txt: made on demand, or by `make cross-check-env`.

It sees none of the project's packages: lm-eval's MATH scoring refuses the project's antlr4 (see the lock file).
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from lean_align.errors import StageError

ROOT = Path(__file__).parents[2]
LOCK = ROOT / "requirements" / "lm-eval.txt"
FOLDER = Path(os.environ.get("LEAN_ALIGN_LM_EVAL", ROOT / ".venv-lm-eval"))
READY = FOLDER / ".ready"
SHOWN = ("lm_eval", "torch", "transformers", "datasets", "math-verify", "antlr4-python3-runtime")


def python() -> Path:
    """Interpreter of lm-eval's environment, which is made first where it is missing or of another lock file."""
    interpreter = FOLDER / "bin" / "python"
    if not READY.exists() or READY.read_text() != LOCK.read_text():
        run([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        run([*pip, "-r", str(LOCK)])
        READY.write_text(LOCK.read_text())
    return interpreter


def versions() -> dict[str, str]:
    """Version of each package that the comparison depends on, as lm-eval's interpreter sees it."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {SHOWN!r}}}))"
    found: dict[str, str] = json.loads(run([str(python()), "-c", code]))
    return found


def run(command: list[str], environment: dict[str, str] | None = None) -> str:
    """Standard output of a command; StageError with its last line when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=environment)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit status {done.returncode}").splitlines()[-1]
        raise StageError(f"lm-eval's side failed: {' '.join(command[:3])} ...: {last}")
    return done.stdout


if __name__ == "__main__":
    print(json.dumps(versions(), indent=2))
