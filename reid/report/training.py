"""The training report: `report.html` of a run folder, one file that opens anywhere."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from reid.report.history import History, read_history
from reid.report.pages import Chart, check_available, provenance_facts, render_page, write_page
from reid.report.summary import RUNS, STAGES, ending, network_name, result, stage_name, variant_name


def write_report(run: Path, output: Path | None = None) -> Path:
    """Write the page of a run folder from its `config.yaml`, `log.jsonl` and `scores.json` alone.

    output: the file to write, `report.html` in the run folder unless given.

    A run cut short is reported as far as it went, and called unfinished. Raises InputError where the folder holds no
    run or the extra `report` is missing. Returns the path written.
    """
    check_available()
    return write_page(output or run / "report.html", render(read_history(run)))


def render(history: History) -> str:
    """The page as text."""
    return render_page(
        "training.html",
        dataset=history.dataset,
        network=network_name(history.config),
        variant=variant_name(history.variant),
        chosen=history.variant,
        result=result(history),
        ending=ending(history),
        relaxed=[(row["round"], row["correlation"]) for row in history.of("rri") if row["stage"] == "relaxation"],
        times=_times(history),
        stages=[_stage_cells(history, row) for row in history.rows],
        finals=_finals(history),
        charts=_charts(history),
        unread=history.unread,
        provenance=[(name, str(value)) for name, value in provenance_facts(history.start).items() if value],
        config_text=history.config_text,
    )


def _times(history: History) -> list[str]:
    """Seconds of training and of decorrelation by run, as the rows count them."""
    lines = []
    for run, name in RUNS.items():
        rows = history.of(run)
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
        "round": str(row["round"] or "–"),
        "epochs": str(row["epochs"] or "–"),
        "seconds": f"{row['seconds']:.{1 if row['seconds'] >= 10 else 2}f}",
        "loss": loss,
        "correlation": f"{row['correlation']:.4f}",
        "rank1": _score_cell(history, "rank1", row),
        "mAP": _score_cell(history, "mAP", row),
    }


def _finals(history: History) -> list[dict[str, Any]]:
    """Every score of the last row of each run."""
    return [
        {"run": name, "after": stage_name(history, rows[-1]["stage"], rows[-1]["round"]), "scores": rows[-1]["scores"]}
        for run, name in RUNS.items()
        if (rows := history.of(run)) and rows[-1]["scores"]
    ]


def _charts(history: History) -> list[Chart]:
    """Each chart for which there is something to draw."""
    from reid.report import training_figures as figures
    from reid.report.figures import NARROW, WIDE

    charts: list[Chart] = []

    def add(title: str, svg: str, alt: str, caption: str, *, small: str = "") -> None:
        charts.append(Chart(title, svg, alt, caption, wide=bool(small), small=small))

    bands, jumps = history.bands(), history.jumps("rri")
    if bands:
        curves = {run: history.curve(run, "correlation") for run in RUNS}
        caption = "1: the weight vectors are orthogonal."
        if jumps:
            caption += " Numbers above the bands are rounds; each starts with a replacement."
        if curves["control"]:
            caption += " The control trains on from the end of Step 0 without any."
        alt = _listed(history, lambda row: f"{row['correlation']:.3f}")
        svg, small = (figures.correlation_chart(curves, bands, size=size) for size in (WIDE, NARROW))
        add("S(W) of the Eigenlayer", svg, alt, caption, small=small)
        losses = {run: history.curve(run, "loss") for run in RUNS}
        caption = "Lines: mean over each epoch, with augmentation."
        if jumps:
            caption += (
                " Circles: the same loss in evaluation mode on training images as they are, just before and just after"
                " a replacement; their distance is its jump."
            )
        alt = _listed(history, lambda row: f"{row['train_loss']:.2f}")
        svg, small = (figures.loss_chart(losses, bands, jumps, size=size) for size in (WIDE, NARROW))
        add("Training loss", svg, alt, caption, small=small)
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        scores = {run: [(x, 100 * y) for x, y in history.score_curve(run, key)] for run in RUNS}
        if scores["rri"]:
            alt = _listed(history, partial(_score_cell, history, key))
            caption = f"Measured at the end of each stage, in percent; {variant_name(history.variant)}."
            add(name, figures.score_chart(scores, bands, name), alt, caption)
    replaced = [row for row in history.of("rri") if row.get("spectrum_before") and row.get("spectrum_after")]
    if replaced:
        spectra = [(row["round"], row["spectrum_before"], row["spectrum_after"]) for row in replaced]
        alt = "; ".join(f"round {n}: largest {b[0]:.3g} before, {a[0]:.3g} after" for n, b, a in spectra)
        caption = "Singular values of W before (solid) and after (dotted) each replacement."
        if all(row.get("variant") == "US" for row in replaced):
            caption += " The replacement by US keeps them, so the two lie on each other."
        add("Spectrum of the Eigenlayer", figures.spectra_chart(spectra), alt, caption)
    cmc = _cmc_curves(history)
    if cmc:
        alt = "; ".join(f"{label}: {100 * curve[0]:.1f} % at rank 1" for _, label, curve in cmc)
        caption = f"Share of queries whose first true match stands at this rank or before; {_curve_name(history)}."
        add("CMC", figures.cmc_chart(cmc), alt, caption)
    return charts


def _cmc_curves(history: History) -> list[tuple[str, str, list[float]]]:
    rri, control = history.of("rri"), history.of("control")
    shown = [("rri", "RRI", rri[-1:]), ("control", "control", control[-1:]), ("step0", "", rri[:1] if rri[1:] else [])]
    found = []
    for color, name, rows in shown:
        for row in rows:
            label = f"{name}, {stage_name(history, row['stage'], row['round'])}".lstrip(", ")
            found.append((color, label, history.cmc(row)))
    return [curve for curve in found if curve[2]]


def _curve_name(history: History) -> str:
    # The log keeps one curve a feature, from the evaluation that every stage gets.
    return variant_name(history.variant).rpartition(", ")[0]


def _score_cell(history: History, key: str, row: dict[str, Any]) -> str:
    score = history.score(row)
    return f"{100 * score[key]:.1f}" if score else "–"


def _listed(history: History, value: Callable[[dict[str, Any]], str]) -> str:
    """The rows of each run in words, for those who do not see the chart."""
    lines = []
    for run, name in RUNS.items():
        rows = history.of(run)
        if rows:
            told = ", ".join(f"{stage_name(history, row['stage'], row['round'])} {value(row)}" for row in rows)
            lines.append(f"{name}, at the end of each stage: {told}")
    return "; ".join(lines) or "No stage has ended yet"
