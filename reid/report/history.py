"""Reading of a run folder, including one that was interrupted: `config.yaml`, `log.jsonl` and `scores.json`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import parse_json, parse_yaml
from reid.report.entries import KINDS, config_error, is_difference, is_entry, is_row, is_variant
from reid.report.tables import pick


@dataclass(frozen=True)
class Band:
    """A training stage on the axis of epochs.

    Attributes:
        stage: "step0", "restraint" or "relaxation".
        round: Round of RRI, 0 for Step 0.
        start: Epochs trained before it, counted from the beginning of Step 0.
        end: Epochs trained after it.
    """

    stage: str
    round: int
    start: int
    end: int


@dataclass(frozen=True)
class History:
    """A run as recorded in its files.

    Attributes:
        folder: Folder from which the files were read.
        config: Content of `config.yaml`, empty if the file is missing.
        config_text: The file as text.
        start: The first line of the log: command, versions, machine.
        dataset: Name of the dataset.
        events: Epoch and stage lines of the log, in order.
        rows: Rows of `scores.json`, completed by the stage lines of the log where the file is missing or out of date.
        variant: "feature", "normalized" and "flip" of the scores that the run reports as its result.
        stopped: Why RRI ended, or None while it has not.
        difference: "difference" of `scores.json`: rank-1, mAP and mINP of the run minus those of its control, each
            [difference, low, high] as fractions, or None if it was not computed.
        unread: Numbers of the unreadable lines of the log, from 1.
    """

    folder: Path
    config: dict[str, Any]
    config_text: str
    start: dict[str, Any]
    dataset: str
    events: tuple[dict[str, Any], ...]
    rows: tuple[dict[str, Any], ...]
    variant: dict[str, Any]
    stopped: str | None
    difference: dict[str, list[float]] | None = None
    unread: tuple[int, ...] = ()

    def rows_of(self, run: str) -> list[dict[str, Any]]:
        """Select the rows of one run.

        Args:
            run: "rri" or "control". The control has no row for Step 0, which it shares with "rri".

        Returns:
            ROWs in order.
        """
        return [row for row in self.rows if row["run"] == run]

    def score(self, row: dict[str, Any] | None) -> dict[str, Any] | None:
        """Find the score of a row in the reported variant.

        Args:
            row: Row of `scores.json`, or None.

        Returns:
            Score in the reported variant, or None.
        """
        return pick(row["scores"], **self.variant) if row else None

    def cmc(self, row: dict[str, Any]) -> list[float]:
        """Find the CMC curve of a row in the reported feature.

        Args:
            row: Row of `scores.json`.

        Returns:
            Fractions from rank 1, empty if the log has no curve.
        """
        name = f"{self.variant['feature']}{'_normalized' if self.variant['normalized'] else ''}"
        return row.get("cmc", {}).get(name, [])

    @property
    def control_complete(self) -> bool:
        """Whether the control has completed every stage of the finished run, so that the two can be compared."""
        stages = {(row["stage"], row["round"]) for row in self.rows_of("rri") if row["stage"] != "step0"}
        return bool(self.stopped and stages) and stages == {
            (row["stage"], row["round"]) for row in self.rows_of("control") if row["stage"] != "step0"
        }

    @property
    def final_restraint(self) -> int | None:
        """The round that consists of a final Restraint only, known once RRI has ended."""
        rounds = {row["round"] for row in self.rows_of("rri")} - {0}
        relaxed = {row["round"] for row in self.rows_of("rri") if row["stage"] == "relaxation"}
        return max(rounds - relaxed, default=None) if self.stopped else None

    def curve(self, run: str, value: str) -> list[tuple[int, float]]:
        """Collect a value after each epoch, on the axis of `bands`. The control starts where Step 0 ends.

        Args:
            run: "rri" or "control".
            value: "loss", or "correlation", which has another point at each decorrelate.

        Returns:
            (epoch, value) pairs.
        """
        points = [
            (x, event[value])
            for x, event in self._events_of(run)
            if event["kind"] == "epoch" or (event["stage"] == "decorrelate" and value == "correlation")
        ]
        if run == "control" and points:
            step0 = [(x, e[value]) for x, e in self._events_of("rri") if (e["kind"], e["stage"]) == ("epoch", "step0")]
            return step0[-1:] + points
        return points

    def score_curve(self, run: str, name: str) -> list[tuple[int, float]]:
        """Collect a score at the end of each stage, on the axis of `bands`. The control starts with Step 0.

        Args:
            run: "rri" or "control".
            name: "rank1" or "mAP".

        Returns:
            (epoch, fraction) pairs. A decorrelate has the epoch of the stage before it.
        """
        x, points = 0, []
        rows = self.rows_of(run)
        for row in [*(self.rows_of("rri")[:1] if run == "control" and rows else []), *rows]:
            x += row["epochs"]
            score = self.score(row)
            if score:
                points.append((x, score[name]))
        return points

    def bands(self) -> list[Band]:
        """Locate the training stages of RRI on the axis of epochs.

        Returns:
            One band per stage, including an unfinished one.
        """
        found: dict[tuple[str, int], list[int]] = {}
        for x, event in self._events_of("rri"):
            if event["kind"] == "epoch":
                found.setdefault((event["stage"], event["round"]), []).append(x - event["epoch"])
                found[event["stage"], event["round"]].append(x)
        return [Band(stage, round, min(xs), max(xs)) for (stage, round), xs in found.items()]

    def jumps(self, run: str) -> list[tuple[int, float, float]]:
        """Collect the training losses around each decorrelate.

        Args:
            run: "rri" or "control".

        Returns:
            (epoch, loss before, loss after) of each decorrelate.
        """
        stages = ((x, e) for x, e in self._events_of(run) if e["kind"] == "stage" and e["stage"] == "decorrelate")
        return [(x, e["train_loss_before"], e["train_loss_after"]) for x, e in stages if "train_loss_before" in e]

    def _events_of(self, run: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each event of a run, with the number of epochs trained until then."""
        x = start = 0
        if run == "control":
            x = max((e["epoch"] for e in self.events if e["kind"] == "epoch" and e["stage"] == "step0"), default=0)
        stage = None
        for event in self.events:
            if event["run"] != run:
                continue
            if (event["stage"], event["round"]) != stage:
                stage, start = (event["stage"], event["round"]), x
            if event["kind"] == "epoch":
                x = start + event["epoch"]
            yield x, event


def read_history(folder: Path) -> History:
    """Read a run folder. Unreadable lines of the log, such as one cut off by a crash, are skipped and counted.

    Args:
        folder: `OUTPUT_DIR` of the run.

    Returns:
        Valid entries of the log, scores and configuration.

    Raises:
        InputError: If the folder holds no run, or its `config.yaml` or `scores.json` cannot be read.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "log.jsonl").is_file():
        raise InputError(f"{folder} holds no run: config.yaml and log.jsonl are missing; name the OUTPUT_DIR of a run")
    config_text, config = _read_config(folder / "config.yaml")
    entries, unread = _read_log(folder / "log.jsonl")
    summary = _read_summary(folder / "scores.json")
    start = next((entry for entry in entries if entry["kind"] == "start"), {})
    # A line that was written twice, by an interrupted and by the resumed run, counts once.
    logged = [entry for entry in entries if entry["kind"] in ("epoch", "stage")]
    events = {(*_stage(e), e["epoch"] if e["kind"] == "epoch" else None): e for e in logged}
    rows = {_stage(event): event for event in events.values() if event["kind"] == "stage"}
    for row in summary["rows"]:
        rows[_stage(row)] = {**rows.get(_stage(row), {}), **row}
    last = {key[0]: key for key in rows}
    for entry in entries:
        key = last.get(entry["run"]) if entry["kind"] == "final" else None
        if key and len(entry["scores"]) > len(rows[key]["scores"]):
            rows[key] = {**rows[key], "scores": entry["scores"]}
    test = config.get("TEST") or {}
    variant = summary.get("final") or {
        "feature": test.get("FEATURE", "input"),
        "normalized": test.get("NORMALIZED", False),
        "flip": test.get("FLIP", False),
    }
    return History(
        folder=folder,
        config=config,
        config_text=config_text,
        start=start,
        dataset=str(summary.get("dataset") or start.get("dataset") or "unknown dataset"),
        events=tuple(events.values()),
        rows=tuple(sorted(rows.values(), key=lambda row: row["run"] != "rri")),
        variant={name: variant[name] for name in ("feature", "normalized", "flip")},
        stopped=summary.get("stopped"),
        difference=summary.get("difference"),
        unread=unread,
    )


def _stage(entry: dict[str, Any]) -> tuple[str, str, int]:
    return entry["run"], entry["stage"], entry["round"]


def _read_config(path: Path) -> tuple[str, dict[str, Any]]:
    if not path.is_file():
        return "", {}
    try:
        text = path.read_text(encoding="utf-8")
        tree = parse_yaml(text) or {}
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    if not isinstance(tree, dict):
        raise InputError(f"{path}: a configuration must be a mapping of keys, not a {type(tree).__name__}")
    problem = config_error(tree)
    if problem:
        raise InputError(f"{path}: {problem}")
    return text, tree


def _read_log(path: Path) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """The lines of the log, and the numbers (from 1) of the unreadable ones."""
    if not path.is_file():
        return [], ()
    entries, unread = [], []
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        try:
            entry = parse_json(line)
        except ValueError:
            entry = None
        if is_entry(entry):
            entries.append(entry)
        elif not isinstance(entry, dict) or entry.get("kind") in tuple(KINDS):
            unread.append(number)
    return entries, tuple(unread)


def _is_summary(summary: Any) -> bool:
    if (
        not isinstance(summary, dict)
        or not isinstance(summary.get("rows"), list)
        or not all(map(is_row, summary["rows"]))
    ):
        return False
    final, stopped = summary.get("final"), summary.get("stopped")
    has_variant = not final or is_variant(final)
    difference = summary.get("difference")
    return has_variant and (stopped is None or isinstance(stopped, str)) and is_difference(difference)


def _read_summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"rows": []}
    try:
        summary = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        summary = None
    if not _is_summary(summary):
        raise InputError(f"{path}: not the scores of a run; move the file away to make the report from log.jsonl alone")
    return summary
