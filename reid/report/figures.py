"""Charts as inline SVG. Colors are CSS variables, so that one drawing reads on light and on dark paper."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from typing import Any
from xml.etree import ElementTree

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure

LINES = tuple(f"line{number}" for number in range(1, 9))
# Drawn in a color that nothing else has, which `to_svg` turns into the variable of the page.
COLORS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(
        ("ink", "grid", "rri", "control", "step0", "restraint", "relaxation", "quiet", "paper", "good", "bad", *LINES),
        start=1,
    )
}
# Lengths of dash and gap in points; with each of them every color can be told from itself.
DASHES = ("", "6 2", "2 2", "8 2 2 2", "4 4", "8 2 2 2 2 2", "1 3", "12 3")
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": COLORS["ink"],
    "axes.labelcolor": COLORS["ink"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": COLORS["grid"],
    "grid.linewidth": 0.5,
    "xtick.color": COLORS["ink"],
    "ytick.color": COLORS["ink"],
    "text.color": COLORS["ink"],
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
WIDE, NARROW = (8.4, 3.1), (4.6, 3.3)


def style() -> AbstractContextManager[None]:
    """The look that all charts share; figures are made and written within it."""
    return matplotlib.rc_context(STYLE)


def new_figure(size: tuple[float, float] = NARROW) -> tuple[Figure, Axes]:
    """An empty chart, in inches: NARROW for half the page, WIDE across it."""
    # Without pyplot no window system is asked for and nothing stays in memory.
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def line_style(index: int) -> tuple[str, str]:
    """(color, dashes) of a line among many: 8 colors told apart without seeing red and green, then other dashes."""
    return LINES[index % len(LINES)], DASHES[(index + index // len(LINES)) % len(DASHES)]


def plot_style(color: str, dashes: str) -> dict[str, Any]:
    """What `line_style` gave, as keywords of `Axes.plot`."""
    lengths = tuple(map(float, dashes.split()))
    # matplotlib counts dashes in line widths, a page in points.
    scaled = tuple(length / STYLE["lines.linewidth"] for length in lengths)
    return {"color": COLORS[color], "linestyle": (0, scaled) if scaled else "-"}


def to_svg(figure: Figure, name: str) -> str:
    """The drawing as an `<svg>` element for a page: no fixed size, no fixed color, no id that another chart has.

    name: of this chart, once on its page. Colors of COLORS become variables of the page; a label from outside is
    written with `$` as `\\$`, or it would be set as a formula.
    """
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(text.getvalue())
    used = set(re.findall(r"#([\w-]+)", text.getvalue()))
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            key = key.rpartition("}")[2]
            if key == "id" and value not in used:
                continue
            element.set(key, _rounded(value) if key in ("d", "x", "y", "transform", "points", "style") else value)
        for child in list(element):
            # matplotlib's own style sheet would act on the whole page.
            if child.tag.endswith(("metadata", "}style")):
                element.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    svg = ElementTree.tostring(root, encoding="unicode")
    for variable, color in COLORS.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a point: a third of the size, the same picture."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
