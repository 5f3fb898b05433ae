"""One line a setting: mean and standard deviation over its seeds."""

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

NUMBERS = ("mAP", "rank1", "control_rank1", "control_mAP", "correlation", "images_per_second", "epochs")
LARGEST = 1e12


@dataclass(frozen=True)
class Line:
    """A line of the table. rank1, mAP, gain of mAP over the control, correlation: (mean, deviation or None).

    Fractions; deviation: the sample standard deviation over the seeds, None of a single one.
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


def lines(rows: Iterable[dict[str, Any]]) -> list[Line]:
    """A line for every name, in the order of first appearance."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["name"], []).append(row)
    return [_line(name, sorted(group, key=lambda row: row["seed"])) for name, group in groups.items()]


def markdown(table: Sequence[Line]) -> str:
    """The table as Markdown: scores in percent, S(W) and images a second."""
    with_control = any(line.control_mAP for line in table)
    header = ["setting", "seeds", "epochs", "rank-1", "mAP", *(["control"] if with_control else []), "S(W)", "images/s"]
    body = []
    for line in table:
        cells = [f"`{line.name}`", str(len(line.seeds)), str(line.epochs), percent(line.rank1), percent(line.mAP)]
        if with_control:
            both = line.control_rank1 and line.control_mAP
            cells.append(f"{percent(line.control_rank1)} / {percent(line.control_mAP)}" if both else "–")
        body.append([*cells, _number(line.correlation, 4), _number(line.images_per_second, 0)])
    rule = "|" + "---|" * len(header)
    return "\n".join([_joined(header), rule, *map(_joined, body)]) + "\n"


def percent(value: tuple[float, float | None] | None) -> str:
    """`82.3 ± 0.4`."""
    return "–" if value is None else _number((100 * value[0], None if value[1] is None else 100 * value[1]), 1)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a `.jsonl` file, none where it is not there. Raises InputError for one that is no such file."""
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
        raise InputError(f"{path}: holds a line that is no row of a sweep ({error!r})") from None
    return rows


def check_row(row: Any) -> None:
    """Raise ValueError, TypeError or KeyError for what is no row that `lines` can count with."""
    if not isinstance(row["name"], str) or type(row["seed"]) is not int:
        raise ValueError("a row has a name and a seed")
    numbers = {key: row[key] for key in NUMBERS if row.get(key) is not None}
    if not {"mAP"} <= set(numbers) or not all(
        type(value) in (int, float) and -LARGEST <= value <= LARGEST for value in numbers.values()
    ):
        raise ValueError(f"{', '.join(NUMBERS)} are numbers")


def write_rows(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Put rows into a `.jsonl` file, each in the place of an older one of the same name and seed, new ones last."""
    kept = {(row["name"], row["seed"]): row for row in read_rows(path)}
    kept |= {(row["name"], row["seed"]): row for row in rows}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, "".join(json.dumps(row) + "\n" for row in kept.values()).encode())


def _line(name: str, group: Sequence[dict[str, Any]]) -> Line:
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
    )


def _control(group: Sequence[dict[str, Any]], key: str) -> tuple[float, float | None] | None:
    return _mean(group, key) if all(row[key] is not None for row in group) else None


def _mean(group: Sequence[dict[str, Any]], key: str) -> tuple[float, float | None]:
    values = [row[key] for row in group]
    return statistics.fmean(values), statistics.stdev(values) if len(values) > 1 else None


def _number(value: tuple[float, float | None], digits: int) -> str:
    mean, deviation = value
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")


def _joined(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
