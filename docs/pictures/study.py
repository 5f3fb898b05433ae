"""Draw the pictures of docs/science.md from docs/results/study.jsonl.

    python docs/pictures/study.py [ROWS]

paths.svg: mAP against S(W) after every stage, the mean over seeds, a panel per recipe and a color per arm.
prediction.svg: mAP at the end of every run against what might predict it.
"""

from __future__ import annotations

import argparse
import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

from reid.errors.command import run_command
from reid.report.figures import style

HERE = Path(__file__).parent
ROWS = HERE.parent / "results" / "study.jsonl"
COLORS = (
    "#59636e",
    "#0b5cc4",
    "#bc4c00",
    "#1a7f37",
    "#8250df",
    "#cf222e",
    "#9a6700",
    "#1b7c83",
    "#24292f",
    "#bf3989",
    "#6e7781",
    "#116329",
)
PREDICTORS = {
    "S(W)": lambda run: run["correlation"],
    "S(C) of the features": lambda run: run["geometry"]["feature_correlation"],
    "effective rank of the features": lambda run: run["geometry"]["feature_effective_rank"],
    "severest pair of W": lambda run: run["geometry"]["severest_pair"],
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path, nargs="?", default=ROWS)
    rows = [json.loads(line) for line in parser.parse_args().rows.read_text(encoding="utf-8").splitlines()]
    runs = [row for row in rows if "seed" in row]
    with style(), rc_context({"grid.color": "#d9dee3"}):
        for name, figure in (("paths", draw_paths(runs)), ("prediction", draw_prediction(runs))):
            handles, labels = figure.axes[0].get_legend_handles_labels()
            figure.legend(handles, labels, loc="outside lower center", ncol=4)
            FigureCanvasSVG(figure).print_svg(HERE / f"{name}.svg", metadata={"Date": None})


def draw_paths(runs: list[dict[str, Any]]) -> Figure:
    """mAP of the Eigenlayer's input against S(W), stage by stage."""
    recipes, colors = _recipes(runs), _colors(runs)
    figure = Figure((9.0, 4.6), facecolor="white", layout="constrained")
    for axes, recipe in zip(figure.subplots(1, len(recipes), squeeze=False)[0], recipes, strict=True):
        for arm, color in colors.items():
            own = [run["stages"] for run in runs if (run["recipe"], run["arm"]) == (recipe, arm)]
            if own:
                x, y = (np.mean([[point[k] for point in map(_point, stages)] for stages in own], 0) for k in (0, 1))
                axes.plot(x, y, color=color, marker="o", markersize=2.5, linewidth=1, label=arm)
                axes.plot(x[-1], y[-1], color=color, marker="o", markersize=7)
        axes.set(xscale="log", xlabel="S(W)", ylabel="mAP, %", title=recipe)
    return figure


def draw_prediction(runs: list[dict[str, Any]]) -> Figure:
    """mAP at the end of the runs, a marker per recipe."""
    colors, markers = _colors(runs), dict(zip(_recipes(runs), "os^v", strict=False))
    figure = Figure((9.0, 6.4), facecolor="white", layout="constrained")
    for axes, (name, value) in zip(figure.subplots(2, 2).flat, PREDICTORS.items(), strict=True):
        groups = defaultdict[tuple[str, str], list[tuple[float, float]]](list)
        for run in runs:
            groups[run["recipe"], run["arm"]].append((value(run), 100 * run["mAP"]))
        for (recipe, arm), points in groups.items():
            label = arm if recipe == next(iter(markers)) else None
            axes.scatter(*zip(*points, strict=True), color=colors[arm], marker=markers[recipe], s=16, label=label)
        axes.set(xlabel=name, ylabel="mAP, %", xscale="log" if name == "severest pair of W" else "linear")
        axes.set_axisbelow(True)
    return figure


def _point(stage: dict[str, Any]) -> tuple[float, float]:
    return stage["correlation"], 100 * stage["input"][1]


def _recipes(runs: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(run["recipe"] for run in runs))


def _colors(runs: list[dict[str, Any]]) -> dict[str, str]:
    return dict(zip(dict.fromkeys(run["arm"] for run in runs), COLORS, strict=False))


if __name__ == "__main__":
    run_command(main)
