"""The training report: `report.html` of a run folder, one file that opens anywhere."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.report.history import History, read_history
from reid.run import write_text

STAGES = {"step0": "Step 0", "decorrelate": "decorrelate", "restraint": "Restraint", "relaxation": "Relaxation"}
SHORT = {"step0": "Step 0", "decorrelate": "decorr.", "restraint": "Restr.", "relaxation": "Relax."}
RUNS = {"rri": "RRI", "control": "control"}


def check_available() -> None:
    """Raise InputError where the libraries of the extra `report` are missing; asked before a long training."""
    missing = [name for name in ("jinja2", "matplotlib") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"a report needs {' and '.join(missing)}: pip install 'reid[report]'")


def write_report(run: Path) -> Path:
    """Write `report.html` into a run folder from its `config.yaml`, `log.jsonl` and `scores.json` alone.

    A run cut short is reported as far as it went, and called unfinished. Raises InputError where the folder holds no
    run or the extra `report` is missing. Returns the path written.
    """
    check_available()
    path = run / "report.html"
    write_text(path, render(read_history(run)))
    return path


def render(history: History) -> str:
    """The page as text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda fraction: f"{100 * fraction:.1f}"
    return environment.get_template("training.html").render(
        dataset=history.dataset,
        network=_network(history.config),
        variant=_variant_name(history.variant),
        chosen=history.variant,
        result=_result(history),
        ending=_ending(history),
        relaxed=[(row["round"], row["correlation"]) for row in history.of("rri") if row["stage"] == "relaxation"],
        times=_times(history),
        stages=[_stage_cells(history, row) for row in history.rows],
        finals=_finals(history),
        charts=_charts(history),
        unread=history.unread,
        provenance=_provenance(history.start),
        config_text=history.config_text,
    )


def _network(config: dict[str, Any]) -> str:
    model, image = config.get("MODEL") or {}, config.get("INPUT") or {}
    weights = str(model.get("WEIGHTS", ""))
    start = {"none": "from scratch", "imagenet": "ImageNet weights", "": "weights unknown"}
    parts = [str(model.get("BACKBONE", "backbone unknown")), start.get(weights, f"weights {Path(weights).name}")]
    if image.get("SIZE"):
        parts.append("×".join(map(str, image["SIZE"])))
    return ", ".join([*parts, *([f"seed {config['SEED']}"] if "SEED" in config else [])])


def _variant_name(variant: dict[str, Any]) -> str:
    normalized = "L2-normalised" if variant["normalized"] else "raw"
    return f"Eigenlayer {variant['feature']}, {normalized}, {'flip test' if variant['flip'] else 'no flip test'}"


def _stage_name(history: History, stage: str, round: int, names: dict[str, str] = STAGES) -> str:
    if round and round == history.final_restraint:
        return f"final {names[stage]}"
    return f"{names[stage]} {round}" if round else names[stage]


def _result(history: History) -> dict[str, Any]:
    """The headline: the final score, the control's, and the gain only where the two can be compared."""
    rows = history.of("rri")
    result: dict[str, Any] = {"final": None, "control": None, "gain": None, "after": "", "note": ""}
    if not rows:
        return {**result, "note": "No stage has ended yet, so there is no score."}
    result["final"] = history.score(rows[-1])
    result["after"] = _stage_name(history, rows[-1]["stage"], rows[-1]["round"])
    wanted = bool((history.config.get("RRI") or {}).get("CONTROL")) or bool(history.of("control"))
    if history.control_complete:
        result["control"] = history.score(history.of("control")[-1])
        if result["final"] and result["control"]:
            gain = {name: 100 * (result["final"][name] - result["control"][name]) for name in ("rank1", "mAP")}
            return {**result, "gain": gain}
    if not wanted:
        note = "No control was trained, so no gain is claimed: more epochs alone raise the scores too."
    elif history.stopped:
        note = "The control has not ended yet, so no gain is claimed."
    else:
        note = "The control follows when RRI has ended; until then no gain is claimed."
    return {**result, "note": note}


def _ending(history: History) -> str:
    """Why RRI stopped, or how far it came."""
    rounds = sum(row["stage"] == "relaxation" for row in history.of("rri"))
    times = f"{rounds} round{'' if rounds == 1 else 's'}"
    rri = history.config.get("RRI") or {}
    final = " A final Restraint followed." if history.final_restraint else ""
    if history.stopped == "converged":
        limit = f" by more than {rri['TOLERANCE']:g} (RRI.TOLERANCE)" if "TOLERANCE" in rri else ""
        waited = rri.get("PATIENCE", 1)
        patience = f" for {waited} rounds (RRI.PATIENCE)" if waited > 1 else ""
        text = f"Converged after {times}: S(W) after Relaxation no longer rose{limit}{patience}.{final}"
    elif history.stopped == "max_rounds":
        text = f"Stopped at the limit of {times} (RRI.MAX_ROUNDS), before S(W) had settled.{final}"
    else:
        text = "Unfinished: RRI has not come to its end."
    control = (history.config.get("RRI") or {}).get("CONTROL") or history.of("control")
    if history.stopped and (history.control_complete or not control):
        return text
    if history.stopped:
        text += " Unfinished: the control has not come to its end."
    if not history.events:
        return f"{text} No epoch has been logged."
    last = history.events[-1]
    name = f"{RUNS.get(last['run'], last['run'])}, {_stage_name(history, last['stage'], last['round'])}"
    return f"{text} The log ends with {name}{', epoch ' + str(last['epoch']) if last['kind'] == 'epoch' else ''}."


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
    score = history.score(row)
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
        "rank1": f"{100 * score['rank1']:.1f}" if score else "–",
        "mAP": f"{100 * score['mAP']:.1f}" if score else "–",
    }


def _finals(history: History) -> list[dict[str, Any]]:
    """Every score of the last row of each run."""
    return [
        {"run": name, "after": _stage_name(history, rows[-1]["stage"], rows[-1]["round"]), "scores": rows[-1]["scores"]}
        for run, name in RUNS.items()
        if (rows := history.of(run)) and rows[-1]["scores"]
    ]


def _provenance(start: dict[str, Any]) -> list[tuple[str, str]]:
    machine, versions = start.get("machine") or {}, start.get("versions") or {}
    facts = {
        "command": start.get("command"),
        "commit": start.get("commit"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "processor": machine.get("processor"),
        "threads": machine.get("threads"),
        "GPU": machine.get("gpu") or ("none" if machine else None),
    }
    return [(name, str(value)) for name, value in facts.items() if value]


def _charts(history: History) -> list[dict[str, Any]]:
    """Title, SVG, text alternative and caption of each chart for which there is something to draw."""
    from reid.report import figures

    charts: list[dict[str, Any]] = []

    def add(title: str, svg: str, alt: str, caption: str, *, wide: bool = False) -> None:
        charts.append({"title": title, "svg": svg, "alt": f"{title}. {alt}", "caption": caption, "wide": wide})

    bands, jumps = history.bands(), history.jumps("rri")
    if bands:
        curves = {run: history.curve(run, "correlation") for run in RUNS}
        caption = "1: the weight vectors are orthogonal."
        if jumps:
            caption += " Numbers above the bands are rounds; each starts with a replacement."
        if curves["control"]:
            caption += " The control trains on from the end of Step 0 without any."
        alt = _listed(history, lambda row: f"{row['correlation']:.3f}")
        add("S(W) of the Eigenlayer", figures.correlation_chart(curves, bands), alt, caption, wide=True)
        losses = {run: history.curve(run, "loss") for run in RUNS}
        caption = "Lines: mean over each epoch, with augmentation."
        if jumps:
            caption += (
                " Circles: the same loss in evaluation mode on training images as they are, just before and just after"
                " a replacement; their distance is its jump."
            )
        alt = _listed(history, lambda row: f"{row['train_loss']:.2f}")
        add("Training loss", figures.loss_chart(losses, bands, jumps), alt, caption, wide=True)
    stages = [(row["stage"], row["round"]) for row in history.of("rri")]
    labels = [_stage_name(history, *stage, names=SHORT) for stage in stages]
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        series = {run: [_percent(history, run, stage, key) for stage in stages] for run in RUNS}
        if len(series["control"]) > 1 and any(value is not None for value in series["control"]):
            series["control"][0] = series["rri"][0]  # both start from the same Step 0
        if any(value is not None for value in series["rri"]):
            alt = "; ".join(
                f"{RUNS[run]}: " + ", ".join(f"{a} {v:.1f}" for a, v in zip(labels, s, strict=True) if v is not None)
                for run, s in series.items()
                if any(v is not None for v in s)
            )
            caption = f"At the end of each stage; {_variant_name(history.variant)}."
            add(f"{name} per stage", figures.stages_chart(labels, series, name), alt, caption)
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
    for colour, name, rows in shown:
        for row in rows:
            label = f"{name}, {_stage_name(history, row['stage'], row['round'])}".lstrip(", ")
            found.append((colour, label, history.cmc(row)))
    return [curve for curve in found if curve[2]]


def _curve_name(history: History) -> str:
    # The log keeps one curve a feature, from the evaluation that every stage gets.
    return _variant_name(history.variant).rpartition(", ")[0]


def _percent(history: History, run: str, stage: tuple[str, int], key: str) -> float | None:
    score = history.score(history.row(run, *stage))
    return 100 * score[key] if score else None


def _listed(history: History, value: Callable[[dict[str, Any]], str]) -> str:
    """The rows of each run in words, for those who do not see the chart."""
    lines = []
    for run, name in RUNS.items():
        rows = history.of(run)
        if rows:
            told = ", ".join(f"{_stage_name(history, row['stage'], row['round'])} {value(row)}" for row in rows)
            lines.append(f"{name}, at the end of each stage: {told}")
    return "; ".join(lines) or "No stage has ended yet"
