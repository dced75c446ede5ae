"""Write docs/architecture.md from the layers and the rooms' own docstrings: python -m docs.make_architecture."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from tests.test_layers import LAYERS, PACKAGE

TARGET = Path(__file__).parent / "architecture.md"
_ABOVE = """# Architecture

Made by `make docs` from `LAYERS` in `tests/test_layers.py` and the first sentence of each room's docstring; do not
edit.

```
recipe -> data -> warm-up -> rollouts -> gradients -> projection -> store -> scores
       -> selection -> training -> evaluation -> report
```

## The rooms, from the ground up

A room is a module or a folder directly in `lean_align/`; a module of one that stands higher than the rest has a row
of its own. A room imports only from rooms of a strictly lower layer, never
from its own layer or above; modules of one folder may know one another. `tests/test_layers.py` reads every import,
those inside functions too, and fails on any other. It also holds that only `policy` imports bitsandbytes and peft, and
that `lean-align --help` and the rooms that need no torch load none.

| layer | room | what it is |
| --- | --- | --- |
"""
_BELOW = """
## What holds throughout

- **The disk is the interface between stages.** A stage works in `<stage>.partial/`; data come first, the manifest last,
  then the folder is renamed. Continuing a run reads manifests and row flags, never file names
  ([store format](store_format.md)).
- **Results do not depend on the way.** A row of the store is the same whatever the batch size, the order, or how often
  the run was killed. Every draw is a function of (seed, stage, key) ([method](method.md#randomness)).
- **Heavy stages run in a process each**, so that their memory is returned, and a library that patches its neighbours
  (Unsloth) cannot reach the others.
- **The prompt is the unit of gradient.** Its completions sum into one vector, which is projected and freed parameter by
  parameter. Groups without spread of reward are not run, since their gradient is zero.
- **No silent fallback.** The recipe names an engine, a backend or a projection; the manifest records which one ran.
- **Scale comes from rows.** Beyond one card the gradient stage is a map over row ranges of one store
  ([running](running.md#several-processes)).

## What is fixed

Other tools build on these, and a change of them is a change of version: the [command line](cli.md), the
[run folder](store_format.md), and the names of `import lean_align as la` (`la.__all__`). Module paths below
`lean_align` are not among them, except for those named in [extend.md](extend.md).
"""


def architecture() -> str:
    """The page: a row a room, the lowest layer first."""
    rows = [
        f"| {layer:g} | `{room}` | {_sentence(room)} |" for layer, rooms in sorted(LAYERS.items()) for room in rooms
    ]
    return _ABOVE + "\n".join(rows) + "\n" + _BELOW


def _sentence(room: str) -> str:
    """The first sentence of a room's docstring, with what Markdown would read as its own taken out of the way."""
    place = PACKAGE.joinpath(*room.split("."))
    folder = place / "__init__.py"
    path = folder if folder.exists() else place.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path} has no docstring; expected one whose first sentence says what the room is.")
    paragraph = " ".join(text.split("\n\n")[0].split())
    sentence = re.split(r"(?<=[.:])\s+(?=[A-Z])|:$", paragraph)[0].rstrip(".:") + "."
    return sentence.replace("<", "&lt;").replace("|", "\\|")


if __name__ == "__main__":
    TARGET.write_text(architecture(), encoding="utf-8")
