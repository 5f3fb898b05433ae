"""The scores of a checkpoint, where a run or an evaluation left them beside it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.inference.export.interface import Form

METRICS = ("rank1", "rank5", "rank10", "mAP", "mINP")
_SAVED = re.compile(r"(?P<run>rri|control)_(?:(?P<last>last)|(?:r(?P<round>\d+)_)?(?P<stage>[a-z0-9]+))")


@dataclass(frozen=True)
class Measured:
    """Scores of one network: rows with `feature`, `normalized`, `flip` and fractions under the names of METRICS.

    source: the file they were read from, by its name.
    """

    dataset: str
    scores: tuple[dict[str, Any], ...]
    source: str

    def of(self, form: Form) -> dict[str, Any] | None:
        """The row measured in the very form of an export, or None."""
        wanted = (form.feature, form.normalized, form.flip)
        return next((s for s in self.scores if (s["feature"], s["normalized"], s["flip"]) == wanted), None)


def read_scores(path: Path) -> Measured:
    """Of an `evaluation.json`. Raises InputError where it is none."""
    content = _read(path)
    if content is None or not content["scores"]:
        raise InputError(f"{path}: no evaluation.json as tools/evaluate.py writes it")
    return Measured(content["dataset"], tuple(content["scores"]), path.name)


def find_scores(checkpoint: Path, correlation: float) -> Measured | None:
    """The scores of a checkpoint of a run, or of the only checkpoint beside an `evaluation.json`; None without any.

    correlation: S(W) of the network. In the run's `scores.json` the row is found by the checkpoint's name, and taken
    where its S(W) is this one: a run that went on, or another's file, gives nothing.
    """
    for path in (checkpoint.parent.parent / "scores.json", checkpoint.parent / "scores.json"):
        row = _row(path, checkpoint.stem)
        if row and math.isclose(row.get("correlation", math.nan), correlation, rel_tol=1e-6):
            content = _json(path)
            found = tuple(filter(_is_score, row.get("scores", ())))
            if found:
                return Measured(str(content.get("dataset")), found, path.name)
    evaluation = checkpoint.parent / "evaluation.json"
    beside = [file for kind in ("*.pth", "*.safetensors", "*.pt") for file in checkpoint.parent.glob(kind)]
    read = _read(evaluation) if len(beside) == 1 else None
    return Measured(read["dataset"], tuple(read["scores"]), evaluation.name) if read and read["scores"] else None


def _row(path: Path, name: str) -> Mapping[str, Any] | None:
    """The row of `scores.json` that tells of the checkpoint of this name."""
    saved, content = _SAVED.fullmatch(name), _json(path)
    rows = content.get("rows")
    if not saved or not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        return None
    if saved["last"]:
        # While a run goes on, its last checkpoint is ahead of its rows.
        ends: dict[str, dict[str, Any]] = {
            run: next((r for r in reversed(rows) if r.get("run") == run), {}) for run in ("rri", "control")
        }
        both = [(row.get("stage"), row.get("round")) for row in ends.values()]
        ended = content.get("stopped") is not None and (saved["run"] == "rri" or both[0] == both[1])
        return ends[saved["run"]] if ended else None
    run = "rri" if saved["stage"] == "step0" else saved["run"]
    wanted = (run, saved["stage"], int(saved["round"] or 0))
    return next((row for row in rows if (row.get("run"), row.get("stage"), row.get("round")) == wanted), None)


def _read(path: Path) -> dict[str, Any] | None:
    content = _json(path)
    scores = content.get("scores")
    if not isinstance(content.get("dataset"), str) or not isinstance(scores, list):
        return None
    # By cosine, rows rank as those of unit length do, whatever length they have.
    euclidean = content.get("metric", "euclidean") == "euclidean"
    kept = [score for score in scores if _is_score(score) and (euclidean or score["normalized"])]
    return {"dataset": content["dataset"], "scores": kept}


def _is_score(score: Any) -> bool:
    return (
        isinstance(score, dict)
        and {"feature", "normalized", "flip", "rank1", "mAP"} <= score.keys()
        and all(isinstance(score.get(name, 0.0), int | float) for name in METRICS)
    )


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
