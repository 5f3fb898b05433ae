"""Charts of the part of a diagnosis that needs a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reid.report.figures import NARROW, new_figure, plot_style, sampled, style, to_svg

# One color for the Eigenlayer's input and one for its output. The second kind of line of each is dashed.
LINE_COLORS = {"input": "line1", "output": "line2", "truncated SVD": "line2", "PCA of the input": "line1", "US": "ink"}
SECOND_DASHES = "6 2"
MAX_POINTS = 200
# Values below this fraction of the largest eigenvalue are rounding errors.
VISIBLE = 1e-12


def covariance_chart(spectra: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """Draw eigenvalues of the covariance of features.

    Args:
        spectra: Eigenvalues in descending order by ("input" or "output", "retrieval" or "train").

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        axes.set_yscale("log")
        for (feature, part), values in spectra.items():
            x, y = sampled(values, MAX_POINTS, VISIBLE * values[0])
            look = plot_style(LINE_COLORS[feature], SECOND_DASHES if part == "train" else "")
            label = f"{feature}, {'training' if part == 'train' else 'query and gallery'}"
            axes.plot(x, y, label=label, marker="." if len(values) < 3 else None, **look)
        axes.set_xlabel("index of the eigenvalue, in descending order")
        axes.set_ylabel("variance, log scale")
        axes.legend(loc="lower left")
        return to_svg(figure, "covariance")


def variance_line(feature: str, kind: str) -> tuple[str, str, str]:
    """Style a line of `variance_chart`, which has no room for a legend.

    Args:
        feature: "input" or "output".
        kind: "components" or "dimensions".

    Returns:
        Color, dashes and label.
    """
    label = f"{feature}, {'principal components' if kind == 'components' else 'dimensions in order'}"
    return LINE_COLORS[feature], SECOND_DASHES if kind == "dimensions" else "", label


def variance_chart(shares: Mapping[tuple[str, str], Sequence[tuple[int, float]]]) -> str:
    """Draw the share of the variance that the first k dimensions or components carry.

    Args:
        shares: (k, percent) points by ("input" or "output", "components" or "dimensions").

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        for (feature, kind), points in shares.items():
            k, percent = zip(*points, strict=True)
            color, dashes, label = variance_line(feature, kind)
            axes.plot(k, percent, label=label, marker="o", markersize=3, **plot_style(color, dashes))
        _log2_axis(axes, [k for points in shares.values() for k, _ in points])
        axes.set_xlabel("k, log scale")
        axes.set_ylabel("share of the variance, %")
        return to_svg(figure, "variance")


def compression_chart(curves: Mapping[str, Sequence[tuple[int, float]]], whole: float | None, name: str) -> str:
    """Draw a score over the rank of a compressed layer.

    Args:
        curves: (rank, percent) points of "truncated SVD" and of "PCA of the input".
        whole: Percentage of US at full size, or None if unknown.
        name: Name of the score.

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure(NARROW)
        for label, points in curves.items():
            ranks, percent = zip(*points, strict=True)
            axes.plot(ranks, percent, label=label, marker="o", markersize=3.5, **plot_style(LINE_COLORS[label], ""))
        if whole is not None:
            axes.axhline(whole, label="US, full size", **plot_style(LINE_COLORS["US"], SECOND_DASHES))
        _log2_axis(axes, [rank for points in curves.values() for rank, _ in points])
        axes.set_xlabel("rank, log scale")
        axes.set_ylabel(f"{name}, %")
        axes.legend(loc="lower right")
        return to_svg(figure, f"compression {name}")


def _log2_axis(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
