"""The training report: `report.html` of a run folder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from reid.report.examples import read_examples
from reid.report.history import History, read_history
from reid.report.pages import Chart, check_available, render_page, write_page
from reid.report.summary import RUNS, STAGES, ending, network_name, provenance_rows, result, stage_name, story
from reid.report.tables import MISSING, percent, variant_name
from reid.report.thumbnails import FRAME


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the report of a run from its `config.yaml`, `log.jsonl` and `scores.json`.

    An interrupted run is reported as far as it went and marked as unfinished.

    Args:
        run: OUTPUT_DIR of the run.
        output: File to write, by default `report.html` in the run folder.

    Returns:
        Path of the HTML file.

    Raises:
        InputError: If the folder holds no run, or the extra `report` is not installed.
    """
    check_available()
    return write_page(output or run / "report.html", render(read_history(run)))


def render(history: History) -> str:
    """Render the report.

    Args:
        history: Run, finished or not.

    Returns:
        HTML document.
    """
    charts, examples = _charts(history), read_examples(history.folder)
    finals = _finals(history)
    sections = (
        ("charts", "Charts", charts),
        ("examples", "Examples", examples),
        ("stages", "Stages", history.rows),
        ("scores", "All scores", finals),
        ("provenance", "Provenance", True),
    )
    return render_page(
        "training.html",
        story=story(history),
        examples=examples,
        frame=FRAME,
        contents=[(f"section-{name}", title) for name, title, filled in sections if filled],
        dataset=history.dataset,
        network=network_name(history.config),
        variant=variant_name(history.variant),
        chosen=history.variant,
        result=result(history),
        ending=ending(history),
        relaxed=[row["correlation"] for row in history.rows_of("rri") if row["stage"] == "relaxation"],
        times=_times(history),
        stages=[_stage_cells(history, row) for row in history.rows],
        finals=finals,
        charts=charts,
        unread=history.unread,
        provenance=provenance_rows(history.start),
        config_text=history.config_text,
    )


def _times(history: History) -> list[str]:
    """Seconds of training and of decorrelation per run, from its rows."""
    lines = []
    for run, name in RUNS.items():
        rows = history.rows_of(run)
        if rows:
            algebra = sum(row["seconds"] for row in rows if row["stage"] == "decorrelate")
            trained = sum(row["seconds"] for row in rows) - algebra
            lines.append(f"{name}: {trained / 60:.1f} min of training, {algebra:.1f} s of decorrelation and S(W)")
    return lines


def _stage_cells(history: History, row: dict[str, Any]) -> dict[str, str]:
    loss = f"{row['train_loss']:.3f}"
    if "train_loss_before" in row:
        loss = f"{row['train_loss_before']:.3f} → {row['train_loss_after']:.3f}"
    final = row["round"] == history.final_restraint
    return {
        "run": RUNS.get(row["run"], row["run"]),
        "stage": f"{'final ' if final else ''}{STAGES.get(row['stage'], row['stage'])}",
        "round": str(row["round"] or MISSING),
        "epochs": str(row["epochs"] or MISSING),
        "seconds": f"{row['seconds']:.{1 if row['seconds'] >= 10 else 2}f}",
        "loss": loss,
        "correlation": f"{row['correlation']:.4f}",
        "rank1": _score_cell(history, "rank1", row),
        "mAP": _score_cell(history, "mAP", row),
    }


def _finals(history: History) -> list[dict[str, Any]]:
    """All scores of the last row of each run."""
    return [
        {"run": name, "after": stage_name(history, rows[-1]), "scores": rows[-1]["scores"]}
        for run, name in RUNS.items()
        if (rows := history.rows_of(run)) and rows[-1]["scores"]
    ]


def _charts(history: History) -> list[Chart]:
    """The charts for which there is data."""
    charts: list[Chart] = []
    if history.bands():
        charts += [_correlation_chart(history), _loss_chart(history)]
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        if history.score_curve("rri", key):
            charts.append(_score_chart(history, key, name))
    replaced = [row for row in history.rows_of("rri") if row.get("spectrum_before") and row.get("spectrum_after")]
    if replaced:
        charts.append(_spectra_chart(replaced))
    curves = _cmc_curves(history)
    if curves:
        charts.append(_cmc_chart(history, curves))
    return charts


def _correlation_chart(history: History) -> Chart:
    from reid.report import training_figures as figures
    from reid.report.figures import NARROW, WIDE

    curves = {run: history.curve(run, "correlation") for run in RUNS}
    caption = "At 1 the weight vectors are orthogonal."
    if history.jumps("rri"):
        caption += " Numbers above the bands are rounds, each of which starts with a replacement."
    if curves["control"]:
        caption += " The control continues from the end of Step 0 without replacements."
    svg, small = (figures.correlation_chart(curves, history.bands(), size=size) for size in (WIDE, NARROW))
    alt = _listed(history, lambda row: f"{row['correlation']:.3f}")
    return Chart("S(W) of the Eigenlayer", svg, alt, caption, wide=True, small=small)


def _loss_chart(history: History) -> Chart:
    from reid.report import training_figures as figures
    from reid.report.figures import NARROW, WIDE

    curves, jumps = {run: history.curve(run, "loss") for run in RUNS}, history.jumps("rri")
    caption = "Lines: mean over each epoch, with augmentation."
    if jumps:
        caption += (
            " Circles: the same loss in evaluation mode on unaugmented training images, just before and just after each"
            " replacement."
        )
    svg, small = (figures.loss_chart(curves, history.bands(), jumps, size=size) for size in (WIDE, NARROW))
    alt = _listed(history, lambda row: f"{row['train_loss']:.2f}")
    return Chart("Training loss", svg, alt, caption, wide=True, small=small)


def _score_chart(history: History, key: str, name: str) -> Chart:
    from reid.report import training_figures as figures

    scores = {run: [(x, 100 * y) for x, y in history.score_curve(run, key)] for run in RUNS}
    caption = f"Measured at the end of each stage, in percent; {variant_name(history.variant)}."
    alt = _listed(history, partial(_score_cell, history, key))
    return Chart(name, figures.score_chart(scores, history.bands(), name), alt, caption)


def _spectra_chart(rows: Sequence[dict[str, Any]]) -> Chart:
    from reid.report import training_figures as figures

    spectra = [(row["round"], row["spectrum_before"], row["spectrum_after"]) for row in rows]
    alt = "; ".join(f"round {n}: largest {b[0]:.3g} before, {a[0]:.3g} after" for n, b, a in spectra)
    caption = "Singular values of W before (solid) and after (dotted) each replacement."
    if all(row.get("variant") == "US" for row in rows):
        caption += " The replacement by US preserves them, so the lines coincide."
    return Chart("Spectrum of the Eigenlayer", figures.spectra_chart(spectra), alt, caption)


def _cmc_chart(history: History, curves: Sequence[tuple[str, str, list[float]]]) -> Chart:
    from reid.report import training_figures as figures

    alt = "; ".join(f"{label}: {percent(curve[0])} % at rank 1" for _, label, curve in curves)
    # The log has one curve per feature, without the flip test.
    variant = variant_name(history.variant).rpartition(", ")[0]
    caption = f"Share of queries whose first true match is at this rank or before; {variant}."
    return Chart("CMC", figures.cmc_chart(curves), alt, caption)


def _cmc_curves(history: History) -> list[tuple[str, str, list[float]]]:
    rri, control = history.rows_of("rri"), history.rows_of("control")
    shown = [("rri", "RRI", rri[-1:]), ("control", "control", control[-1:]), ("step0", "", rri[:1] if rri[1:] else [])]
    curves = []
    for color, name, rows in shown:
        for row in rows:
            label = f"{name}, {stage_name(history, row)}".lstrip(", ")
            curves.append((color, label, history.cmc(row)))
    return [curve for curve in curves if curve[2]]


def _score_cell(history: History, key: str, row: dict[str, Any]) -> str:
    score = history.score(row)
    return percent(score[key] if score else None)


def _listed(history: History, value: Callable[[dict[str, Any]], str]) -> str:
    """Text alternative of a chart: a value for each row of each run."""
    lines = []
    for run, name in RUNS.items():
        rows = history.rows_of(run)
        if rows:
            values = ", ".join(f"{stage_name(history, row)} {value(row)}" for row in rows)
            lines.append(f"{name}, at the end of each stage: {values}")
    return "; ".join(lines) or "No stage has ended yet"
