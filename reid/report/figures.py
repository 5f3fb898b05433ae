"""Charts as inline SVG. Colors are CSS variables, so that one drawing is readable on light and dark backgrounds."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

LINES = tuple(f"line{number}" for number in range(1, 9))
# Each name is drawn in a unique color, which `to_svg` replaces by the CSS variable of that name.
COLORS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(
        ("ink", "grid", "rri", "control", "step0", "restraint", "relaxation", "quiet", "paper", "good", "bad", *LINES),
        start=1,
    )
}
# Lengths of dash and gap in points, which distinguish lines of the same color.
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
    """Apply the style that all charts share.

    Returns:
        A context manager, within which figures are created and saved.
    """
    return matplotlib.rc_context(STYLE)


def new_figure(size: tuple[float, float] = NARROW) -> tuple[Figure, Axes]:
    """Create an empty chart.

    Args:
        size: Width and height in inches: `NARROW` for half of the page, `WIDE` to span it.

    Returns:
        The figure and its axes.
    """
    # pyplot would look for a display and keep the figure in memory.
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def line_style(index: int) -> tuple[str, str]:
    """Choose the style of one line among many, from 8 colors that are distinguishable to color-blind readers.

    Args:
        index: Number of the line, from 0.

    Returns:
        (color, dashes), unique up to 64 lines.
    """
    return LINES[index % len(LINES)], DASHES[(index + index // len(LINES)) % len(DASHES)]


def plot_style(color: str, dashes: str) -> dict[str, Any]:
    """Convert a line style to keyword arguments of `Axes.plot`.

    Args:
        color: Name in `COLORS`.
        dashes: Lengths of dashes and gaps in points, empty for a solid line.

    Returns:
        Keyword arguments.
    """
    lengths = tuple(map(float, dashes.split()))
    # matplotlib measures dashes in line widths, SVG in points.
    scaled = tuple(length / STYLE["lines.linewidth"] for length in lengths)
    return {"color": COLORS[color], "linestyle": (0, scaled) if scaled else "-"}


def sampled(values: Sequence[float], max_points: int, floor: float) -> tuple[np.ndarray, np.ndarray]:
    """Thin out a falling curve and hide values that are too small to draw on a logarithmic scale.

    Args:
        values: Values in descending order.
        max_points: Number of points to keep, evenly spaced.
        floor: Values up to this are replaced by NaN.

    Returns:
        Positions counted from 1, and values.
    """
    index = np.unique(np.linspace(0, len(values) - 1, max_points).round().astype(int))
    drawn = np.asarray(values, dtype=float)[index]
    drawn[drawn <= floor] = np.nan
    return index + 1, drawn


def epoch_axis(axes: Axes, size: tuple[float, float]) -> None:
    """Set up a horizontal axis of epochs.

    Args:
        axes: Axes to change.
        size: Size of the figure.
    """
    axes.xaxis.set_major_locator(MaxNLocator(12 if size == WIDE else 8, integer=True))
    axes.set_xlabel("epoch")
    axes.grid(axis="x", visible=False)


def to_svg(figure: Figure, name: str) -> str:
    """Convert a figure to an `<svg>` element without fixed size, fixed colors or ids of other charts.

    Args:
        figure: The figure. Its colors of `COLORS` become CSS variables. In labels that come from users, `$` must be
            escaped by a backslash, or they are set as formulas.
        name: Name of the chart, unique on its page.

    Returns:
        SVG element, to be embedded in HTML.
    """
    text = _draw(figure, name)
    root = ElementTree.fromstring(text)
    used = set(re.findall(r"#([\w-]+)", text))
    for element in list(root.iter()):
        element.tag = element.tag.rpartition("}")[2]
        for key in list(element.attrib):
            value = element.attrib.pop(key)
            key = key.rpartition("}")[2]
            if key == "id" and value not in used:
                continue
            element.set(key, _rounded(value) if key in ("d", "x", "y", "transform", "points", "style") else value)
        for child in list(element):
            # matplotlib's style sheet would apply to the whole page.
            if child.tag.endswith(("metadata", "}style")):
                element.remove(child)
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    svg = ElementTree.tostring(root, encoding="unicode")
    for variable, color in COLORS.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg


def _draw(figure: Figure, name: str) -> str:
    FigureCanvasSVG(figure).figure.set_dpi(72)  # what an SVG is drawn with, so that its layout is for the same texts
    if engine := figure.get_layout_engine():
        engine.execute(figure)
        figure.set_layout_engine(None)  # with one, saving would draw everything twice
    text = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": name}):
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return text.getvalue()


def _rounded(value: str) -> str:
    """Round coordinates to a hundredth of a point, which makes the drawing three times smaller."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
