"""The page of a sweep, with one row and one bar per setting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.report.pages import Chart, render_page
from reid.report.tables import MISSING, difference_text, percent_with_deviation

SINGLE_SEED = (
    "There is one seed per setting: the variance between seeds is unknown, and differences of a point may be due to "
    "chance."
)


def render(table: Sequence[dict[str, Any]]) -> str:
    """Render the page.

    Args:
        table: One record per finished setting, with the keys of `reid.sweep.table.Line`. The order is kept.

    Returns:
        HTML document.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    scores = ("rank1", "mAP", "control_rank1", "control_mAP")
    lines = [
        {**line, "gain": _gain(line), "scores": {key: percent_with_deviation(line[key]) for key in scores}}
        for line in table
    ]
    columns = _varied(table)
    for line in lines:
        line["cells"] = [_values(line).get(key, MISSING) for key in columns] or [line["name"]]
        named = zip(columns.values(), line["cells"], strict=False)
        line["name"] = ", ".join(f"{name}={cell}" for name, cell in named) or line["name"]
    single = any(len(line["seeds"]) < 2 for line in table)
    return render_page(
        "sweep.html",
        columns=list(columns.values()) or ["setting"],
        lines=lines,
        story=_story(lines),
        charts=_charts(lines),
        warning=SINGLE_SEED if single else "",
    )


def _values(line: dict[str, Any]) -> dict[str, str]:
    """The configuration of a line, and the value of each key that the grid set."""
    return {"config": line["config"].removesuffix(".yaml"), **dict(line["setting"])}


def _varied(table: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Each key that differs between lines, and its heading: the last part of its name where that is unique."""
    values = [_values(line) for line in table]
    keys = dict.fromkeys(key for line in values for key in line)
    varied = [key for key in keys if len({line.get(key) for line in values}) > 1]
    if len({tuple(line.get(key) for key in varied) for line in values}) < len(values):
        return {}  # Rows of an earlier version do not say what they varied; their names do.
    short = [key.rpartition(".")[2] for key in varied]
    return {key: key if short.count(name) > 1 else name for key, name in zip(varied, short, strict=True)}


def _story(table: Sequence[dict[str, Any]]) -> list[str]:
    """How many trainings there were, the best setting, and how many settings end above their controls."""
    if not table:
        return []
    best = max(table, key=lambda line: line["mAP"][0])
    runs = sum(len(line["seeds"]) for line in table)
    sentences = [
        f"{runs} training run{'' if runs == 1 else 's'} of {len(table)} setting{'' if len(table) == 1 else 's'}.",
        f"The highest mAP is {percent_with_deviation(best['mAP'])} %, of {best['name']}.",
    ]
    controlled = [line for line in table if line["control_mAP"]]
    if controlled:
        higher = sum(line["mAP"][0] > line["control_mAP"][0] for line in controlled)
        sentences.append(f"RRI ends with a higher mAP than its control in {higher} of {len(controlled)}.")
    return sentences


def _gain(line: dict[str, Any]) -> str:
    if not (line["control_rank1"] and line["control_mAP"]):
        return MISSING
    final, control = ({key: line[f"{run}{key}"][0] for key in ("rank1", "mAP")} for run in ("", "control_"))
    return " / ".join(difference_text(final, control, key, line.get("gain")) for key in final)


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
