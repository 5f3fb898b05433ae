"""The chart of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.report.figures import COLORS, WIDE, new_figure, style, to_svg


def bars(table: Sequence[dict[str, Any]], *, width: float = WIDE[0]) -> str:
    """Draw the mAP of each setting as a bar, with that of its control as a tick.

    Args:
        table: One record per setting, with the keys of `reid.sweep.table.Line`.
        width: Width in inches.

    Returns:
        SVG.
    """
    with style():
        figure, axes = new_figure((width, 0.7 + 0.26 * len(table)))
        positions = range(len(table))
        values = [100 * line["mAP"][0] for line in table]
        errors = [100 * (line["mAP"][1] or 0.0) for line in table]
        axes.barh(positions, values, xerr=errors if any(errors) else None, color=COLORS["rri"], ecolor=COLORS["ink"])
        controls = [(100 * line["control_mAP"][0], y) for y, line in enumerate(table) if line["control_mAP"]]
        if controls:
            axes.plot(
                *zip(*controls, strict=True), "|", markersize=12, markeredgewidth=2, color=COLORS["control"],
                label="control",
            )  # fmt: skip
            figure.legend(loc="outside upper right")
        axes.set_yticks(positions, [_short(line["name"], int(5 * width)).replace("$", r"\$") for line in table])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("mAP, percent")
        return to_svg(figure, f"sweep {width}")


def _short(name: str, max_length: int) -> str:
    """Leave out the middle of a name that is too long for the chart."""
    half = max_length // 2
    return name if len(name) <= max_length else f"{name[:half]}…{name[-half:]}"
