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
    name = f"Eigenlayer {feature}{', L2-normalised' if normalized else ''}{', flip test' if flip else ''}"
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


def score_table(dataset: str, scores: list[dict[str, Any]]) -> str:
    """Every score of one evaluation, in percent."""
    lines = ["| Dataset | Feature | Rank-1 | Rank-5 | Rank-10 | mAP | mAP trapezoid | mINP |", "|" + "---|" * 8]
    for score in scores:
        name = f"{score['feature']}{', L2' if score['normalized'] else ', raw'}{', flip' if score['flip'] else ''}"
        values = (score[key] for key in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP"))
        lines.append(f"| {dataset} | {name} | {' | '.join(f'{100 * value:.1f}' for value in values)} |")
    return "\n".join(lines)


def pick(scores: list[dict[str, Any]], *, feature: str, normalized: bool, flip: bool) -> dict[str, Any] | None:
    """The SCORE computed so, or None."""
    for score in scores:
        if (score["feature"], score["normalized"], score["flip"]) == (feature, normalized, flip):
            return score
    return None
