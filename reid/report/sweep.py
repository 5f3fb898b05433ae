"""The page of a sweep: one line and one bar a setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid.report.pages import Chart, render_page, write_page

SINGLE = "One seed a setting: what chance does to these numbers is not known, and differences of a point may be it."


def write_sweep_page(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    """Write the page of finished settings; each has the keys of `reid.sweep.table.Line`. Returns `path`.

    Raises InputError where the extra `report` is missing.
    """
    return write_page(path, render(table))


def render(table: Sequence[dict[str, Any]]) -> str:
    """The page as text, the settings in the order given."""
    lines = [
        {
            **line,
            "gain": _gain(line),
            "scores": {key: _percent(line[key]) for key in ("rank1", "mAP", "control_rank1", "control_mAP")},
        }
        for line in table
    ]
    single = any(len(line["seeds"]) < 2 for line in table)
    return render_page("sweep.html", lines=lines, charts=_charts(table), warning=SINGLE if single else "")


def _percent(value: Sequence[float | None] | None) -> str:
    if value is None or value[0] is None:
        return "–"
    deviation = "" if value[1] is None else f" ± {100 * value[1]:.1f}"
    return f"{100 * value[0]:.1f}{deviation}"


def _gain(line: dict[str, Any]) -> str:
    if not (line["control_rank1"] and line["control_mAP"]):
        return "–"
    points = [100 * (line[key][0] - line[f"control_{key}"][0]) for key in ("rank1", "mAP")]
    return " / ".join(f"{value:+.1f}" for value in points)


def _charts(table: Sequence[dict[str, Any]]) -> list[Chart]:
    if not table:
        return []
    from reid.report.figures import NARROW
    from reid.report.sweep_figures import bars

    best = sorted(table, key=lambda line: -line["mAP"][0])
    alt = "from the highest mAP to the lowest: " + "; ".join(f"{line['name']} {_percent(line['mAP'])}" for line in best)
    caption = "Mean over the seeds, with the standard deviation as a line where there is more than one."
    small = bars(table, width=NARROW[0])
    return [Chart("mAP by setting", bars(table), alt, caption, wide=True, small=small)]
