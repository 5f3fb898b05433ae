"""Names of runs, networks and stages, and the result of a run in words and numbers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from reid.report.history import History
from reid.report.tables import percent, shown_difference

STAGES = {"step0": "Step 0", "decorrelate": "decorrelate", "restraint": "Restraint", "relaxation": "Relaxation"}
RUNS = {"rri": "RRI", "control": "control"}


def network_name(config: dict[str, Any]) -> str:
    """Describe the network of a run.

    Args:
        config: Content of `config.yaml`, which may lack any key.

    Returns:
        Backbone, initial weights, image size and seed.
    """
    model, image = config.get("MODEL") or {}, config.get("INPUT") or {}
    weights = str(model.get("WEIGHTS", ""))
    start = {"none": "from scratch", "imagenet": "ImageNet weights", "": "weights unknown"}
    parts = [str(model.get("BACKBONE", "backbone unknown")), start.get(weights, f"weights {Path(weights).name}")]
    if image.get("SIZE"):
        parts.append("×".join(map(str, image["SIZE"])))
    return ", ".join([*parts, *([f"seed {config['SEED']}"] if "SEED" in config else [])])


def stage_name(history: History, entry: Mapping[str, Any]) -> str:
    """Name a stage.

    Args:
        history: Run that the entry belongs to.
        entry: A row or an event of it.

    Returns:
        The stage with its round, or with "final" if it belongs to a final Restraint.
    """
    name, round = STAGES[entry["stage"]], entry["round"]
    if round and round == history.final_restraint:
        return f"final {name}"
    return f"{name} {round}" if round else name


def last_event_name(history: History) -> str:
    """Name what the log of a run ends with.

    Args:
        history: A run with at least one event.

    Returns:
        The stage, and the epoch if the stage is unfinished.
    """
    last = history.events[-1]
    return stage_name(history, last) + (f", epoch {last['epoch']}" if last["kind"] == "epoch" else "")


def result(history: History) -> dict[str, Any]:
    """Collect the final score, that of the control, and the gain if the two can be compared.

    Args:
        history: Run, finished or not.

    Returns:
        "final" and "control" (SCOREs or None), "gain" (rank-1 and mAP in points, or None), "difference" (as in
        `scores.json`: the same with intervals, as fractions, or None), "after" (the stage of the final score) and
        "note" (why there is no gain).
    """
    rows = history.rows_of("rri")
    found: dict[str, Any] = {"final": None, "control": None, "gain": None, "difference": None}
    found |= {"after": "", "note": ""}
    if not rows:
        return {**found, "note": "No stage has ended yet, so there is no score."}
    found["final"] = history.score(rows[-1])
    found["after"] = stage_name(history, rows[-1])
    if history.control_complete:
        found["control"] = history.score(history.rows_of("control")[-1])
        if found["final"] and found["control"]:
            gain = {name: shown_difference(found["final"][name], found["control"][name]) for name in ("rank1", "mAP")}
            return {**found, "gain": gain, "difference": history.difference}
    if not _has_control(history):
        note = "No control was trained, so no gain is reported: more epochs alone raise the scores too."
    elif history.stopped:
        note = "The control has not ended yet, so no gain is reported."
    else:
        note = "The control is trained after RRI has ended; until then no gain is reported."
    return {**found, "note": note}


def story(history: History) -> list[str]:
    """Tell a run in three sentences: what ran, what came out, and how that compares with the control.

    Args:
        history: Run, finished or not.

    Returns:
        Sentences, fewer while there is no score, or no control to compare with.
    """
    rows, outcome = history.rows_of("rri"), result(history)
    if not rows:
        return []
    rounds = sum(row["stage"] == "relaxation" for row in rows)
    iterated = f", then {rounds} round{'' if rounds == 1 else 's'} of decorrelation, Restraint and Relaxation"
    backbone, epochs = network_name(history.config).partition(",")[0], sum(row["epochs"] for row in rows)
    sentences = [
        f"SVDNet with {backbone} was trained on {history.dataset} for {epochs} epochs: "
        f"Step 0{iterated if rounds else ''}{', and a final Restraint' if history.final_restraint else ''}."
    ]
    final, control = outcome["final"], outcome["control"]
    if final:
        change = "" if len(rows) == 1 else f", and S(W) went from {_correlation(rows[0])} to {_correlation(rows[-1])}"
        sentences.append(
            f"After {outcome['after']}, the first result is right for {percent(final['rank1'])} % of the queries "
            f"(rank-1), mAP is {percent(final['mAP'])} %{change}."
        )
    if outcome["gain"]:
        gains = [_gain(outcome, key, name) for key, name in (("rank1", "rank-1"), ("mAP", "mAP"))]
        reached = f"{percent(control['rank1'])} % and {percent(control['mAP'])} %"
        sentences.append(
            f"The control, trained for as many epochs without replacements, reaches {reached}: a gain "
            f"of {' and '.join(gains)}. Another training seed may give another gain."
        )
    return sentences


def _correlation(row: Mapping[str, Any]) -> str:
    return f"{row['correlation']:.4f}"


def _gain(outcome: Mapping[str, Any], key: str, name: str) -> str:
    """A gain over the control with its interval, and whether chance alone may have made it."""
    text = f"{outcome['gain'][key]:+.1f} points of {name}"
    interval = (outcome.get("difference") or {}).get(key)
    if interval is None:
        return text
    low, high = (100 * bound for bound in interval[1:])
    chance = ", which chance alone may explain" if low <= 0 <= high else ""
    return f"{text} (95 % interval {low:+.1f} to {high:+.1f}{chance})"


def ending(history: History) -> str:
    """Describe why RRI stopped, or how far it got.

    Args:
        history: Run, finished or not.

    Returns:
        One or more sentences.
    """
    rounds = sum(row["stage"] == "relaxation" for row in history.rows_of("rri"))
    times = f"{rounds} round{'' if rounds == 1 else 's'}"
    rri = history.config.get("RRI") or {}
    final = " A final Restraint followed." if history.final_restraint else ""
    if history.stopped == "converged":
        limit = f" by more than {rri['TOLERANCE']:g} (RRI.TOLERANCE)" if "TOLERANCE" in rri else ""
        patience = rri.get("PATIENCE", 1)
        waited = f" for {patience} rounds (RRI.PATIENCE)" if patience > 1 else ""
        text = f"Converged after {times}: S(W) after Relaxation no longer rose{limit}{waited}.{final}"
    elif history.stopped == "max_rounds":
        text = f"Stopped at the limit of {times} (RRI.MAX_ROUNDS) before S(W) had converged.{final}"
    else:
        text = "Unfinished: RRI has not ended."
    if history.stopped and (history.control_complete or not _has_control(history)):
        return text
    if history.stopped:
        text += " Unfinished: the control has not ended."
    if not history.events:
        return f"{text} No epoch has been logged."
    run = history.events[-1]["run"]
    return f"{text} The log ends with {RUNS.get(run, run)}, {last_event_name(history)}."


def provenance_rows(start: Mapping[str, Any]) -> list[tuple[str, str]]:
    """List where results came from, for the macro `provenance`.

    Args:
        start: A record with "command", "commit", "versions" and "machine", each of which may be missing.

    Returns:
        (name, value) of what is known.
    """
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


def _has_control(history: History) -> bool:
    return bool((history.config.get("RRI") or {}).get("CONTROL") or history.rows_of("control"))
