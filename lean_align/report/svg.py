"""Matplotlib figures as inline SVG that takes colours and typeface from the page around it.

Figures are drawn in placeholder colours (`INK`, `BASE`, ...).  Each is then replaced by a custom property of
the style sheet, so that one SVG serves light, dark and print.  Each plot is drawn twice, wide and narrow,
because text shrinks with an SVG: a 640-unit figure on a phone would have 6 px labels.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import matplotlib
import matplotlib.style
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from lean_align.report.formatting import points

INK = "#010101"
MUTED = "#020202"
GRID = "#030303"
BASE = "#040404"
TRAINED = "#050505"
SELECTED = "#060606"
REST = "#070707"
_PROPERTIES = {
    INK: "--ink",
    MUTED: "--muted",
    GRID: "--grid",
    BASE: "--base",
    TRAINED: "--trained",
    SELECTED: "--selected",
    REST: "--rest",
}
_LOOK: dict[Any, Any] = {
    "font.size": 12,
    "text.color": INK,
    "text.parse_math": False,  # stage and method names are text: a `$` must not start a formula
    "axes.edgecolor": GRID,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.unicode_minus": True,
    "grid.color": GRID,
    "grid.linewidth": 0.8,
    "xtick.color": GRID,
    "ytick.color": GRID,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": MUTED,
    "legend.frameon": False,
    "svg.fonttype": "none",
}
_NO_METADATA = {"Date": None, "Creator": None, "Format": None, "Type": None}
_UNITS_PER_INCH = 72  # matplotlib's SVG unit
_WIDE, _NARROW = 640, 370

POINT_TICKS = FuncFormatter(lambda value, _: points(value).replace(".0", ""))

Draw = Callable[[Figure, bool], None]
"""Draws on an empty figure; the flag says that it is the narrow one."""


@dataclass(frozen=True)
class Plot:
    """A plot ready for the page: two SVG elements and the sentence under them."""

    wide: str
    narrow: str
    caption: str


def make_plot(
    name: str, title: str, description: str, caption: str, draw: Draw, heights: tuple[int, int] = (320, 300)
) -> Plot:
    """Draw a figure for wide and for narrow screens.

    Parameters
    ----------
    name : str
        Prefix of the element ids; unique on the page.
    title, description : str
        What a screen reader says in place of the picture.
    caption : str
        Sentence shown under the plot.
    draw : callable
        Called once for each width.
    heights : tuple of int
        Height of the wide and of the narrow figure in SVG units.
    """
    wide = _inline_svg(f"{name}-wide", title, description, lambda figure: draw(figure, False), (_WIDE, heights[0]))
    narrow = _inline_svg(f"{name}-narrow", title, description, lambda figure: draw(figure, True), (_NARROW, heights[1]))
    return Plot(wide, narrow, caption)


def name_rows(axes: Axes, names: Sequence[str], above: float = -0.5, below: float = 0.5, **font: Any) -> None:
    """Rows that read from the top, each with its name at the left; `above` and `below` are the space around them."""
    axes.set_yticks(range(len(names)), names, **font)
    axes.set_ylim(len(names) - below, above)
    axes.grid(axis="x")
    axes.spines["left"].set_visible(False)
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def _inline_svg(name: str, title: str, description: str, draw: Callable[[Figure], None], size: tuple[int, int]) -> str:
    # The reset keeps a user's matplotlibrc from changing the report.
    with matplotlib.style.context("default", after_reset=True), matplotlib.rc_context(_LOOK | {"svg.hashsalt": name}):
        figure = Figure(figsize=(size[0] / _UNITS_PER_INCH, size[1] / _UNITS_PER_INCH), layout="constrained")
        draw(figure)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata=_NO_METADATA)
    root = ElementTree.fromstring(buffer.getvalue())
    _strip_namespaces(root)
    _keep_referenced_ids(root, name)
    for element in root.iter():
        _restyle(element)
    _hoist_marker_style(root)
    _describe(root, name, title, description, size)
    return ElementTree.tostring(root, encoding="unicode")


def _strip_namespaces(root: ElementTree.Element) -> None:
    """Names as HTML wants them; `xlink:href` is `href` there."""
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        element.attrib = {key.rpartition("}")[2]: value for key, value in element.attrib.items()}
        element.tail = None
        if element.tag != "text" and element.tag != "tspan":
            element.text = None
        for child in list(element):
            # matplotlib's own sheet is `*{...}`: inline it would restyle the whole page.
            if child.tag.endswith(("style", "metadata")):
                element.remove(child)


def _keep_referenced_ids(root: ElementTree.Element, prefix: str) -> None:
    """Drop ids such as `axes_1`, which every figure repeats; give the rest a prefix."""
    text = ElementTree.tostring(root, encoding="unicode")
    used = set(re.findall(r'(?:href="#|url\(#)([^")]+)', text))
    for element in root.iter():
        identifier = element.attrib.pop("id", None)
        if identifier in used:
            element.set("id", f"{prefix}-{identifier}")
        for key in {"href", "clip-path"} & element.attrib.keys():
            element.set(key, element.attrib[key].replace("#", f"#{prefix}-", 1))


def _restyle(element: ElementTree.Element) -> None:
    style = element.get("style")
    if style is not None:
        # The page's typeface; matplotlib's is only measured with.
        style = re.sub(r"font: (?:bold |\d+ )?([\d.]+)px [^;]*", r"font-size: \1px", style)
        for colour, custom_property in _PROPERTIES.items():
            style = style.replace(colour, f"var({custom_property})")
        element.set("style", style)
    for key in ("d", "x", "y", "transform", "width", "height"):
        if key in element.attrib:
            rounded = re.sub(r"-?\d+\.\d+", lambda match: f"{float(match[0]):.2f}", element.attrib[key])
            element.set(key, re.sub(r"\s+", " ", rounded).strip())


def _hoist_marker_style(root: ElementTree.Element) -> None:
    """Move a style that all dots of a group share to the group: thousands of dots repeat it."""
    for group in root.iter("g"):
        markers = group.findall("use")
        styles = {marker.get("style") for marker in markers}
        style = styles.pop() if len(styles) == 1 else None
        if style is None or group.get("style"):
            continue
        group.set("style", style)
        for marker in markers:
            del marker.attrib["style"]


def _describe(root: ElementTree.Element, name: str, title: str, description: str, size: tuple[int, int]) -> None:
    root.attrib = {
        "viewBox": f"0 0 {size[0]} {size[1]}",
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "style": "stroke-linejoin: round; stroke-linecap: butt",
    }
    for position, (tag, text) in enumerate((("title", title), ("desc", description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(position, element)
