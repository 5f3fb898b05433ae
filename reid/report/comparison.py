"""The comparison of training runs: one page with their results, their progress and their configurations.

Runs on different datasets are shown on one page without being ranked against each other.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import flatten
from reid.report.history import History, read_history
from reid.report.pages import Chart, check_available, distinct_names, render_page, write_page
from reid.report.summary import last_event_name, network_name, result
from reid.report.tables import MISSING, percent, variant_name

Points = Sequence[tuple[float, float]]
ENDS = "at the end of each stage"
ENDINGS = {"converged": "converged", "max_rounds": "limit of rounds"}


@dataclass(frozen=True)
class Compared:
    """A run on the page.

    Attributes:
        label: Its folder, with as much of the path as distinguishes it from the other runs.
        line: Its index among the runs, which determines its color and dashes.
        history: Everything read from the run's files.
    """

    label: str
    line: int
    history: History


def write_comparison(runs: Sequence[Path], output: Path, *, ignored: Collection[str] = ()) -> Path:
    """Write the page that compares runs, from their `config.yaml`, `log.jsonl` and `scores.json`.

    An interrupted run is shown as far as it went.

    Args:
        runs: Two or more run folders.
        output: File to write.
        ignored: Configuration keys whose differences are not shown, such as paths and devices.

    Returns:
        Path of the HTML file.

    Raises:
        InputError: If there are fewer than two different folders, one holds no run, or the extra `report` is not
            installed.
    """
    check_available()
    different = list({run.resolve(): run for run in runs}.values())
    if len(different) < 2:
        raise InputError(f"a comparison needs two different runs or more; given: {', '.join(map(str, runs)) or 'none'}")
    return write_page(output, render([read_history(run) for run in different], ignored))


def render(histories: Sequence[History], ignored: Collection[str] = ()) -> str:
    """Render the comparison.

    Args:
        histories: The runs. On the page, those on the same dataset are grouped.
        ignored: Same as in `write_comparison`.

    Returns:
        HTML document.
    """
    labels = distinct_names([history.folder for history in histories])
    datasets = list(dict.fromkeys(history.dataset for history in histories))
    ordered = sorted(zip(labels, histories, strict=True), key=lambda pair: datasets.index(pair[1].dataset))
    runs = [Compared(label, line, history) for line, (label, history) in enumerate(ordered)]
    groups = [[run for run in runs if run.history.dataset == dataset] for dataset in datasets]
    rows = [row for group in groups for row in _rows(group)]
    notes: dict[str, list[str]] = {}
    for row in rows:
        if row["note"]:
            notes.setdefault(row["note"], []).append(row["label"])
    variants = list(dict.fromkeys(variant_name(run.history.variant) for run in runs))
    charts = [chart for group in groups for chart in _charts(group, only_dataset=len(groups) == 1)]
    sections = [("charts", "Charts")] if charts else []
    sections += [("results", "Results"), ("progress", "Progress")]
    sections += [("differences", "Configurations")] if sum(bool(run.history.config) for run in runs) > 1 else []
    return render_page(
        "comparison.html",
        story=_story(rows, datasets),
        contents=[(f"section-{name}", title) for name, title in sections],
        datasets=datasets,
        rows=rows,
        notes=list(notes.items()),
        variants=variants,
        labels=[run.label for run in runs if run.history.config],
        differences=config_differences([run.history for run in runs if run.history.config], ignored),
        without_config=[run.label for run in runs if not run.history.config],
        charts=charts,
    )


def _story(rows: Sequence[dict[str, Any]], datasets: Sequence[str]) -> list[str]:
    """What was compared, the best of the finished runs, and the gains over the controls."""
    epochs = [row["epochs"] for row in rows]
    span = f"{epochs[0]}" if min(epochs) == max(epochs) else f"{min(epochs)} to {max(epochs)}"
    where = datasets[0] if len(datasets) == 1 else f"{len(datasets)} datasets"
    unfinished = sum(row["ended"].startswith("unfinished") for row in rows)
    ended = f", {unfinished} of them unfinished" if unfinished else ""
    sentences = [f"{len(rows)} runs of {span} epochs on {where}{ended}."]
    for row in rows:
        if "mAP" in row["best"]:
            on = f" on {row['dataset']}" if len(datasets) > 1 else ""
            sentences.append(
                f"The highest mAP{on} is {percent(row['final']['mAP'])} % (rank-1 {percent(row['final']['rank1'])} %), "
                f"of {row['label']}."
            )
    gains = [row["gain"]["mAP"] for row in rows if row["gain"]]
    if len(gains) > 1:
        higher = f"{sum(gain > 0 for gain in gains)} of {len(gains)}"
        span = f"{min(gains):+.1f} to {max(gains):+.1f}"
        sentences.append(f"RRI ends with a higher mAP than its control in {higher} runs; the gains are {span} points.")
    elif gains:
        sentences.append(f"RRI gains {gains[0]:+.1f} points of mAP over its control.")
    return sentences


def config_differences(histories: Sequence[History], ignored: Collection[str] = ()) -> list[tuple[str, list[str]]]:
    """Find the configuration keys whose values differ between runs.

    Args:
        histories: Runs to compare, at least two.
        ignored: Keys to leave out, such as paths and devices.

    Returns:
        (key, value in each run), sorted by key. A key that is missing in a run has the value "–".
    """
    flat = [dict(flatten(history.config)) for history in histories]
    keys = dict.fromkeys(key for tree in flat for key in tree if key not in ignored)
    shown = [(key, [_value(tree[key]) if key in tree else MISSING for tree in flat]) for key in keys]
    return sorted((key, values) for key, values in shown if len(set(values)) > 1)


def _value(value: Any) -> str:
    return "empty" if value == "" else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows(group: Sequence[Compared]) -> list[dict[str, Any]]:
    """Table cells of the runs on one dataset. `best` names the scores that are the highest of the finished runs."""
    finished = [final for run in group if run.history.stopped and (final := result(run.history)["final"])]
    comparable = len(finished) > 1 and len({variant_name(run.history.variant) for run in group}) == 1
    best = {key: max(final[key] for final in finished) for key in ("rank1", "mAP")} if comparable else {}
    rows = []
    for run in group:
        history, outcome = run.history, result(run.history)
        rri, control = history.rows_of("rri"), history.rows_of("control")
        final = outcome["final"] if history.stopped else None
        rows.append(
            {
                "label": run.label,
                "line": _line(run),
                "dataset": history.dataset,
                "network": network_name(history.config),
                "variant": variant_name(history.variant),
                "step0": history.score(next((row for row in rri if row["stage"] == "step0"), None)),
                **outcome,
                "best": {key for key in best if final and final[key] == best[key]},
                "correlations": [f"{value:.4f}" for value in _correlations(history)],
                "rounds": sum(row["stage"] == "relaxation" for row in rri),
                "epochs": sum(row["epochs"] for row in rri),
                "ended": _ended(history),
                "seconds": {"rri": _seconds(rri), "control": _seconds(control)},
                "unread": len(history.unread),
            }
        )
    return rows


def _correlations(history: History) -> list[float]:
    """S(W) after Step 0 and after each Relaxation."""
    return [row["correlation"] for row in history.rows_of("rri") if row["stage"] in ("step0", "relaxation")]


def _seconds(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['seconds'] for row in rows):,.0f}" if rows else MISSING


def _ended(history: History) -> str:
    if history.stopped:
        missing = history.rows_of("control") and not history.control_complete
        return f"{ENDINGS.get(history.stopped, history.stopped)}{', control unfinished' if missing else ''}"
    if not history.events:
        return "unfinished: no epoch"
    return f"unfinished: {last_event_name(history)}"


def _line(run: Compared) -> tuple[str, str]:
    from reid.report.figures import line_style

    return line_style(run.line)


def _charts(group: Sequence[Compared], *, only_dataset: bool) -> list[Chart]:
    """Charts of the runs on one dataset. Titles name the dataset unless it is the only one."""
    from reid.report.comparison_figures import run_chart
    from reid.report.figures import NARROW, WIDE

    charts: list[Chart] = []
    suffix = "" if only_dataset else f", {group[0].history.dataset}"

    def add(
        title: str,
        kind: str,
        curve: Callable[[History], Points],
        describe: Callable[[History], str],
        caption: str,
        *,
        wide: bool = False,
    ) -> None:
        shown = [(run, points) for run in group if (points := curve(run.history))]
        if not shown:
            return
        lines = [(*_line(run), points) for run, points in shown]
        sizes = (WIDE, NARROW) if wide else (NARROW, None)
        svg, small = (run_chart(kind, lines, f"{title}, {group[0].line}", size) if size else "" for size in sizes)
        alt = "; ".join(f"{run.label}: {describe(run.history)}" for run, _ in shown)
        key = tuple((*_line(run), run.label) for run, _ in shown)
        charts.append(Chart(f"{title}{suffix}", svg, alt, caption, wide, small, key))

    add(
        "S(W) of the Eigenlayer",
        "correlation",
        lambda history: history.curve("rri", "correlation"),
        lambda history: _described("S(W) after Step 0 and each Relaxation", _correlations(history), ".3f"),
        "At 1 the weight vectors are orthogonal, as after a replacement.",
        wide=True,
    )
    add(
        "Training loss",
        "loss",
        lambda history: history.curve("rri", "loss"),
        lambda history: _described(ENDS, [row["train_loss"] for row in history.rows_of("rri")], ".2f"),
        "Mean over each epoch, with augmentation.",
        wide=True,
    )
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        add(
            name,
            name,
            partial(_scores, key),
            partial(_scores_described, key),
            "Measured at the end of each stage of RRI, in percent.",
        )
    add(
        "CMC of the last stage",
        "cmc",
        _cmc,
        lambda history: f"{_cmc(history)[0][1]:.1f} % at rank 1",
        "Share of queries whose first true match is at this rank or before.",
    )
    return charts


def _scores(key: str, history: History) -> list[tuple[float, float]]:
    return [(epoch, 100 * score) for epoch, score in history.score_curve("rri", key)]


def _scores_described(key: str, history: History) -> str:
    return _described(ENDS, [score for _, score in _scores(key, history)], ".1f")


def _cmc(history: History) -> list[tuple[float, float]]:
    rows = history.rows_of("rri")
    return [(rank, 100 * share) for rank, share in enumerate(history.cmc(rows[-1]), start=1)] if rows else []


def _described(what: str, values: Sequence[float], form: str) -> str:
    return f"{what} {', '.join(format(value, form) for value in values)}" if values else "no stage has ended yet"
