"""Pages from the templates of this folder."""

from __future__ import annotations

from importlib import resources
from typing import Any

from lean_align.report import formatting


def render(name: str, **values: Any) -> str:
    """The template `name` filled in; the style sheet is its `style`, `formatting.FOR_PAGE` are its filters.

    Everything else is escaped, and a value that the template names and does not get is an error.
    """
    # jinja2 is imported where a page is made, so that a table in the terminal does not wait for it.
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = resources.files("lean_align.report")
    environment = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FunctionLoader(lambda file: folder.joinpath(file).read_text("utf-8")),
    )
    environment.filters |= {function.__name__: function for function in formatting.FOR_PAGE}
    style = folder.joinpath("style.css").read_text("utf-8")
    return environment.get_template(name).render(style=style, **values)
