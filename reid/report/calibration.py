"""Tables of a calibration for the terminal."""

from __future__ import annotations

from typing import Any

from reid.report.tables import markdown_table, percent


def calibration_tables(content: dict[str, Any]) -> str:
    """Thresholds, thresholds per camera pair, and the reliability of the probabilities, as Markdown tables.

    Args:
        content: Values that `Calibration.to_plain` returns.

    Returns:
        The tables with a sentence on each.
    """
    columns = ("false-match rate", "distance", "true-match rate")
    lines = [
        f"{content['dataset']}: {content['matches']:,} pairs of one identity, {content['others']:,} of different "
        f"identities; {content['identities']:,} identities",
        "",
        markdown_table((columns[0], "accept up to the distance", columns[2]), map(_cells, content["thresholds"])),
        "",
        "In brackets: 95 % intervals, by bootstrap over identities rather than pairs, since pairs share identities.",
    ]
    if content["refused"]:
        rates = ", ".join(f"{rate:g}" for rate in content["refused"])
        lines.append(
            f"Not estimated: {rates}; fewer than 30 false matches are expected among so many pairs of different "
            "identities."
        )
    if content["camera_pairs"]:
        rows = [
            [f"{pair['first']}–{pair['second']}", f"{pair['matches']:,} / {pair['others']:,}", *_cells(threshold)]
            for pair in content["camera_pairs"]
            for threshold in pair["thresholds"]
        ]
        lines += ["", markdown_table(("cameras", "pairs of one identity / others", *columns), rows)]
    else:
        lines += ["", "No pair of cameras has enough identities and pairs for its own thresholds."]
    return "\n".join([*lines, "", *_probability_lines(content["curve"])])


def _probability_lines(curve: dict[str, Any]) -> list[str]:
    lines = [f"Probability: {curve['method']}, assuming that a share of {curve['prior']:.3g} of the pairs match."]
    if curve["brier"][0] is None:
        return [*lines, "There are too few identities to test it on held-out ones."]
    logistic, isotonic = curve["brier"]
    rows = [[f"{said:.3f}", f"{seen:.3f}", f"{share:.2e}"] for said, seen, share in curve["reliability"]]
    return [
        *lines,
        f"Brier score on held-out identities: logistic {logistic:.3g}, isotonic {isotonic:.3g}; always predicting the "
        f"prior {curve['no_skill']:.3g}.",
        "",
        markdown_table(("predicted probability", "share that match", "share of pairs"), rows),
    ]


def _cells(threshold: dict[str, Any]) -> list[str]:
    rate = percent(threshold["true_match_rate"])
    if threshold["true_match_rate"] is not None:
        rate += f" % [{percent(threshold['true_match_low'])}, {percent(threshold['true_match_high'])}]"
    distance = f"{threshold['distance']:.4f} [{threshold['low']:.4f}, {threshold['high']:.4f}]"
    return [f"{threshold['rate']:g}", distance, rate]
