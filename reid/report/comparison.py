"""The comparison of training runs: one page that sets their results, their ways there and their configurations side by
side. Runs on different datasets stand on one page without being ranked against each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import flatten
from reid.report.history import History, read_history
from reid.report.pages import Chart, check_available, render_page, write_page
from reid.report.summary import network_name, result, stage_name, variant_name
from reid.training.run_folder import MOVABLE

Points = Sequence[tuple[float, float]]
Draw = Callable[[Sequence[tuple[str, str, Points]], str, tuple[float, float]], str]
ENDINGS = {"converged": "converged", "max_rounds": "limit of rounds"}


@dataclass(frozen=True)
class Compared:
    """A run on the page. label: its folder, with as much of the path as tells it from the others. line: its place among
    the runs, which gives it the same color and dashes everywhere."""

    label: str
    line: int
    history: History


def write_comparison(runs: Sequence[Path], output: Path) -> Path:
    """Write the page that compares two or more run folders, from their `config.yaml`, `log.jsonl`, `scores.json`.

    A run cut short is shown as far as it went. Raises InputError where fewer than two different folders are given,
    where one holds no run, or where the extra `report` is missing. Returns `output`.
    """
    check_available()
    different = list({run.resolve(): run for run in runs}.values())
    if len(different) < 2:
        raise InputError(f"a comparison takes two runs or more, not {' and '.join(map(str, runs)) or 'none'} alone")
    return write_page(output, render([read_history(run) for run in different]))


def render(histories: Sequence[History]) -> str:
    """The page as text, the runs in the order given, those on the same dataset together."""
    labels = run_labels([history.folder for history in histories])
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
    return render_page(
        "comparison.html",
        datasets=datasets,
        rows=rows,
        notes=list(notes.items()),
        variants=variants,
        labels=[run.label for run in runs if run.history.config],
        differences=differences([run.history for run in runs if run.history.config]),
        without_config=[run.label for run in runs if not run.history.config],
        charts=[chart for group in groups for chart in _charts(group, alone=len(groups) == 1)],
    )


def run_labels(folders: Sequence[Path]) -> list[str]:
    """A name for each of different folders: its own, with those above it where another has the same."""
    parts = [folder.resolve().parts for folder in folders]
    lengths = [1] * len(parts)
    while True:
        names = [Path(*part[-length:]).as_posix() for part, length in zip(parts, lengths, strict=True)]
        clashing = [i for i, name in enumerate(names) if names.count(name) > 1 and lengths[i] < len(parts[i])]
        if not clashing:
            return names
        for i in clashing:
            lengths[i] += 1


def differences(histories: Sequence[History]) -> list[tuple[str, list[str]]]:
    """(key, value in each run) of the configuration keys whose values are not the same in all runs.

    Where a run lives and what it runs on does not count. A key that a run does not have has the value "–".
    """
    flat = [dict(flatten(history.config)) for history in histories]
    keys = dict.fromkeys(key for tree in flat for key in tree if key not in MOVABLE)
    shown = [(key, [_value(tree[key]) if key in tree else "–" for tree in flat]) for key in keys]
    return sorted((key, values) for key, values in shown if len(set(values)) > 1)


def _value(value: Any) -> str:
    return "empty" if value == "" else ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _rows(group: Sequence[Compared]) -> list[dict[str, Any]]:
    """What the tables show of the runs on one dataset; `best`: the scores that no other finished run on it passes."""
    finished = [final for run in group if run.history.stopped and (final := result(run.history)["final"])]
    alike = len(finished) > 1 and len({variant_name(run.history.variant) for run in group}) == 1
    best = {key: max(final[key] for final in finished) for key in ("rank1", "mAP")} if alike else {}
    rows = []
    for run in group:
        history, told = run.history, result(run.history)
        rri, control = history.of("rri"), history.of("control")
        final = told["final"] if history.stopped else None
        rows.append(
            {
                "label": run.label,
                "line": _line(run),
                "dataset": history.dataset,
                "network": network_name(history.config),
                "variant": variant_name(history.variant),
                "step0": history.score(history.row("rri", "step0", 0)),
                **told,
                "best": {key for key in best if final and final[key] == best[key]},
                "correlations": [f"{value:.3f}" for value in _correlations(history)],
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
    return [row["correlation"] for row in history.of("rri") if row["stage"] in ("step0", "relaxation")]


def _seconds(rows: Sequence[dict[str, Any]]) -> str:
    return f"{sum(row['seconds'] for row in rows):,.0f}" if rows else "–"


def _ended(history: History) -> str:
    if history.stopped:
        missing = history.of("control") and not history.control_complete
        return f"{ENDINGS.get(history.stopped, history.stopped)}{', control unfinished' if missing else ''}"
    if not history.events:
        return "unfinished: no epoch"
    last = history.events[-1]
    epoch = f", epoch {last['epoch']}" if last["kind"] == "epoch" else ""
    return f"unfinished: {stage_name(history, last['stage'], last['round'])}{epoch}"


def _line(run: Compared) -> tuple[str, str]:
    from reid.report.figures import line_style

    return line_style(run.line)


def _charts(group: Sequence[Compared], *, alone: bool) -> list[Chart]:
    """The charts of the runs on one dataset. alone: no other dataset is on the page, so that titles need no name."""
    from reid.report import comparison_figures as figures
    from reid.report.figures import NARROW, WIDE

    charts: list[Chart] = []
    where = "" if alone else f", {group[0].history.dataset}"

    def add(
        title: str,
        draw: Draw,
        curve: Callable[[History], Points],
        tell: Callable[[History], str],
        caption: str,
        *,
        wide: bool = False,
    ) -> None:
        shown = [(run, points) for run in group if (points := curve(run.history))]
        if not shown:
            return
        lines = [(*_line(run), points) for run, points in shown]
        sizes = (WIDE, NARROW) if wide else (NARROW, None)
        svg, small = (draw(lines, f"{title}, {group[0].line}", size) if size else "" for size in sizes)
        alt = "; ".join(f"{run.label}: {tell(run.history)}" for run, _ in shown)
        key = tuple((*_line(run), run.label) for run, _ in shown)
        charts.append(Chart(f"{title}{where}", svg, alt, caption, wide, small, key))

    add(
        "S(W) of the Eigenlayer",
        figures.correlation_chart,
        lambda history: history.curve("rri", "correlation"),
        lambda history: _told("S(W) after Step 0 and each Relaxation", [f"{v:.3f}" for v in _correlations(history)]),
        "1: the weight vectors are orthogonal, as a replacement makes them.",
        wide=True,
    )
    add(
        "Training loss",
        figures.loss_chart,
        lambda history: history.curve("rri", "loss"),
        lambda history: _told("at the end of each stage", [f"{row['train_loss']:.2f}" for row in history.of("rri")]),
        "Mean over each epoch, with augmentation.",
        wide=True,
    )
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        add(
            name,
            partial(figures.score_chart, score=name),
            partial(_scores, key),
            partial(_scores_told, key),
            "Measured at the end of each stage of RRI, in percent.",
        )
    add(
        "CMC of the last stage",
        figures.cmc_chart,
        _cmc,
        lambda history: f"{_cmc(history)[0][1]:.1f} % at rank 1",
        "Share of queries whose first true match stands at this rank or before.",
    )
    return charts


def _scores(key: str, history: History) -> list[tuple[float, float]]:
    return [(epoch, 100 * score) for epoch, score in history.score_curve("rri", key)]


def _scores_told(key: str, history: History) -> str:
    return _told("at the end of each stage", [f"{score:.1f}" for _, score in _scores(key, history)])


def _cmc(history: History) -> list[tuple[float, float]]:
    rows = history.of("rri")
    return [(rank, 100 * share) for rank, share in enumerate(history.cmc(rows[-1]), start=1)] if rows else []


def _told(what: str, values: Sequence[str]) -> str:
    return f"{what} {', '.join(values)}" if values else "no stage has ended yet"
