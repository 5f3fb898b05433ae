"""Charts that compare training runs, one line per run, without a legend, which the page adds."""

from __future__ import annotations

from collections.abc import Sequence

from reid.report.figures import epoch_axis, new_figure, plot_style, style, to_svg
from reid.report.training_figures import cmc_axis, correlation_axis, score_axis

Points = Sequence[tuple[float, float]]
Line = tuple[str, str, Points]  # Color and dashes, see `figures.line_style`.
Size = tuple[float, float]


def run_chart(kind: str, lines: Sequence[Line], name: str, size: Size) -> str:
    """Draw one line per run.

    Args:
        kind: "correlation" or "loss" over epochs, "cmc" over ranks, else the name of a score at the end of each stage.
        lines: Color, dashes and (epoch or rank, value) points of each run.
        name: Name of the chart, unique on its page.
        size: Width and height in inches.

    Returns:
        SVG.
    """
    curves = [points for _, _, points in lines]
    is_score = kind not in ("correlation", "loss", "cmc")
    with style():
        figure, axes = new_figure(size)
        for color, dashes, points in lines:
            x, y = zip(*points, strict=True)
            dot = "o" if is_score or len(x) == 1 else None
            axes.plot(x, y, marker=dot, markersize=3, **plot_style(color, dashes))
        if kind == "cmc":
            cmc_axis(axes, max(map(len, curves)))
        else:
            axes.set_xlim(0, max(x for points in curves for x, _ in points))
            epoch_axis(axes, size)
        if kind == "correlation":
            correlation_axis(axes, curves)
        elif kind == "loss":
            axes.set_ylabel("training loss")
        elif is_score:
            score_axis(axes, curves, kind)  # after the epochs, whose limits it replaces
        return to_svg(figure, f"{name}, {size}")
