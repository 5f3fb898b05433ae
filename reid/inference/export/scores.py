"""Evaluation scores of a checkpoint, from the files that a run or an evaluation wrote."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.inference.export.interface import ExportInterface
from reid.io.reading import read_file
from reid.report.entries import is_difference, is_row, is_score

METRICS = ("rank1", "rank5", "rank10", "mAP", "mINP")
_CHECKPOINT_NAME = re.compile(r"(?P<run>rri|control)_(?:(?P<last>last)|(?:r(?P<round>\d+)_)?(?P<stage>[a-z0-9]+))")


@dataclass(frozen=True)
class MeasuredScores:
    """Scores of one network.

    Attributes:
        dataset: Name of the test dataset.
        scores: Rows with `feature`, `normalized`, `flip` and fractions under the names of `METRICS`.
        source: Name of the file they were read from.
        gain: "final", "control_final" and "difference" of the `scores.json` of a run whose last network this is, with a
            control of equal epochs; None otherwise.
    """

    dataset: str
    scores: tuple[dict[str, Any], ...]
    source: str
    gain: dict[str, Any] | None = None

    def for_interface(self, interface: ExportInterface) -> dict[str, Any] | None:
        """Find the scores that apply to an exported file.

        Args:
            interface: Outputs of the file.

        Returns:
            The row with the same feature, normalization and flip test, or None.
        """
        variant = (interface.feature, interface.normalized, interface.flip)
        return next((s for s in self.scores if (s["feature"], s["normalized"], s["flip"]) == variant), None)


def read_scores(path: Path) -> MeasuredScores:
    """Read an `evaluation.json`.

    Args:
        path: An `evaluation.json` written by `svdnet evaluate`.

    Returns:
        Its scores.

    Raises:
        InputError: If the file is missing or is not an `evaluation.json`.
    """
    content = _read_evaluation(path)
    if content is None or not content["scores"]:
        raise InputError(f"{path}: not an evaluation.json as svdnet evaluate writes it")
    return MeasuredScores(content["dataset"], tuple(content["scores"]), path.name)


def find_scores(checkpoint: Path, correlation: float, model_id: str) -> MeasuredScores | None:
    """Find the scores of a checkpoint in its run's `scores.json`, or in an `evaluation.json` in its folder.

    The row of `scores.json` is chosen by the checkpoint's name and used only if its S(W) agrees, so that a resumed run
    or a foreign file yields nothing. An `evaluation.json` is used only if it is that of this network with the
    preprocessing that it was trained with.

    Args:
        checkpoint: Path of the checkpoint.
        correlation: S(W) of its Eigenlayer.
        model_id: Its `reid.inference.identity.compute_model_id`.

    Returns:
        The scores, or None if there are none.
    """
    for path in (checkpoint.parent.parent / "scores.json", checkpoint.parent / "scores.json"):
        row = _find_row(path, checkpoint.stem)
        if row and math.isclose(row["correlation"], correlation, rel_tol=1e-6):
            content, scores = _read_json(path), tuple(row["scores"])
            if scores:
                gain = _gain(content) if checkpoint.stem == "rri_last" else None
                return MeasuredScores(str(content.get("dataset")), scores, path.name, gain)
    evaluation = checkpoint.parent / "evaluation.json"
    read = _read_evaluation(evaluation)
    if not read or not read["scores"] or read["model_id"] != model_id:
        return None
    return MeasuredScores(read["dataset"], tuple(read["scores"]), evaluation.name)


def _gain(content: Mapping[str, Any]) -> dict[str, Any] | None:
    found = {key: content.get(key) for key in ("final", "control_final", "difference")}
    known = is_score(found["final"]) and is_score(found["control_final"]) and is_difference(found["difference"])
    return found if known else None


def _find_row(path: Path, name: str) -> Mapping[str, Any] | None:
    """Find the row of `scores.json` for the checkpoint of this name."""
    match, content = _CHECKPOINT_NAME.fullmatch(name), _read_json(path)
    rows = content.get("rows")
    if not match or not isinstance(rows, list) or not all(map(is_row, rows)):
        return None
    if match["last"]:
        # During a run, its last checkpoint is ahead of its rows.
        ends: dict[str, dict[str, Any]] = {
            run: next((r for r in reversed(rows) if r.get("run") == run), {}) for run in ("rri", "control")
        }
        positions = [(row.get("stage"), row.get("round")) for row in ends.values()]
        finished = content.get("stopped") is not None and (match["run"] == "rri" or positions[0] == positions[1])
        return ends[match["run"]] if finished else None
    run = "rri" if match["stage"] == "step0" else match["run"]
    key = (run, match["stage"], int(match["round"] or 0))
    return next((row for row in rows if (row.get("run"), row.get("stage"), row.get("round")) == key), None)


def _read_evaluation(path: Path) -> dict[str, Any] | None:
    content = _read_json(path)
    scores = content.get("scores")
    if not isinstance(content.get("dataset"), str) or not isinstance(scores, list):
        return None
    # With cosine distances, scores are those of normalized rows whatever the row says.
    euclidean = content.get("metric", "euclidean") == "euclidean"
    kept = [score for score in scores if is_score(score) and (euclidean or score["normalized"])]
    return {"dataset": content["dataset"], "scores": kept, "model_id": content.get("model_id")}


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(read_file(path))
    except (FileNotFoundError, NotADirectoryError, PermissionError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
