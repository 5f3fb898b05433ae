"""The content of `scores.json`: the stages of a run and of its control, and the difference between the two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from reid.evaluation.retrieval import choose
from reid.ranking import score_difference
from reid.records import StageLog


def summarize(
    rows: Sequence[StageLog], control: Sequence[StageLog], *, dataset: str, final: dict[str, Any], stopped: str | None
) -> dict[str, Any]:
    """Summarize a run, finished or not.

    Args:
        rows: The finished stages of the RRI run.
        control: Those of its control, the first of which is Step 0 of the run; empty if there is none yet.
        dataset: Name of the dataset.
        final: The feature, normalization and flip that the final scores are of.
        stopped: Why the iteration stopped, None while it has not.

    Returns:
        The content of `scores.json`. Until RRI has ended, `stopped` is None and `final` is its last row so far.
        `difference` is None until the control has ended, and in runs whose scores of single queries were not kept.
    """
    end = choose(rows[-1].scores, **final)
    control_end = choose(control[-1].scores, **final) if control else None
    return {
        "dataset": dataset,
        "rows": [row.to_json() for row in (*rows, *control[1:])],
        "final": end.to_json(),
        "control_final": control_end.to_json() if control_end else None,
        "difference": score_difference(end, control_end) if control_end else None,
        "rounds": max((row.round for row in rows if row.stage == "relaxation"), default=0),
        "stopped": stopped,
    }
