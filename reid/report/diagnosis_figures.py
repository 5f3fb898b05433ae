"""Charts of the diagnosis of one layer."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, NullFormatter
from PIL import Image

from reid.report.figures import COLORS, NARROW, new_figure, plot_style, sampled, style, to_svg

MEASURED, GAUSSIAN = ("line2", ""), ("line1", "6 2")
MAX_POINTS = 300
# Values below this fraction of the largest are rounding errors.
VISIBLE = 1e-12


def spectrum_chart(values: Sequence[float], expected: Sequence[float], name: str) -> str:
    """Draw the singular values of a layer next to those of a Gaussian matrix.

    Args:
        values: Singular values in descending order.
        expected: Those of a Gaussian matrix with the same sum of squares.
        name: Name of the chart, unique on its page.

    Returns:
        SVG.
    """
    return _descending(values, expected, name, x="index of the singular value, in descending order", y="value")


def norms_chart(norms: Sequence[float], expected: Sequence[float], name: str) -> str:
    """Draw the norms of the weight vectors of a layer next to those of Gaussian vectors.

    Args:
        norms: Norms in any order.
        expected: Those of Gaussian vectors with the same sum of squares, in descending order.
        name: Name of the chart, unique on its page.

    Returns:
        SVG.
    """
    norms = sorted(norms, reverse=True)
    return _descending(norms, expected, name, x="index of the weight vector, by descending norm", y="norm")


def histogram_chart(counts: Sequence[int], expected: Sequence[float], name: str) -> str:
    """Draw a histogram of the cosines of all pairs of weight vectors.

    Args:
        counts: Pairs in equal bins over [-1, 1].
        expected: Expected counts for as many pairs of Gaussian vectors.
        name: Name of the chart, unique on its page.

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        edges = np.linspace(-1.0, 1.0, len(counts) + 1)
        centers = (edges[:-1] + edges[1:]) / 2
        axes.set_yscale("log")
        axes.stairs(counts, edges, fill=True, color=COLORS[MEASURED[0]], alpha=0.55, linewidth=0, label="this layer")
        visible = np.where(np.asarray(expected) >= 0.5, expected, np.nan)
        axes.plot(centers, visible, label="Gaussian", **plot_style(*GAUSSIAN))
        filled = np.flatnonzero((np.asarray(counts) > 0) | (np.asarray(expected) >= 0.5))
        if len(filled):
            axes.set_xlim(max(-1.0, edges[filled[0]] - 0.02), min(1.0, edges[filled[-1] + 1] + 0.02))
        axes.set_ylim(bottom=0.5)
        axes.set_xlabel("cosine of two weight vectors")
        axes.set_ylabel("pairs, log scale")
        return _with_legend(figure, axes, name)


def colored(pixels: np.ndarray) -> Image.Image:
    """Color a matrix of absolute cosines, from dark for 0 to bright for 1.

    Args:
        pixels: (H, W) uint8, |cos| times 255.

    Returns:
        A palette image, colored by the square root to show small values.
    """
    stretched = np.rint(np.sqrt(pixels / 255.0) * 255).astype(np.uint8)
    image = Image.fromarray(stretched, "L").convert("P")
    image.putdata(stretched.ravel().tolist())
    image.putpalette((colormaps["magma"](np.arange(256), bytes=True)[:, :3]).ravel().tolist())
    return image


def scale_bar() -> Image.Image:
    """Draw the color scale of `colored`.

    Returns:
        Colors from 0 to 1, evenly spaced by the square root.
    """
    return colored(np.rint((np.arange(256) / 255.0) ** 2 * 255)[None].repeat(12, axis=0).astype(np.uint8))


def _descending(values: Sequence[float], expected: Sequence[float], name: str, *, x: str, y: str) -> str:
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
        for series, look, label in ((values, MEASURED, "this layer"), (expected, GAUSSIAN, "Gaussian")):
            index, drawn = sampled(series, MAX_POINTS, VISIBLE * series[0])
            axes.plot(index, drawn, label=label, marker="." if len(index) < 3 else None, **plot_style(*look))
        axes.set_xlabel(x)
        axes.set_ylabel(y)
        return _with_legend(figure, axes, name)


def _with_legend(figure: Figure, axes: Axes, name: str) -> str:
    axes.legend()
    return to_svg(figure, name)
