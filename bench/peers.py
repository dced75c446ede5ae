"""The peers' environment: trak, dattri and bergson alongside the project's own packages, in .venv-peers.

The environment sees the packages of the interpreter that makes it through one .pth line, so that ours and theirs
are measured on the same torch, transformers and peft, in one process where that is possible; pip changes nothing
outside it. Made on demand, or by `make bench-peers`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = Path(os.environ.get("LEAN_ALIGN_PEERS", ROOT / ".venv-peers"))
READY = FOLDER / ".ready"
WITHOUT_DEPENDENCIES = ("traker==0.3.2", "dattri==0.3.0", "bergson==2.5.1")  # their pins on torch are not ours
NEEDED = ("simple-parsing", "jaxtyping", "ml_dtypes", "natsort", "petname", "scipy", "torchopt")
SHOWN = ("torch", "transformers", "peft", "numpy", "traker", "dattri", "bergson")


class PeersMissingError(Exception):
    """The environment could not be made; the message is the reason."""


def python() -> Path:
    """Interpreter of the peers' environment, which is made first where it is not there."""
    interpreter = FOLDER / "bin" / "python"
    if not READY.exists():
        _run([sys.executable, "-m", "venv", "--clear", str(FOLDER)])
        (site,) = FOLDER.glob("lib/python*/site-packages")
        (site / "project_packages.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
        pip = [str(interpreter), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        _run([*pip, "--no-deps", *WITHOUT_DEPENDENCIES])
        _run([*pip, *NEEDED])
        READY.touch()
    return interpreter


def versions() -> dict[str, str]:
    """Version of each package that the comparison depends on, as the peers' interpreter sees it."""
    code = f"import importlib.metadata as m, json; print(json.dumps({{n: m.version(n) for n in {SHOWN!r}}}))"
    found: dict[str, str] = json.loads(_run([str(python()), "-c", code]))
    return found


def version_row() -> dict[str, str]:
    """The versions as a row of a table, or why there is no environment."""
    try:
        return {"what": "peers", "note": ", ".join(f"{name} {version}" for name, version in versions().items())}
    except (PeersMissingError, OSError) as error:
        return {"what": "peers", "note": f"failed: {error}"}


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        last = (done.stderr.strip() or done.stdout.strip() or f"exit {done.returncode}").splitlines()[-1]
        raise PeersMissingError(f"{' '.join(command[:4])}: {last}")
    return done.stdout


if __name__ == "__main__":
    print(json.dumps(versions(), indent=2))
