"""Charts of the training report, and the axes that they share with the comparison of runs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

from reid.report.figures import COLORS, NARROW, WIDE, epoch_axis, new_figure, sampled, style, to_svg
from reid.report.history import Band
from reid.report.summary import RUNS, STAGES

DASHES: dict[str, Any] = {"rri": "-", "control": (0, (4, 2))}
MAX_POINTS = 200

Size = tuple[float, float]
Curves = Mapping[str, Sequence[tuple[float, float]]]


def correlation_chart(curves: Curves, bands: Sequence[Band], *, size: Size = WIDE) -> str:
    """Draw S(W) over epochs.

    Args:
        curves: (epoch, S(W)) points of each run. A decorrelate is a second point at the same epoch.
        bands: Spans of epochs of the training stages.
        size: Width and height in inches.

    Returns:
        SVG.
    """

    def draw(axes: Axes) -> list[Line2D]:
        correlation_axis(axes, curves.values())
        # The first of the two points at a decorrelate is the value after Relaxation.
        reached = dict(reversed(curves.get("rri", ())))
        ends = [band.end for band in bands if band.stage == "relaxation"]
        for x in ends if len(ends) <= 10 and size == WIDE else []:
            y = reached[x]
            axes.annotate(f"{y:.3f}", (x, y), (-2, -11), textcoords="offset points", ha="right", fontsize=8)
        return []

    return _over_epochs(curves, bands, draw, "correlation", size=size)


def correlation_axis(axes: Axes, curves: Collection[Sequence[tuple[float, float]]]) -> None:
    """Set up a logarithmic vertical axis of S(W), from the lowest value of the curves to 1.

    Args:
        axes: Axes to change.
        curves: (epoch, S(W)) points of each line.
    """
    axes.set_yscale("log")
    lows = [y for points in curves for _, y in points if y > 0]
    bottom = min(lows, default=0.1) / 1.5
    axes.set_ylim(bottom, 1.35)
    axes.yaxis.set_major_locator(FixedLocator([t for t in _decades(bottom) if bottom <= t <= 1]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_ylabel("S(W), log scale")


def loss_chart(
    curves: Curves, bands: Sequence[Band], jumps: Sequence[tuple[float, float, float]], *, size: Size = WIDE
) -> str:
    """Draw the mean training loss of each epoch, and the losses just before and after each decorrelate.

    Args:
        curves: (epoch, loss) points of each run.
        bands: Spans of epochs of the training stages.
        jumps: (epoch, loss before, loss after) of each decorrelate.
        size: Width and height in inches.

    Returns:
        SVG.
    """

    def draw(axes: Axes) -> list[Line2D]:
        axes.set_ylabel("training loss")
        if not jumps:
            return []
        x, before, after = zip(*jumps, strict=True)
        axes.vlines(x, before, after, colors=COLORS["ink"], linewidth=0.8)
        marks: dict[str, Any] = {"color": COLORS["ink"], "linestyle": "none", "markersize": 4.5, "marker": "o"}
        axes.plot(x, before, markerfacecolor="none", **marks)
        axes.plot(x, after, **marks)
        return [
            Line2D([], [], markerfacecolor="none", label="just before a replacement", **marks),
            Line2D([], [], label="just after", **marks),
        ]

    return _over_epochs(curves, bands, draw, "loss", size=size)


def score_chart(curves: Curves, bands: Sequence[Band], name: str) -> str:
    """Draw a score at the end of each stage, from the first stage that has one.

    Args:
        curves: (epoch, percent) points of each run.
        bands: Spans of epochs of the training stages.
        name: Name of the score.

    Returns:
        SVG.
    """

    def draw(axes: Axes) -> list[Line2D]:
        score_axis(axes, curves.values(), name)
        return []

    return _over_epochs(curves, bands, draw, name, size=NARROW, marker="o")


def score_axis(axes: Axes, curves: Collection[Sequence[tuple[float, float]]], name: str) -> None:
    """Set up the axes of a score that is known at the ends of stages only.

    Args:
        axes: Axes to change.
        curves: (epoch, percent) points of each line.
        name: Name of the score.
    """
    epochs = [x for points in curves for x, _ in points]
    span = max(epochs) - min(epochs) or 1
    axes.set_xlim(min(epochs) - 0.05 * span, max(epochs) + 0.03 * span)
    low, high = axes.get_ylim()
    if high - low < 1:  # A range below one percent would exaggerate noise.
        axes.set_ylim((low + high) / 2 - 0.5, (low + high) / 2 + 0.5)
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10]))
    axes.set_ylabel(f"{name}, %")


def spectra_chart(spectra: Sequence[tuple[int, Sequence[float], Sequence[float]]]) -> str:
    """Draw the singular values of W before and after each decorrelate.

    Args:
        spectra: (round, before, after), the values in descending order.

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        axes.set_yscale("log")
        handles = []
        for i, (round, before, after) in enumerate(spectra):
            shade = 0.35 + 0.65 * (i + 1) / len(spectra)
            for values, dashes, width in ((before, "-", 1.3), (after, (0, (1.5, 2)), 2.2)):
                x, y = sampled(values, MAX_POINTS, 0.0)
                axes.plot(x, y, color=COLORS["rri"], alpha=shade, linestyle=dashes, linewidth=width)
            if i in (0, len(spectra) - 1):
                handles.append(Line2D([], [], color=COLORS["rri"], alpha=shade, label=f"round {round}"))
        handles += [
            Line2D([], [], color=COLORS["ink"], linewidth=1.3, label="before"),
            Line2D([], [], color=COLORS["ink"], linewidth=2.2, linestyle=(0, (1.5, 2)), label="after"),
        ]
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.yaxis.set_minor_formatter(FuncFormatter(lambda value, _: f"{value:.3g}"))
        axes.set_xlabel("index of the singular value, in descending order")
        axes.set_ylabel("value, log scale")
        axes.legend(handles=handles)
        return to_svg(figure, "spectra")


def cmc_chart(curves: Sequence[tuple[str, str, Sequence[float]]]) -> str:
    """Draw CMC curves.

    Args:
        curves: (color, label, fractions from rank 1) of each line.

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        for color, label, curve in curves:
            dashes = DASHES.get(color, (0, (1, 1.5)))
            ranks = range(1, len(curve) + 1)
            axes.plot(ranks, [100 * y for y in curve], color=COLORS[color], linestyle=dashes, label=label)
        cmc_axis(axes, max(len(curve) for _, _, curve in curves))
        axes.legend(loc="lower right")
        return to_svg(figure, "cmc")


def cmc_axis(axes: Axes, ranks: int) -> None:
    """Set up the axes of CMC curves.

    Args:
        axes: Axes to change.
        ranks: Largest rank on the axis.
    """
    axes.set_xlim(1 - 0.02 * ranks, ranks)
    axes.xaxis.set_major_locator(FixedLocator([rank for rank in (1, 5, 10, 20, 30, 40, 50) if rank <= ranks]))
    axes.set_xlabel("rank")
    axes.set_ylabel("queries matched, %")


def _over_epochs(
    curves: Curves,
    bands: Sequence[Band],
    draw: Callable[[Axes], list[Line2D]],
    name: str,
    *,
    size: Size,
    marker: str | None = None,
) -> str:
    with style():
        figure, axes = new_figure(size)
        axes.set_xlim(0, max([band.end for band in bands] or [1]))
        for run in ("control", "rri"):
            if curves.get(run):
                x, y = zip(*curves[run], strict=True)
                dot = marker or ("." if len(x) < 3 else None)
                axes.plot(x, y, color=COLORS[run], linestyle=DASHES[run], marker=dot, markersize=3.5)
        lines = [
            Line2D([], [], color=COLORS[run], linestyle=DASHES[run], marker=marker, markersize=3.5, label=RUNS[run])
            for run in ("rri", "control")
            if curves.get(run)
        ]
        lines += draw(axes)
        left, right = axes.get_xlim()
        for band in bands:
            axes.axvspan(band.start, band.end, color=COLORS[band.stage], alpha=0.13, linewidth=0)
        for round in sorted({band.round for band in bands} - {0}):
            xs = [x for band in bands if band.round == round for x in (band.start, band.end)]
            if max(xs) - min(xs) > (0.02 if size == WIDE else 0.04) * (right - left):
                middle = (min(xs) + max(xs)) / 2
                axes.text(middle, 1.01, str(round), transform=axes.get_xaxis_transform(), ha="center", fontsize=8)
        seen = {band.stage for band in bands}
        patches = [Patch(color=COLORS[s], alpha=0.3, label=title) for s, title in STAGES.items() if s in seen]
        axes.set_xlim(left, right)
        epoch_axis(axes, size)
        columns = (4 if len(lines) > 2 else 5) if size == WIDE else 2 if len(lines) > 2 else 3
        figure.legend(handles=[*lines, *patches], loc="outside lower left", ncols=columns)
        return to_svg(figure, f"{name}, {size}")


def _decades(bottom: float) -> list[float]:
    lowest = int(np.floor(np.log10(bottom)))
    return [m * 10.0**e for e in range(lowest, 1) for m in (1, 2, 5)]
