"""What a run is and what it came to, in words and in the numbers that its files hold."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid.report.history import History

STAGES = {"step0": "Step 0", "decorrelate": "decorrelate", "restraint": "Restraint", "relaxation": "Relaxation"}
RUNS = {"rri": "RRI", "control": "control"}


def network_name(config: dict[str, Any]) -> str:
    """Backbone, where its weights came from, image size and seed, as far as a configuration tells."""
    model, image = config.get("MODEL") or {}, config.get("INPUT") or {}
    weights = str(model.get("WEIGHTS", ""))
    start = {"none": "from scratch", "imagenet": "ImageNet weights", "": "weights unknown"}
    parts = [str(model.get("BACKBONE", "backbone unknown")), start.get(weights, f"weights {Path(weights).name}")]
    if image.get("SIZE"):
        parts.append("×".join(map(str, image["SIZE"])))
    return ", ".join([*parts, *([f"seed {config['SEED']}"] if "SEED" in config else [])])


def variant_name(variant: dict[str, Any]) -> str:
    """What was compared to get a score: feature, normalized or raw, flip test or none."""
    normalized = "L2-normalized" if variant["normalized"] else "raw"
    return f"Eigenlayer {variant['feature']}, {normalized}, {'flip test' if variant['flip'] else 'no flip test'}"


def stage_name(history: History, stage: str, round: int) -> str:
    """The name of a stage with its round; "final" where it belongs to a final Restraint."""
    if round and round == history.final_restraint:
        return f"final {STAGES[stage]}"
    return f"{STAGES[stage]} {round}" if round else STAGES[stage]


def result(history: History) -> dict[str, Any]:
    """The headline: the final score, the control's, and the gain only where the two can be compared."""
    rows = history.of("rri")
    told: dict[str, Any] = {"final": None, "control": None, "gain": None, "after": "", "note": ""}
    if not rows:
        return {**told, "note": "No stage has ended yet, so there is no score."}
    told["final"] = history.score(rows[-1])
    told["after"] = stage_name(history, rows[-1]["stage"], rows[-1]["round"])
    wanted = bool((history.config.get("RRI") or {}).get("CONTROL")) or bool(history.of("control"))
    if history.control_complete:
        told["control"] = history.score(history.of("control")[-1])
        if told["final"] and told["control"]:
            gain = {name: 100 * (told["final"][name] - told["control"][name]) for name in ("rank1", "mAP")}
            return {**told, "gain": gain}
    if not wanted:
        note = "No control was trained, so no gain is claimed: more epochs alone raise the scores too."
    elif history.stopped:
        note = "The control has not ended yet, so no gain is claimed."
    else:
        note = "The control follows when RRI has ended; until then no gain is claimed."
    return {**told, "note": note}


def ending(history: History) -> str:
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
    name = f"{RUNS.get(last['run'], last['run'])}, {stage_name(history, last['stage'], last['round'])}"
    return f"{text} The log ends with {name}{', epoch ' + str(last['epoch']) if last['kind'] == 'epoch' else ''}."
