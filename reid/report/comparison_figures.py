"""The charts that compare training runs: a line a run, its legend left to the page."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from reid.report.figures import WIDE, new_figure, plot_style, style, to_svg
from reid.report.training_figures import cmc_axis, correlation_axis, score_axis

Points = Sequence[tuple[float, float]]
Line = tuple[str, str, Points]  # color and dashes as `figures.line_style` gives them
Size = tuple[float, float]


def correlation_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """S(W) over epochs; name: of the drawing, once on its page."""

    def finish(axes: Axes) -> None:
        correlation_axis(axes, [points for _, _, points in lines])
        _epochs(axes, lines, size)

    return _drawn(lines, name, size, finish)


def loss_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """Training loss over epochs."""

    def finish(axes: Axes) -> None:
        axes.set_ylabel("training loss")
        _epochs(axes, lines, size)

    return _drawn(lines, name, size, finish)


def score_chart(lines: Sequence[Line], name: str, size: Size, *, score: str) -> str:
    """A score in percent at the end of each stage, from the first stage of any run that has one."""

    def finish(axes: Axes) -> None:
        _epochs(axes, lines, size)
        score_axis(axes, [points for _, _, points in lines], score)

    return _drawn(lines, name, size, finish, marker="o")


def cmc_chart(lines: Sequence[Line], name: str, size: Size) -> str:
    """CMC curves: percent of queries by rank."""
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
    axes.xaxis.set_major_locator(MaxNLocator(12 if size == WIDE else 8, integer=True))
    axes.set_xlabel("epoch")
    axes.grid(axis="x", visible=False)
