"""Tables for the terminal, from rows of `scores.json`."""

from __future__ import annotations

from typing import Any

HEADER = f"{'run':<8}{'stage':<12}{'round':>5}{'epochs':>7}{'seconds':>9}{'loss':>11}{'S(W)':>8}{'rank-1':>8}{'mAP':>7}"

REASONS = {
    "converged": "RRI has converged: S(W) after Relaxation no longer rises",
    "max_rounds": "RRI has ended: RRI.MAX_ROUNDS is reached",
}


def row_line(row: dict[str, Any], *, feature: str, normalized: bool, flip: bool) -> str:
    """One stage in a line; scores in percent, of the feature asked for."""
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
    """Every stage of a run and of its control, and why it stopped."""
    rows = [row_line(row, feature=feature, normalized=normalized, flip=flip) for row in summary["rows"]]
    name = f"Eigenlayer {feature}{', L2-normalized' if normalized else ''}{', flip test' if flip else ''}"
    lines = [f"{summary['dataset']}, {name}", HEADER, *rows]
    final, control = summary["final"], summary["control_final"]
    lines.append(f"final: rank-1 {100 * final['rank1']:.1f}, mAP {100 * final['mAP']:.1f}")
    if control:
        lines[-1] += (
            f"; control {100 * control['rank1']:.1f}, {100 * control['mAP']:.1f}"
            f" (gain {100 * (final['rank1'] - control['rank1']):+.1f}, {100 * (final['mAP'] - control['mAP']):+.1f})"
        )
    lines.append(f"{summary['rounds']} rounds; {REASONS.get(summary['stopped'], 'not finished')}")
    return "\n".join(lines)


def evaluation_tables(content: dict[str, Any]) -> str:
    """What `evaluation.json` holds, a table a protocol."""
    dataset, metric = content["dataset"], content.get("metric", "euclidean")
    kinds = ("scores", "multi_query", "whitened", "expanded", "reranked")
    scores = [score for kind in kinds for score in content.get(kind, [])]
    tables = [score_table(dataset, scores, metric=metric)] if scores else []
    if "single_shot" in content:
        tables.append(_single_shot_table(dataset, content["single_shot"], metric))
    if "verification" in content:
        tables.append(_verification_table(dataset, content["verification"], metric))
    if "revisited" in content:
        tables.append(_revisited_table(dataset, content["revisited"], content.get("revisited_whitened", {})))
    return "\n\n".join(tables)


def score_table(dataset: str, scores: list[dict[str, Any]], *, metric: str = "euclidean") -> str:
    """Every score of one evaluation, in percent."""
    keys = ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP")
    rows = [[dataset, _ranked(score, metric), *(_percent(score[key]) for key in keys)] for score in scores]
    return _table(("Dataset", "Feature", "Rank-1", "Rank-5", "Rank-10", "mAP", "mAP trapezoid", "mINP"), rows)


def _single_shot_table(dataset: str, entries: list[dict[str, Any]], metric: str) -> str:
    keys = ("rank1", "rank5", "rank10", "mean_reciprocal_rank")
    rows = [
        [dataset, _ranked(entry, metric), *(_percent(entry[key]) for key in keys), str(entry["repeats"])]
        for entry in entries
    ]
    return _table(("Dataset", "Single shot", "Rank-1", "Rank-5", "Rank-10", "mean 1 / rank", "draws"), rows)


def _verification_table(dataset: str, entries: list[dict[str, Any]], metric: str) -> str:
    rates = list(entries[0]["tpr_at_fpr"])
    rows = [
        [dataset, _ranked(entry, metric), _percent(entry["area"]), *(_percent(entry["tpr_at_fpr"][r]) for r in rates)]
        for entry in entries
    ]
    return _table(("Dataset", "Pairs", "ROC area", *(f"TPR at FPR {rate}" for rate in rates)), rows)


def _revisited_table(dataset: str, setups: dict[str, Any], whitened: dict[str, Any]) -> str:
    keys = ("mAP", "mP@1", "mP@5", "mP@10")
    named = {**setups, **{f"{setup}, whitened": scores for setup, scores in whitened.items()}}
    rows = [
        [dataset, setup, *(_percent(scores[key]) for key in keys), str(scores["queries"])]
        for setup, scores in named.items()
    ]
    return _table(("Dataset", "Setup", *keys, "queries"), rows)


def _ranked(entry: dict[str, Any], metric: str) -> str:
    """What was ranked: `input, L2, flip, multi-query mean`."""
    way = "cosine" if metric == "cosine" else "L2" if entry["normalized"] else "raw"
    return ", ".join(
        [entry["feature"], way, *(["flip"] if entry["flip"] else []), *filter(None, [entry.get("variant")])]
    )


def _percent(value: float) -> str:
    return f"{100 * value:.1f}"


def _table(header: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (header, *rows)]
    return "\n".join([lines[0], "|" + "---|" * len(header), *lines[1:]])


def pick(scores: list[dict[str, Any]], *, feature: str, normalized: bool, flip: bool) -> dict[str, Any] | None:
    """The SCORE computed so, or None."""
    for score in scores:
        if (score["feature"], score["normalized"], score["flip"]) == (feature, normalized, flip):
            return score
    return None
