"""The chart of a sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.report.figures import COLORS, WIDE, new_figure, style, to_svg


def bars(table: Sequence[dict[str, Any]], *, width: float = WIDE[0]) -> str:
    """A bar of mAP for each setting, that of its control as a tick beside it."""
    with style():
        figure, axes = new_figure((width, 0.7 + 0.26 * len(table)))
        places = range(len(table))
        values = [100 * line["mAP"][0] for line in table]
        errors = [100 * (line["mAP"][1] or 0.0) for line in table]
        axes.barh(places, values, xerr=errors if any(errors) else None, color=COLORS["rri"], ecolor=COLORS["ink"])
        controls = [(place, 100 * line["control_mAP"][0]) for place, line in enumerate(table) if line["control_mAP"]]
        if controls:
            axes.plot(
                [value for _, value in controls], [place for place, _ in controls], "|", markersize=12,
                markeredgewidth=2, color=COLORS["control"], label="control",
            )  # fmt: skip
            axes.legend(loc="lower right")
        axes.set_yticks(places, [_short(line["name"], int(5 * width)).replace("$", r"\$") for line in table])
        axes.invert_yaxis()
        axes.grid(visible=False, axis="y")
        axes.set_xlim(left=0)
        axes.set_xlabel("mAP, percent")
        return to_svg(figure, f"sweep {width}")


def _short(name: str, most: int) -> str:
    """A name whose middle is left out where it is too long for a chart; the table beside it has the whole."""
    return name if len(name) <= most else f"{name[: most // 2]}…{name[-(most // 2) :]}"
