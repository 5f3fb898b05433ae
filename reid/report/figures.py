"""Charts as inline SVG. Colours are CSS variables, so that one drawing reads on light and on dark paper."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from xml.etree import ElementTree

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reid.report.history import Band

# Drawn in a colour that nothing else has, which `_to_svg` turns into the variable of the page.
COLOURS = {
    name: f"#0a0b{number:02x}"
    for number, name in enumerate(("ink", "grid", "rri", "control", "step0", "restraint", "relaxation"), start=1)
}
STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.0,
    "axes.edgecolor": COLOURS["ink"],
    "axes.labelcolor": COLOURS["ink"],
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": COLOURS["grid"],
    "grid.linewidth": 0.5,
    "xtick.color": COLOURS["ink"],
    "ytick.color": COLOURS["ink"],
    "text.color": COLOURS["ink"],
    "legend.frameon": False,
    "lines.linewidth": 1.5,
}
WIDE, NARROW = (8.4, 3.1), (4.6, 3.3)
DASHES: dict[str, Any] = {"rri": "-", "control": (0, (4, 2))}
NAMES = {"rri": "RRI", "control": "control"}
MAX_POINTS = 200

Curves = Mapping[str, Sequence[tuple[float, float]]]


def correlation_chart(curves: Curves, bands: Sequence[Band]) -> str:
    """S(W) over epochs, by run; a decorrelate is two points at one epoch."""

    def draw(axes: Axes) -> list[Line2D]:
        axes.set_yscale("log")
        lows = [y for points in curves.values() for _, y in points if y > 0]
        bottom = min(lows, default=0.1) / 1.5
        axes.set_ylim(bottom, 1.35)
        axes.yaxis.set_major_locator(FixedLocator([t for t in _decades(bottom) if bottom <= t <= 1]))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.set_ylabel("S(W), log scale")
        # Of the two points at a decorrelate the first is what Relaxation reached.
        reached = dict(reversed(curves.get("rri", ())))
        ends = [band.end for band in bands if band.stage == "relaxation"]
        for x in ends if len(ends) <= 10 else []:
            y = reached[x]
            axes.annotate(f"{y:.3f}", (x, y), (-2, -11), textcoords="offset points", ha="right", fontsize=8)
        return []

    return _over_epochs(curves, bands, draw, "correlation")


def loss_chart(curves: Curves, bands: Sequence[Band], jumps: Sequence[tuple[float, float, float]]) -> str:
    """Mean training loss of each epoch by run, and the loss just before and after each decorrelate."""

    def draw(axes: Axes) -> list[Line2D]:
        axes.set_ylabel("training loss")
        if not jumps:
            return []
        x, before, after = zip(*jumps, strict=True)
        axes.vlines(x, before, after, colors=COLOURS["ink"], linewidth=0.8)
        own: dict[str, Any] = {"color": COLOURS["ink"], "linestyle": "none", "markersize": 4.5}
        axes.plot(x, before, marker="o", markerfacecolor="none", **own)
        axes.plot(x, after, marker="o", **own)
        return [
            Line2D([], [], marker="o", markerfacecolor="none", label="just before a replacement", **own),
            Line2D([], [], marker="o", label="just after", **own),
        ]

    return _over_epochs(curves, bands, draw, "loss")


def stages_chart(labels: Sequence[str], values: Mapping[str, Sequence[float | None]], name: str) -> str:
    """One score in percent at the end of every stage, by run; None where a run has no such stage."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(NARROW)
        for run, series in values.items():
            points = [(i, value) for i, value in enumerate(series) if value is not None]
            if points:
                x, y = zip(*points, strict=True)
                axes.plot(x, y, color=COLOURS[run], linestyle=DASHES[run], marker="o", markersize=3.5, label=NAMES[run])
        step = 1 + (len(labels) - 1) // 24
        axes.set_xticks(range(0, len(labels), step), labels[::step], rotation=50, ha="right", rotation_mode="anchor")
        axes.set_ylabel(f"{name}, %")
        low, high = axes.get_ylim()
        if high - low < 1:  # percent: a smaller range would show noise as if it were news
            axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
        axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
        axes.legend()
        return _to_svg(figure, name)


def spectra_chart(spectra: Sequence[tuple[int, Sequence[float], Sequence[float]]]) -> str:
    """Singular values of W before and after each decorrelate: (round, before, after), largest first."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(NARROW)
        axes.set_yscale("log")
        handles = []
        for i, (round, before, after) in enumerate(spectra):
            shade = 0.35 + 0.65 * (i + 1) / len(spectra)
            for values, dashes, width in ((before, "-", 1.3), (after, (0, (1.5, 2)), 2.2)):
                index = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int))
                drawn = np.asarray(values, dtype=float)[index]
                drawn[drawn <= 0] = np.nan
                axes.plot(index + 1, drawn, color=COLOURS["rri"], alpha=shade, linestyle=dashes, linewidth=width)
            if i in (0, len(spectra) - 1):
                handles.append(Line2D([], [], color=COLOURS["rri"], alpha=shade, label=f"round {round}"))
        handles += [
            Line2D([], [], color=COLOURS["ink"], linewidth=1.3, label="before"),
            Line2D([], [], color=COLOURS["ink"], linewidth=2.2, linestyle=(0, (1.5, 2)), label="after"),
        ]
        axes.set_xlabel("singular value, from the largest")
        axes.set_ylabel("value, log scale")
        axes.legend(handles=handles)
        return _to_svg(figure, "spectra")


def cmc_chart(curves: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """CMC curves: (colour, label, share of queries answered by rank 1, 2, ...)."""
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(NARROW)
        for colour, label, curve in curves:
            dashes = DASHES.get(colour, (0, (1, 1.5)))
            ranks = range(1, len(curve) + 1)
            axes.plot(ranks, [100 * y for y in curve], color=COLOURS[colour], linestyle=dashes, label=label)
        axes.set_xlabel("rank")
        axes.set_ylabel("queries answered, %")
        axes.legend(loc="lower right")
        return _to_svg(figure, "cmc")


def _over_epochs(curves: Curves, bands: Sequence[Band], draw: Callable[[Axes], list[Line2D]], name: str) -> str:
    with matplotlib.rc_context(STYLE):
        figure, axes = _figure(WIDE)
        last = max((band.end for band in bands), default=1)
        top = axes.get_xaxis_transform()
        for band in bands:
            axes.axvspan(band.start, band.end, color=COLOURS[band.stage], alpha=0.13, linewidth=0)
            if band.end - band.start > 0.035 * last and band.round:
                axes.text((band.start + band.end) / 2, 1.01, str(band.round), transform=top, ha="center", fontsize=8)
        for run in ("control", "rri"):
            if curves.get(run):
                x, y = zip(*curves[run], strict=True)
                axes.plot(x, y, color=COLOURS[run], linestyle=DASHES[run], marker="." if len(x) < 3 else None)
        lines = [
            Line2D([], [], color=COLOURS[run], linestyle=DASHES[run], label=NAMES[run])
            for run in ("rri", "control")
            if curves.get(run)
        ]
        lines += draw(axes)
        titles = {"step0": "Step 0", "restraint": "Restraint", "relaxation": "Relaxation"}
        seen = {band.stage for band in bands}
        patches = [Patch(color=COLOURS[s], alpha=0.3, label=title) for s, title in titles.items() if s in seen]
        axes.set_xlim(0, last)
        axes.xaxis.set_major_locator(MaxNLocator(12, integer=True))
        axes.set_xlabel("epoch")
        axes.grid(axis="x", visible=False)
        figure.legend(handles=[*lines, *patches], loc="outside lower left", ncols=4 if len(lines) > 2 else 5)
        return _to_svg(figure, name)


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    # Without pyplot no window system is asked for and nothing stays in memory.
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _decades(bottom: float) -> list[float]:
    lowest = int(np.floor(np.log10(bottom)))
    return [m * 10.0**e for e in range(lowest, 1) for m in (1, 2, 5)]


def _to_svg(figure: Figure, name: str) -> str:
    """The drawing as an `<svg>` element for a page: no fixed size, no fixed colour, no name that clashes."""
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
    for variable, colour in COLOURS.items():
        svg = svg.replace(colour, f"var(--{variable})")
    return svg


def _rounded(value: str) -> str:
    """Coordinates to a hundredth of a point: a third of the size, the same picture."""
    return re.sub(r"-?\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
