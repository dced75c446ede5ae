"""Renders a chat template within bounds; run as a script, by its path.  Imports nothing of the package and no torch.

Reads JSON from stdin: `template`, `variables`, `conversations` (messages, and whether the answer is to begin),
`cpu_seconds`, `memory_bytes`.  Writes the length of the longest text to stdout.  A template that raises is the caller's
business: it renders again, in its own process, what ends here.
"""

from __future__ import annotations

import json
import resource
import sys
from datetime import datetime
from typing import Any

from jinja2 import TemplateError, nodes
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment


class Generation(Extension):
    """The tag around an assistant's text, which changes nothing of it."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> nodes.Node | list[nodes.Node]:
        """The statements inside."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def main() -> None:
    """Render every conversation."""
    work = json.load(sys.stdin)
    limits = {resource.RLIMIT_CPU: work["cpu_seconds"], resource.RLIMIT_AS: work["memory_bytes"]}
    for name, value in limits.items():
        resource.setrlimit(name, (value, value))
    print(max(_length(work, *conversation) for conversation in work["conversations"]))


def _length(work: dict[str, Any], messages: list[dict[str, str]], generation: bool) -> int:
    try:
        template = _environment().from_string(work["template"])
        text = template.render(messages=messages, add_generation_prompt=generation, **work["variables"])
    except MemoryError:
        raise
    except Exception:  # whatever another's template does: said where it is rendered again
        return 0
    return len(text)


def _environment() -> ImmutableSandboxedEnvironment:
    """As transformers makes it."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False)
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> None:
    raise TemplateError(message)


if __name__ == "__main__":
    main()
