"""The charts of one layer's diagnosis."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from reid.report.figures import COLORS, NARROW, new_figure, plot_style, style, to_svg

MEASURED, GAUSSIAN = ("line2", ""), ("line1", "6 2")
MAX_POINTS = 300
# Below this part of the largest value lies nothing but rounding.
VISIBLE = 1e-12


def spectrum_chart(values: Sequence[float], expected: Sequence[float], name: str) -> str:
    """Singular values, largest first, and those of a Gaussian matrix with the same sum of squares."""
    return _falling(values, expected, name, x="singular value, from the largest", y="value")


def norms_chart(norms: Sequence[float], expected: Sequence[float], name: str) -> str:
    """Lengths of the weight vectors, longest first, and those of Gaussian vectors with the same sum of squares."""
    return _falling(sorted(norms, reverse=True), expected, name, x="weight vector, from the longest", y="length")


def histogram_chart(counts: Sequence[int], expected: Sequence[float], name: str) -> str:
    """Pairs by cosine, in equal bins over [-1, 1], and as many pairs of Gaussian vectors."""
    with style():
        figure, axes = new_figure(NARROW)
        edges = np.linspace(-1.0, 1.0, len(counts) + 1)
        middles = (edges[:-1] + edges[1:]) / 2
        axes.set_yscale("log")
        axes.stairs(counts, edges, fill=True, color=COLORS[MEASURED[0]], alpha=0.55, linewidth=0, label="this layer")
        visible = np.where(np.asarray(expected) >= 0.5, expected, np.nan)
        axes.plot(middles, visible, label="Gaussian", **plot_style(*GAUSSIAN))
        filled = np.flatnonzero((np.asarray(counts) > 0) | (np.asarray(expected) >= 0.5))
        if len(filled):
            axes.set_xlim(max(-1.0, edges[filled[0]] - 0.02), min(1.0, edges[filled[-1] + 1] + 0.02))
        axes.set_ylim(bottom=0.5)
        axes.set_xlabel("cosine of two weight vectors")
        axes.set_ylabel("pairs, log scale")
        return _with_legend(figure, axes, name)


def colored(pixels: np.ndarray) -> Image.Image:
    """|cos| times 255, (n, n) uint8, in colors: dark for 0, bright for 1, by the root to show small ones."""
    stretched = np.rint(np.sqrt(pixels / 255.0) * 255).astype(np.uint8)
    image = Image.fromarray(stretched, "L").convert("P")
    image.putdata(stretched.ravel().tolist())
    image.putpalette((colormaps["magma"](np.arange(256), bytes=True)[:, :3]).ravel().tolist())
    return image


def scale_bar() -> Image.Image:
    """The colors of `colored` from 0 to 1, evenly by the root."""
    return colored(np.rint((np.arange(256) / 255.0) ** 2 * 255)[None].repeat(12, axis=0).astype(np.uint8))


def _falling(values: Sequence[float], expected: Sequence[float], name: str, *, x: str, y: str) -> str:
    with style():
        figure, axes = new_figure(NARROW)
        low, high = min(*values, *expected), max(*values, *expected)
        if low < high / 20:
            axes.set_yscale("log")
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
            axes.yaxis.set_minor_formatter(NullFormatter())
            y += ", log scale"
        else:
            axes.set_ylim(0, 1.08 * high)
        index = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int))
        for series, look, label in ((values, MEASURED, "this layer"), (expected, GAUSSIAN, "Gaussian")):
            drawn = np.asarray(series, dtype=float)[index]
            drawn[drawn <= VISIBLE * drawn[0]] = np.nan
            axes.plot(index + 1, drawn, label=label, marker="." if len(index) < 3 else None, **plot_style(*look))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return _with_legend(figure, axes, name)


def _with_legend(figure: Figure, axes: Axes, name: str) -> str:
    axes.legend()
    return to_svg(figure, name)
