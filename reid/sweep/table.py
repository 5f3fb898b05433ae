"""Tables of a sweep, with one line per setting: mean and standard deviation over the seeds."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from reid.errors import InputError
from reid.io.atomic import write_bytes
from reid.io.json_yaml import parse_json
from reid.report.entries import is_difference
from reid.report.tables import (
    MISSING,
    Table,
    difference_text,
    markdown_table,
    percent_with_deviation,
    with_deviation,
)

NUMBERS = ("mAP", "rank1", "control_rank1", "control_mAP", "correlation", "images_per_second", "epochs")
MAX_NUMBER = 1e12
GAIN = "gain in mAP (95 % interval)"


@dataclass(frozen=True)
class Line:
    """A line of the table. Measured values are (mean, sample standard deviation), the latter None for a single seed.

    Attributes:
        name: Name of the setting.
        seeds: Seeds in ascending order.
        epochs: Largest number of epochs of its runs.
        rank1: Rank-1, a fraction.
        mAP: Mean average precision, a fraction.
        control_rank1: Rank-1 of the control, None unless every seed has one.
        control_mAP: Mean average precision of the control, None unless every seed has one.
        correlation: S(W) of the Eigenlayer after the last stage.
        images_per_second: Training images per second.
        gain: "rank1", "mAP" and "mINP", each [gain over the control, low, high], fractions with the 95 % interval over
            seeds and persons; None where unknown.
        config: File name of the configuration.
        setting: Keys and values that the grid set.
    """

    name: str
    seeds: tuple[int, ...]
    epochs: int
    rank1: tuple[float, float | None]
    mAP: tuple[float, float | None]
    control_rank1: tuple[float, float | None] | None
    control_mAP: tuple[float, float | None] | None
    correlation: tuple[float, float | None]
    images_per_second: tuple[float, float | None]
    gain: dict[str, list[float]] | None = None
    config: str = ""
    setting: tuple[tuple[str, str], ...] = ()


def lines(rows: Iterable[dict[str, Any]]) -> list[Line]:
    """Summarize rows over their seeds.

    Args:
        rows: Results of `SweepRun.row`, with the "gain" of their setting where it is known.

    Returns:
        One line per name, in the order of first appearance.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    return [_line(name, sorted(group, key=lambda row: row["seed"])) for name, group in groups.items()]


def table(lines: Sequence[Line]) -> Table:
    """Format the lines, with scores in percent.

    Args:
        lines: Lines of the table.

    Returns:
        The table.
    """
    with_control = any(line.control_mAP for line in lines)
    with_gain = any(line.gain for line in lines)
    header = ["setting", "seeds", "epochs", "rank-1", "mAP", *(["control"] if with_control else [])]
    header += [*([GAIN] if with_gain else []), "S(W)", "images/s"]
    body = []
    for line in lines:
        cells = [line.name, str(len(line.seeds)), str(line.epochs)]
        cells += [percent_with_deviation(line.rank1), percent_with_deviation(line.mAP)]
        if with_control:
            both = line.control_rank1 and line.control_mAP
            scores = (percent_with_deviation(value) for value in (line.control_rank1, line.control_mAP))
            cells.append(" / ".join(scores) if both else MISSING)
        if with_gain:
            cells.append(_gain(line))
        body.append([*cells, with_deviation(*line.correlation, 4), with_deviation(*line.images_per_second, 0)])
    return Table(header, body)


def markdown(lines: Sequence[Line]) -> str:
    """Format the lines as Markdown, with the names as code.

    Args:
        lines: Lines of the table.

    Returns:
        The table, with a newline at its end.
    """
    shown = table(lines)
    return markdown_table(shown.header, [(f"`{row[0]}`", *row[1:]) for row in shown.rows]) + "\n"


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read the rows of a sweep.

    Args:
        path: `.jsonl` file, which may be missing.

    Returns:
        Decoded rows in file order; empty if the file does not exist.

    Raises:
        InputError: If the file holds something else.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        return []
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a text file in UTF-8 ({error})") from None
    try:
        rows = [parse_json(line) for line in text.splitlines() if line.strip()]
        for row in rows:
            check_row(row)
    except (ValueError, TypeError, KeyError) as error:
        raise InputError(f"{path}: contains a line that is not a row of a sweep ({error!r})") from None
    return rows


def check_row(row: Any) -> None:
    """Check that `lines` can summarize a row.

    Args:
        row: Decoded JSON of any type.

    Raises:
        ValueError: If it is not a row. TypeError and KeyError are possible too.
    """
    if not isinstance(row["name"], str) or type(row["seed"]) is not int:
        raise ValueError("a row must have a name and a seed")
    numbers = {key: row[key] for key in NUMBERS if row.get(key) is not None}
    if not {"mAP"} <= set(numbers) or not all(
        type(value) in (int, float) and -MAX_NUMBER <= value <= MAX_NUMBER for value in numbers.values()
    ):
        raise ValueError(f"{', '.join(NUMBERS)} must be numbers")
    if not is_difference(row.get("gain")):
        raise ValueError("gain must hold a difference with its interval for every measure")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Add rows to a `.jsonl` file. A row replaces an older one of the same name and seed; new ones are appended.

    Args:
        path: The file, created if needed.
        rows: Results of `SweepRun.row`.

    Raises:
        InputError: If the file holds something else.
    """
    kept = {(row["name"], row["seed"]): row for row in read_rows(path)}
    kept |= {(row["name"], row["seed"]): row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept.values()).encode())


def _line(name: str, group: Sequence[dict[str, Any]]) -> Line:
    gain = group[0].get("gain")
    return Line(
        name=name,
        seeds=tuple(row["seed"] for row in group),
        epochs=max(row["epochs"] for row in group),
        rank1=_mean(group, "rank1"),
        mAP=_mean(group, "mAP"),
        control_rank1=_control(group, "control_rank1"),
        control_mAP=_control(group, "control_mAP"),
        correlation=_mean(group, "correlation"),
        images_per_second=_mean(group, "images_per_second"),
        # It is that of all seeds together, so that rows of several sweeps may disagree.
        gain=gain if all(row.get("gain") == gain for row in group) else None,
        config=str(group[0].get("config", "")),
        setting=tuple(dict(group[0].get("setting", {})).items()),
    )


def _gain(line: Line) -> str:
    if not (line.gain and line.control_mAP):
        return MISSING
    return difference_text({"mAP": line.mAP[0]}, {"mAP": line.control_mAP[0]}, "mAP", line.gain)


def _control(group: Sequence[dict[str, Any]], key: str) -> tuple[float, float | None] | None:
    return _mean(group, key) if all(row[key] is not None for row in group) else None


def _mean(group: Sequence[dict[str, Any]], key: str) -> tuple[float, float | None]:
    values = [row[key] for row in group]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None
