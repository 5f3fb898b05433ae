"""The charts of the part of a diagnosis that needs a dataset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from reid.report.figures import NARROW, new_figure, plot_style, style, to_svg

# One color for the Eigenlayer's input and one for its output, another dash for the second kind of line of each.
LOOKS = {"input": "line1", "output": "line2", "truncated SVD": "line2", "PCA of the input": "line1", "US": "ink"}
SECOND = "6 2"
MAX_POINTS = 200
# Below this part of the largest eigenvalue lies nothing but rounding.
VISIBLE = 1e-12


def covariance_chart(spectra: Mapping[tuple[str, str], Sequence[float]]) -> str:
    """Eigenvalues of the covariance, largest first, by ("input" or "output", "retrieval" or "train")."""
    with style():
        figure, axes = new_figure(NARROW)
        axes.set_yscale("log")
        for (feature, part), values in spectra.items():
            index = np.unique(np.linspace(0, len(values) - 1, MAX_POINTS).round().astype(int))
            drawn = np.asarray(values, dtype=float)[index]
            drawn[drawn <= VISIBLE * drawn[0]] = np.nan
            look = plot_style(LOOKS[feature], SECOND if part == "train" else "")
            label = f"{feature}, {'training' if part == 'train' else 'query and gallery'}"
            axes.plot(index + 1, drawn, label=label, marker="." if len(values) < 3 else None, **look)
        axes.set_xlabel("eigenvalue, from the largest")
        axes.set_ylabel("variance, log scale")
        axes.legend(loc="lower left")
        return to_svg(figure, "covariance")


def variance_line(feature: str, kind: str) -> tuple[str, str, str]:
    """Color, dashes and label of a line of `variance_chart`, which has no room for a legend of its own."""
    label = f"{feature}, {'principal components' if kind == 'components' else 'dimensions as they come'}"
    return LOOKS[feature], SECOND if kind == "dimensions" else "", label


def variance_chart(shares: Mapping[tuple[str, str], Sequence[tuple[int, float]]]) -> str:
    """(k, percent of the variance), by ("input" or "output", "components" or "dimensions")."""
    with style():
        figure, axes = new_figure(NARROW)
        for (feature, kind), points in shares.items():
            k, percent = zip(*points, strict=True)
            color, dashes, label = variance_line(feature, kind)
            axes.plot(k, percent, label=label, marker="o", markersize=3, **plot_style(color, dashes))
        _powers(axes, [k for points in shares.values() for k, _ in points])
        axes.set_xlabel("first k, each step twice as many")
        axes.set_ylabel("share of the variance, %")
        return to_svg(figure, "variance")


def compression_chart(curves: Mapping[str, Sequence[tuple[int, float]]], whole: float | None, name: str) -> str:
    """A score in percent over the rank, by "truncated SVD" and "PCA of the input"; whole: that of US at full size."""
    with style():
        figure, axes = new_figure(NARROW)
        for label, points in curves.items():
            ranks, percent = zip(*points, strict=True)
            axes.plot(ranks, percent, label=label, marker="o", markersize=3.5, **plot_style(LOOKS[label], ""))
        if whole is not None:
            axes.axhline(whole, label="US, full size", **plot_style(LOOKS["US"], SECOND))
        _powers(axes, [rank for points in curves.values() for rank, _ in points])
        axes.set_xlabel("rank, each step twice as many")
        axes.set_ylabel(f"{name}, %")
        axes.legend(loc="lower right")
        return to_svg(figure, f"compression {name}")


def _powers(axes: Axes, values: Sequence[int]) -> None:
    axes.set_xscale("log", base=2)
    axes.xaxis.set_major_locator(FixedLocator(sorted(set(values))))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_locator(NullLocator())
