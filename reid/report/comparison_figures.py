"""Charts that compare training runs, one line per run, without a legend, which the page adds."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes

from reid.report.figures import epoch_axis, new_figure, plot_style, style, to_svg
from reid.report.training_figures import cmc_axis, correlation_axis, score_axis

Points = Sequence[tuple[float, float]]
Line = tuple[str, str, Points]  # Color and dashes, see `figures.line_style`.
Size = tuple[float, float]


def correlation_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """Draw S(W) over epochs.

    Args:
        lines: Color, dashes and (epoch, S(W)) points of each run.
        name: Name of the chart, unique on its page.
        size: Width and height in inches.

    Returns:
        SVG.
    """

    def finish(axes: Axes) -> None:
        correlation_axis(axes, [points for _, _, points in lines])
        _epochs(axes, lines, size)

    return _drawn(lines, name, size, finish)


def loss_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """Draw the training loss over epochs.

    Args:
        lines: Color, dashes and (epoch, loss) points of each run.
        name: Name of the chart, unique on its page.
        size: Width and height in inches.

    Returns:
        SVG.
    """

    def finish(axes: Axes) -> None:
        axes.set_ylabel("training loss")
        _epochs(axes, lines, size)

    return _drawn(lines, name, size, finish)


def score_chart(lines: Sequence[Line], name: str, size: Size, *, score: str) -> str:
    """Draw a score at the end of each stage, from the first stage of any run that has one.

    Args:
        lines: Color, dashes and (epoch, percent) points of each run.
        name: Name of the chart, unique on its page.
        size: Width and height in inches.
        score: Name of the score.

    Returns:
        SVG.
    """

    def finish(axes: Axes) -> None:
        _epochs(axes, lines, size)
        score_axis(axes, [points for _, _, points in lines], score)

    return _drawn(lines, name, size, finish, marker="o")


def cmc_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """Draw CMC curves.

    Args:
        lines: Color, dashes and (rank, percent of queries) points of each run.
        name: Name of the chart, unique on its page.
        size: Width and height in inches.

    Returns:
        SVG.
    """
    return _drawn(lines, name, size, lambda axes: cmc_axis(axes, max(len(points) for _, _, points in lines)))


def _drawn(
    lines: Sequence[Line], name: str, size: Size, finish: Callable[[Axes], None], *, marker: str | None = None
) -> str:
    with style():
        figure, axes = new_figure(size)
        for color, dashes, points in lines:
            x, y = zip(*points, strict=True)
            dot = marker or ("o" if len(x) == 1 else None)
            axes.plot(x, y, marker=dot, markersize=3, **plot_style(color, dashes))
        finish(axes)
        return to_svg(figure, f"{name}, {size}")


def _epochs(axes: Axes, lines: Sequence[Line], size: Size) -> None:
    axes.set_xlim(0, max(x for _, _, points in lines for x, _ in points))
    epoch_axis(axes, size)
