"""Tables for the terminal, made from rows of `scores.json` and `evaluation.json`, and how their numbers are written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"
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


def stage_table(summary: dict[str, Any], *, feature: str, normalized: bool, flip: bool) -> str:
    """All stages of a run and of its control, the final scores, and why the run stopped.

    Args:
        summary: Content of `scores.json`.
        feature: See `row_line`.
        normalized: See `row_line`.
        flip: See `row_line`.

    Returns:
        The table, without a newline at its end.
    """
    variant: dict[str, Any] = {"feature": feature, "normalized": normalized, "flip": flip}
    lines = [f"{summary['dataset']}, {variant_name(variant)}", HEADER]
    lines += [row_line(row, **variant) for row in summary["rows"]]
    final, control = summary["final"], summary["control_final"]
    lines.append(f"final: rank-1 {100 * final['rank1']:.1f}, mAP {100 * final['mAP']:.1f}")
    if control:
        lines[-1] += (
            f"; control {100 * control['rank1']:.1f}, {100 * control['mAP']:.1f}"
            f" (gain {100 * (final['rank1'] - control['rank1']):+.1f}, {100 * (final['mAP'] - control['mAP']):+.1f})"
        )
    lines.append(f"{summary['rounds']} rounds; {REASONS.get(summary['stopped'], 'not finished')}")
    return "\n".join(lines)


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


def evaluation_tables(content: dict[str, Any]) -> str:
    """One Markdown table per protocol.

    Args:
        content: Content of `evaluation.json`.

    Returns:
        The tables, separated by empty lines.
    """
    dataset, metric = content["dataset"], content.get("metric", "euclidean")
    kinds = ("scores", "multi_query", "whitened", "expanded", "reranked")
    scores = [score for kind in kinds for score in content.get(kind, [])]
    tables = [_score_table(dataset, scores, metric)] if scores else []
    if "single_shot" in content:
        tables.append(_single_shot_table(dataset, content["single_shot"], metric))
    if "verification" in content:
        tables.append(_verification_table(dataset, content["verification"], metric))
    if "revisited" in content:
        tables.append(_revisited_table(dataset, content["revisited"], content.get("revisited_whitened", {})))
    return "\n\n".join(tables)


def _score_table(dataset: str, scores: list[dict[str, Any]], metric: str) -> str:
    keys = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
    rows = [[dataset, _ranked(score, metric), *(percent(score[key]) for key in keys)] for score in scores]
    header = ("Dataset", "Feature", "Rank-1", "Rank-5", "Rank-10", "mAP", "mAP trapezoid", "mINP")
    return markdown_table(header, rows)


def _single_shot_table(dataset: str, entries: list[dict[str, Any]], metric: str) -> str:
    keys = ("rank1", "rank5", "rank10", "mean_reciprocal_rank")
    rows = [
        [dataset, _ranked(entry, metric), *(percent(entry[key]) for key in keys), str(entry["repeats"])]
        for entry in entries
    ]
    return markdown_table(("Dataset", "Single shot", "Rank-1", "Rank-5", "Rank-10", "mean 1 / rank", "draws"), rows)


def _verification_table(dataset: str, entries: list[dict[str, Any]], metric: str) -> str:
    rates = list(entries[0]["tpr_at_fpr"])
    rows = [
        [dataset, _ranked(entry, metric), percent(entry["area"]), *(percent(entry["tpr_at_fpr"][r]) for r in rates)]
        for entry in entries
    ]
    return markdown_table(("Dataset", "Pairs", "ROC area", *(f"TPR at FPR {rate}" for rate in rates)), rows)


def _revisited_table(dataset: str, setups: dict[str, Any], whitened: dict[str, Any]) -> str:
    keys = ("mAP", "mP@1", "mP@5", "mP@10")
    named = {**setups, **{f"{setup}, whitened": scores for setup, scores in whitened.items()}}
    rows = [
        [dataset, setup, *(percent(scores[key]) for key in keys), str(scores["queries"])]
        for setup, scores in named.items()
    ]
    return markdown_table(("Dataset", "Setup", *keys, "queries"), rows)


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


def markdown_table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Format a Markdown table.

    Args:
        header: Heading of each column.
        rows: Cells of each row. Pipes in them are not escaped.

    Returns:
        The table, without a newline at its end.
    """
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


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
