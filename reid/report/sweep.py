"""The page of a sweep, with one row and one bar per setting."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from reid.report.pages import Chart, render_page, write_page
from reid.report.tables import MISSING, percent_with_deviation, shown_difference

SINGLE_SEED = (
    "There is one seed per setting: the variance between seeds is unknown, and differences of a point may be due to "
    "chance."
)


def write_sweep_page(path: Path, table: Sequence[dict[str, Any]]) -> Path:
    """Write the page of the finished settings.

    Args:
        path: File to write.
        table: One record per setting, with the keys of `reid.sweep.table.Line`.

    Returns:
        Path of the HTML file.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    return write_page(path, render(table))


def render(table: Sequence[dict[str, Any]]) -> str:
    """Render the page.

    Args:
        table: See `write_sweep_page`. The order is kept.

    Returns:
        HTML document.
    """
    scores = ("rank1", "mAP", "control_rank1", "control_mAP")
    lines = [
        {**line, "gain": _gain(line), "scores": {key: percent_with_deviation(line[key]) for key in scores}}
        for line in table
    ]
    single = any(len(line["seeds"]) < 2 for line in table)
    return render_page("sweep.html", lines=lines, charts=_charts(table), warning=SINGLE_SEED if single else "")


def _gain(line: dict[str, Any]) -> str:
    if not (line["control_rank1"] and line["control_mAP"]):
        return MISSING
    points = [shown_difference(line[key][0], line[f"control_{key}"][0]) for key in ("rank1", "mAP")]
    return " / ".join(f"{value:+.1f}" for value in points)


def _charts(table: Sequence[dict[str, Any]]) -> list[Chart]:
    if not table:
        return []
    from reid.report.figures import NARROW
    from reid.report.sweep_figures import bars

    best = sorted(table, key=lambda line: -line["mAP"][0])
    values = "; ".join(f"{line['name']} {percent_with_deviation(line['mAP'])}" for line in best)
    alt = f"from the highest mAP to the lowest: {values}"
    caption = "Mean over the seeds, with the standard deviation as a line if there are several."
    small = bars(table, width=NARROW[0])
    return [Chart("mAP by setting", bars(table), alt, caption, wide=True, small=small)]
