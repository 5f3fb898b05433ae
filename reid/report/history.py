"""What the files of a run folder tell: `config.yaml`, `log.jsonl` and `scores.json`, a run cut short included."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.json_yaml import parse_json, parse_yaml
from reid.report.entries import KINDS, is_entry, is_row, mistake_in
from reid.report.tables import pick


@dataclass(frozen=True)
class Band:
    """A stage on the axis of epochs: from `start` to `end`, both counted from the beginning of Step 0."""

    stage: str
    round: int
    start: int
    end: int


@dataclass(frozen=True)
class History:
    """A run as its files tell it.

    events: the epoch and stage lines of the log, in order. rows: ROWs of `scores.json`, or, where that file is missing
    or behind, the stage lines of the log. stopped: why RRI ended, None while it has not. variant: feature, normalized
    and flip of the scores that the run reports as its result.
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
    unread: tuple[int, ...] = ()

    def of(self, run: str) -> list[dict[str, Any]]:
        """The rows of "rri" or of "control", whose Step 0 is that of "rri"."""
        return [row for row in self.rows if row["run"] == run]

    def row(self, run: str, stage: str, round: int) -> dict[str, Any] | None:
        """The row of one stage, if it is finished."""
        return next((row for row in self.of(run) if (row["stage"], row["round"]) == (stage, round)), None)

    def score(self, row: dict[str, Any] | None) -> dict[str, Any] | None:
        """The SCORE of a row in the reported variant."""
        return pick(row["scores"], **self.variant) if row else None

    def cmc(self, row: dict[str, Any]) -> list[float]:
        """The CMC curve of a row in the reported feature, from rank 1; empty where the log has none."""
        name = f"{self.variant['feature']}{'_normalized' if self.variant['normalized'] else ''}"
        return row.get("cmc", {}).get(name, [])

    @property
    def control_complete(self) -> bool:
        """Whether the control has been through every stage of the finished run, so that the two can be compared."""
        stages = {(row["stage"], row["round"]) for row in self.of("rri") if row["stage"] != "step0"}
        return bool(self.stopped and stages) and stages == {
            (row["stage"], row["round"]) for row in self.of("control") if row["stage"] != "step0"
        }

    @property
    def final_restraint(self) -> int | None:
        """The round that is a final Restraint only, once RRI has ended."""
        rounds = {row["round"] for row in self.of("rri")} - {0}
        relaxed = {row["round"] for row in self.of("rri") if row["stage"] == "relaxation"}
        return max(rounds - relaxed, default=None) if self.stopped else None

    def curve(self, run: str, value: str) -> list[tuple[int, float]]:
        """(epoch, value) after each epoch of a run, on the axis of `bands`.

        value: "loss", or "correlation", which also jumps at each decorrelate. The control begins where Step 0 ends.
        """
        points = [
            (x, event[value])
            for x, event in self._placed(run)
            if event["kind"] == "epoch" or (event["stage"] == "decorrelate" and value == "correlation")
        ]
        if run == "control" and points:
            step0 = [(x, e[value]) for x, e in self._placed("rri") if (e["kind"], e["stage"]) == ("epoch", "step0")]
            return step0[-1:] + points
        return points

    def score_curve(self, run: str, name: str) -> list[tuple[int, float]]:
        """(epoch, score) at the end of each stage of a run, on the axis of `bands`; name: "rank1" or "mAP", a fraction.

        A decorrelate stands at the epoch of the stage before it. The control begins with Step 0.
        """
        x, points = 0, []
        for row in [*(self.of("rri")[:1] if run == "control" and self.of("control") else []), *self.of(run)]:
            x += row["epochs"]
            score = self.score(row)
            if score:
                points.append((x, score[name]))
        return points

    def bands(self) -> list[Band]:
        """The training stages of the run, the unfinished one too."""
        found: dict[tuple[str, int], list[int]] = {}
        for x, event in self._placed("rri"):
            if event["kind"] == "epoch":
                found.setdefault((event["stage"], event["round"]), []).append(x - event["epoch"])
                found[event["stage"], event["round"]].append(x)
        return [Band(stage, round, min(xs), max(xs)) for (stage, round), xs in found.items()]

    def jumps(self, run: str) -> list[tuple[int, float, float]]:
        """(epoch, loss before, loss after) of each decorrelate."""
        placed = ((x, e) for x, e in self._placed(run) if e["kind"] == "stage" and e["stage"] == "decorrelate")
        return [(x, e["train_loss_before"], e["train_loss_after"]) for x, e in placed if "train_loss_before" in e]

    def _placed(self, run: str) -> Iterator[tuple[int, dict[str, Any]]]:
        """Each event of a run with the number of epochs trained by then."""
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
    """Read a run folder. What a crash has cut off is left out; lines of the log that make no sense are counted.

    Raises InputError where the folder holds no run, or a `config.yaml` or `scores.json` that cannot be read.
    """
    if not (folder / "config.yaml").is_file() and not (folder / "log.jsonl").is_file():
        raise InputError(f"{folder} holds no run: neither config.yaml nor log.jsonl is there; name an OUTPUT_DIR")
    config_text, config = _read_config(folder / "config.yaml")
    entries, unread = _read_log(folder / "log.jsonl")
    summary = _read_summary(folder / "scores.json")
    start = next((entry for entry in entries if entry["kind"] == "start"), {})
    # A line written twice (a crash, then a resumed run) counts once.
    events = {(*_stage(e), e["kind"], e.get("epoch")): e for e in entries if e["kind"] in ("epoch", "stage")}
    rows = {_stage(event): event for event in events.values() if event["kind"] == "stage"}
    for row in summary["rows"]:
        rows[_stage(row)] = {**rows.get(_stage(row), {}), **row}
    for entry in entries:
        of_run = [key for key in rows if key[0] == entry.get("run")]
        if entry["kind"] == "final" and of_run and len(entry["scores"]) > len(rows[of_run[-1]]["scores"]):
            rows[of_run[-1]] = {**rows[of_run[-1]], "scores": entry["scores"]}
    test = config.get("TEST") or {}
    shown = summary.get("final") or {
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
        variant={name: shown[name] for name in ("feature", "normalized", "flip")},
        stopped=summary.get("stopped"),
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
        raise InputError(f"{path}: a configuration is a mapping of keys, not a {type(tree).__name__}")
    if mistake := mistake_in(tree):
        raise InputError(f"{path}: {mistake}")
    return text, tree


def _read_log(path: Path) -> tuple[list[dict[str, Any]], tuple[int, ...]]:
    """The lines of the log, and the numbers (from 1) of those that cannot be read."""
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
    told = not final or (isinstance(final, dict) and {"feature", "normalized", "flip"} <= set(final))
    return told and (stopped is None or isinstance(stopped, str))


def _read_summary(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {"rows": []}
    try:
        summary = parse_json(path.read_text(encoding="utf-8"))
    except ValueError:
        summary = None
    if not _is_summary(summary):
        raise InputError(f"{path}: no scores of a run; move it away and the report is made from log.jsonl alone")
    return summary
