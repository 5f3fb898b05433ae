"""A calibration as tables for the terminal, out of its plain values."""

from __future__ import annotations

from typing import Any


def calibration_tables(content: dict[str, Any]) -> str:
    """`content`: what `Calibration.to_plain` gives."""
    curve = content["curve"]
    lines = [
        f"{content['dataset']}: {content['matches']:,} pairs of one person, {content['others']:,} of different people; "
        f"{content['identities']:,} identities",
        "",
        "| false-match rate | accept up to the distance | true-match rate |",
        "|---|---|---|",
        *(_row(f"{t['rate']:g}", t) for t in content["thresholds"]),
        "",
        "In brackets: 95 % intervals, by bootstrap over identities and not over pairs, which share people.",
    ]
    if content["refused"]:
        told = ", ".join(f"{rate:g}" for rate in content["refused"])
        lines.append(f"Not given: {told}; so many pairs of different people expect fewer than 30 false matches there.")
    if content["camera_pairs"]:
        lines += ["", "| cameras | pairs of one person / others | false-match rate | distance | true-match rate |"]
        lines += ["|---|---|---|---|---|"]
        for pair in content["camera_pairs"]:
            for t in pair["thresholds"]:
                start = f"{pair['first']}–{pair['second']} | {pair['matches']:,} / {pair['others']:,} | {t['rate']:g}"
                lines.append(_row(start, t))
    else:
        lines += ["", "No pair of cameras has enough people and pairs for thresholds of its own."]
    lines += [
        "",
        f"Probability: {curve['method']}, for pairs of which a share of {curve['prior']:.3g} is of one person.",
    ]
    if curve["brier"][0] is None:
        lines.append("Too few people to try it on some left out.")
        return "\n".join(lines)
    logistic, isotonic = curve["brier"]
    lines += [
        f"Brier score on people left out: logistic {logistic:.3g}, isotonic {isotonic:.3g}; always saying the prior "
        f"{curve['no_skill']:.3g}.",
        "",
        "| probability said | share of one person | share of pairs |",
        "|---|---|---|",
        *(f"| {said:.3f} | {seen:.3f} | {share:.2e} |" for said, seen, share in curve["reliability"]),
    ]
    return "\n".join(lines)


def _row(start: str, t: dict[str, Any]) -> str:
    share = "–"
    if t["true_match_rate"] is not None:
        share = (
            f"{_percent(t['true_match_rate'])} % [{_percent(t['true_match_low'])}, {_percent(t['true_match_high'])}]"
        )
    return f"| {start} | {t['distance']:.4f} [{t['low']:.4f}, {t['high']:.4f}] | {share} |"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"
