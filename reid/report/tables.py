"""Tables for the terminal, made from rows of `scores.json` and `evaluation.json`, and how their numbers are written."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from reid.errors import one_line, unknown_name

MISSING = "–"
FORMATS = ("table", "markdown", "json", "csv")
HEADER = f"{'run':<8}{'stage':<12}{'round':>5}{'epochs':>7}{'seconds':>9}{'loss':>11}{'S(W)':>8}{'rank-1':>8}{'mAP':>7}"

REASONS = {
    "converged": "RRI converged: S(W) after Relaxation no longer increases",
    "max_rounds": "RRI stopped: RRI.MAX_ROUNDS reached",
}


def row_line(row: dict[str, Any], *, feature: str, normalized: bool, flip: bool) -> str:
    """One line per stage, with scores in percent.

    Args:
        row: Row of `scores.json`.
        feature: "input" or "output" of the Eigenlayer.
        normalized: Whether to show the scores of L2-normalized features.
        flip: Whether to show the scores of the flip test.

    Returns:
        The line, with columns as in `HEADER`.
    """
    score = pick(row["scores"], feature=feature, normalized=normalized, flip=flip)
    shown = f"{100 * score['rank1']:>8.1f}{100 * score['mAP']:>7.1f}" if score else f"{'-':>8}{'-':>7}"
    loss = f"{row['train_loss']:.2f}"
    if "train_loss_before" in row:
        loss = f"{row['train_loss_before']:.2f}>{loss}"
    return (
        f"{row['run']:<8}{row['stage']:<12}{row['round'] or '':>5}{row['epochs'] or '':>7}{row['seconds']:>9.1f}"
        f"{loss:>11}{row['correlation']:>8.4f}{shown}"
    )


def closing_lines(summary: dict[str, Any], *, feature: str, normalized: bool, flip: bool) -> str:
    """The result of a finished run: its final scores, those of the control, the difference, and why the run stopped.

    Args:
        summary: Content of `scores.json`.
        feature: See `row_line`.
        normalized: See `row_line`.
        flip: See `row_line`.

    Returns:
        The lines, without a newline at their end.
    """
    final, control, intervals = summary["final"], summary["control_final"], summary.get("difference")
    lines = [f"{summary['dataset']}, {variant_name({'feature': feature, 'normalized': normalized, 'flip': flip})}"]
    lines.append(_closing_line("final", [percent(final[name]) for name in ("rank1", "mAP")]))
    if control:
        lines.append(_closing_line("control", [percent(control[name]) for name in ("rank1", "mAP")]))
        gains = [difference_text(final, control, name, intervals) for name in ("rank1", "mAP")]
        lines.append(_closing_line("difference", gains))
    if control and intervals:
        lines.append("            in brackets: 95 % intervals, by bootstrap over the persons")
    lines.append(f"{summary['rounds']} rounds; {REASONS.get(summary['stopped'], 'not finished')}")
    return "\n".join(lines)


def _closing_line(name: str, cells: Sequence[str]) -> str:
    return f"{name:<12}rank-1 {cells[0]:<24}mAP {cells[1]}"


def shown_difference(value: float, reference: float) -> float:
    """Subtract fractions as they are shown, so that the difference agrees with the numbers beside it.

    Args:
        value: A fraction.
        reference: The fraction that is subtracted.

    Returns:
        The difference of the two percentages of one digit, in points.
    """
    return round(round(100 * value, 1) - round(100 * reference, 1), 1) + 0.0  # no -0.0


def difference_text(
    final: dict[str, Any], control: dict[str, Any], name: str, intervals: dict[str, Any] | None = None
) -> str:
    """Format how much a score is above that of the control, with its 95 % interval where it is known.

    Args:
        final: A score of `scores.json`.
        control: The score that is subtracted.
        name: Name of the measure, such as "mAP".
        intervals: "difference" of `scores.json`, None if there is none.

    Returns:
        Points such as `+2.2 (+0.8 to +3.6)`.
    """
    text = f"{shown_difference(final[name], control[name]):+.1f}"
    if not intervals:
        return text
    low, high = (round(100 * end, 1) + 0.0 for end in intervals[name][1:])
    return f"{text} ({low:+.1f} to {high:+.1f})"


def variant_name(variant: dict[str, Any]) -> str:
    """Describe what was compared to get a score.

    Args:
        variant: Any record with the keys "feature", "normalized" and "flip", such as a score of `scores.json`.

    Returns:
        The feature, whether it is normalized, and whether the flip test was used.
    """
    feature = f"Eigenlayer {variant['feature']}" if variant["feature"] in ("input", "output") else variant["feature"]
    normalized = "L2-normalized" if variant["normalized"] else "raw"
    return ", ".join(filter(None, [feature, normalized, "flip test" if variant["flip"] else "no flip test"]))


def evaluation_tables(content: dict[str, Any]) -> list[Table]:
    """One table per protocol.

    Args:
        content: Content of `evaluation.json`.

    Returns:
        The tables.
    """
    dataset, metric = content["dataset"], content.get("metric", "euclidean")
    kinds = ("scores", "multi_query", "whitened", "expanded", "reranked")
    scores = [score for kind in kinds for score in content.get(kind, [])]
    tables = [_score_table(scores, metric)] if scores else []
    if "single_shot" in content:
        tables.append(_single_shot_table(content["single_shot"], metric))
    if "verification" in content:
        tables.append(_verification_table(content["verification"], metric))
    if "revisited" in content:
        tables.append(_revisited_table(content["revisited"], content.get("revisited_whitened", {})))
    return [dataclasses.replace(table, about=("Dataset", dataset)) for table in tables]


def _score_table(scores: list[dict[str, Any]], metric: str) -> Table:
    keys = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
    rows = [(_ranked(score, metric), *(percent(score[key]) for key in keys)) for score in scores]
    return Table(("Feature", "Rank-1", "Rank-5", "Rank-10", "mAP", "mAP trapezoid", "mINP"), tuple(rows))


def _single_shot_table(entries: list[dict[str, Any]], metric: str) -> Table:
    keys = ("rank1", "rank5", "rank10", "mean_reciprocal_rank")
    rows = [
        (_ranked(entry, metric), *(percent(entry[key]) for key in keys), str(entry["repeats"])) for entry in entries
    ]
    return Table(("Single shot", "Rank-1", "Rank-5", "Rank-10", "mean 1 / rank", "draws"), tuple(rows))


def _verification_table(entries: list[dict[str, Any]], metric: str) -> Table:
    rates = list(entries[0]["tpr_at_fpr"])
    rows = [
        (_ranked(entry, metric), percent(entry["area"]), *(percent(entry["tpr_at_fpr"][r]) for r in rates))
        for entry in entries
    ]
    return Table(("Pairs", "ROC area", *(f"TPR at FPR {rate}" for rate in rates)), tuple(rows))


def _revisited_table(setups: dict[str, Any], whitened: dict[str, Any]) -> Table:
    keys = ("mAP", "mP@1", "mP@5", "mP@10")
    named = {**setups, **{f"{setup}, whitened": scores for setup, scores in whitened.items()}}
    rows = [(setup, *(percent(scores[key]) for key in keys), str(scores["queries"])) for setup, scores in named.items()]
    return Table(("Setup", *keys, "queries"), tuple(rows))


def _ranked(entry: dict[str, Any], metric: str) -> str:
    """What was ranked, such as `input, L2, flip, multi-query mean`."""
    form = "cosine" if metric == "cosine" else "L2" if entry["normalized"] else "raw"
    return ", ".join(filter(None, [entry["feature"], form, "flip" if entry["flip"] else "", entry.get("variant")]))


def pick(scores: list[dict[str, Any]], *, feature: str, normalized: bool, flip: bool) -> dict[str, Any] | None:
    """Find the score of one variant.

    Args:
        scores: Scores of one row of `scores.json`.
        feature: See `row_line`.
        normalized: See `row_line`.
        flip: See `row_line`.

    Returns:
        The first matching score, or None.
    """
    for score in scores:
        if (score["feature"], score["normalized"], score["flip"]) == (feature, normalized, flip):
            return score
    return None


@dataclass(frozen=True)
class Table:
    """A table of results for the terminal.

    Attributes:
        header: Heading of each column.
        rows: Cells of each row, as they are shown.
        title: A line above it, "" for none.
        note: Lines below it, "" for none.
        about: (heading, cell) that all rows have in common: the first column of a file, a line above a table on the
            terminal; None if there is none.
    """

    header: Sequence[str]
    rows: Sequence[Sequence[str]]
    title: str = ""
    note: str = ""
    about: tuple[str, str] | None = None

    def with_about(self) -> Table:
        """Add what all rows have in common as the first column.

        Returns:
            A table with `about` among its columns.
        """
        if self.about is None:
            return self
        rows = [(self.about[1], *row) for row in self.rows]
        return dataclasses.replace(self, header=(self.about[0], *self.header), rows=rows, about=None)


def render_tables(tables: Sequence[Table], form: str, content: Any = None) -> str:
    """Render the results of a command in one of `FORMATS`.

    Args:
        tables: What the command shows.
        form: "table" for aligned columns as wide as the terminal, or 80 characters where there is none; "markdown";
            "csv", with an empty line between two tables; "json".
        content: What "json" shows: the content of the JSON file that the command writes, with all digits.

    Returns:
        The text, without a newline at its end.

    Raises:
        InputError: If there is no such format.
    """
    if form == "json":
        return json.dumps(content, indent=1, ensure_ascii=False)
    if form not in FORMATS:
        raise unknown_name("format", form, FORMATS)
    # Names in files of others may hold control characters.
    tables = [
        dataclasses.replace(table, title=one_line(table.title), rows=[list(map(one_line, row)) for row in table.rows])
        for table in tables
    ]
    if form == "csv":
        return "\n\n".join(_csv(table.with_about()) for table in tables)
    texts = []
    for table in tables if form == "table" else [table.with_about() for table in tables]:
        drawn = _aligned(table) if form == "table" else markdown_table(table.header, table.rows)
        above = table.about[1] if table.about else ""
        texts.append("\n".join(filter(None, (table.title, above, drawn, table.note))))
    return "\n\n".join(texts)


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table.

    Args:
        header: Heading of each column.
        rows: Cells of each row.

    Returns:
        The table, without a newline at its end.
    """
    lines = [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def _aligned(table: Table) -> str:
    """Align columns, numbers to the right; cells that do not fit are continued on the next line."""
    from rich.box import Box
    from rich.console import Console
    from rich.table import Table as Drawn
    from rich.text import Text

    drawn = Drawn(box=Box("\n".join(["    ", "    ", " -- ", *["    "] * 5]), ascii=True), show_edge=False)
    drawn.padding, drawn.pad_edge = (0, 1, 0, 0), False
    for number, name in enumerate(table.header):
        numeric = not any(character.isalpha() for row in table.rows for character in row[number])
        drawn.add_column(Text(name), justify="right" if numeric else "left", overflow="fold")
    for row in table.rows:
        drawn.add_row(*map(Text, row))
    stream = io.StringIO()
    Console(file=stream, width=shutil.get_terminal_size().columns, color_system=None).print(drawn)
    return "\n".join(line.rstrip() for line in stream.getvalue().splitlines())


def _csv(table: Table) -> str:
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows([table.header, *table.rows])
    return stream.getvalue().rstrip("\n")


def number(value: float | None, form: str) -> str:
    """Format a number that may be missing.

    Args:
        value: The number, or None.
        form: Format specification, such as ".3f".

    Returns:
        The formatted number, or `MISSING`.
    """
    return MISSING if value is None else format(value, form)


def percent(fraction: float | None) -> str:
    """Format a fraction as percent.

    Args:
        fraction: A number in [0, 1], or None.

    Returns:
        The percentage with one digit and no sign, such as `82.3`, or `MISSING`.
    """
    return MISSING if fraction is None else f"{100 * fraction:.1f}"


def percent_with_deviation(value: Sequence[float | None] | None) -> str:
    """Format the mean and the standard deviation of a fraction.

    Args:
        value: (mean, deviation). The deviation is None for a single measurement.

    Returns:
        Percentages such as `82.3 ± 0.4`, or `MISSING`.
    """
    if value is None or value[0] is None:
        return MISSING
    return with_deviation(100 * value[0], None if value[1] is None else 100 * value[1], 1)


def with_deviation(mean: float, deviation: float | None, digits: int) -> str:
    """Format a mean and a standard deviation.

    Args:
        mean: Mean of the measurements.
        deviation: The standard deviation, or None for a single measurement.
        digits: Digits after the decimal point.

    Returns:
        Numbers such as `0.0261 ± 0.0002`.
    """
    return f"{mean:.{digits}f}" + ("" if deviation is None else f" ± {deviation:.{digits}f}")
