"""Tables of a calibration for the terminal."""

from __future__ import annotations

from typing import Any

from reid.report.tables import Table, percent


def calibration_tables(content: dict[str, Any]) -> list[Table]:
    """Thresholds, thresholds per camera pair, and the reliability of the probabilities.

    Args:
        content: Values that `Calibration.to_plain` returns.

    Returns:
        The tables with a sentence on each.
    """
    columns = ("false-match rate", "distance", "true-match rate")
    title = (
        f"{content['dataset']}: {content['matches']:,} pairs of one identity, {content['others']:,} of different\n"
        f"identities; {content['identities']:,} identities"
    )
    notes = [
        "In brackets: 95 % intervals, by bootstrap over identities rather than pairs,\nsince pairs share identities."
    ]
    if content["refused"]:
        rates = ", ".join(f"{rate:g}" for rate in content["refused"])
        notes.append(
            f"Not estimated: {rates}; fewer than 30 false matches are expected among so\nmany pairs of different "
            "identities."
        )
    if not content["camera_pairs"]:
        notes.append("No pair of cameras has enough identities and pairs for its own thresholds.")
    header = (columns[0], "accept up to the distance", columns[2])
    tables = [Table(header, list(map(_cells, content["thresholds"])), title, "\n".join(notes))]
    if content["camera_pairs"]:
        rows = [
            [f"{pair['first']}–{pair['second']}", f"{pair['matches']:,} / {pair['others']:,}", *_cells(threshold)]
            for pair in content["camera_pairs"]
            for threshold in pair["thresholds"]
        ]
        tables.append(Table(("cameras", "pairs", *columns), rows, "by cameras, pairs of one identity / of others"))
    return [*tables, _probability_table(content["curve"])]


def _probability_table(curve: dict[str, Any]) -> Table:
    title = f"Probability: {curve['method']}, assuming that a share of {curve['prior']:.3g} of the pairs match."
    header = ("predicted probability", "share that match", "share of pairs")
    if curve["brier"][0] is None:
        return Table(header, [], title, "There are too few identities to test it on held-out ones.")
    logistic, isotonic = curve["brier"]
    score = (
        f"Brier score on held-out identities: logistic {logistic:.3g}, isotonic {isotonic:.3g};\nalways predicting the "
        f"prior {curve['no_skill']:.3g}."
    )
    rows = [[f"{said:.3f}", f"{seen:.3f}", f"{share:.2e}"] for said, seen, share in curve["reliability"]]
    return Table(header, rows, f"{title}\n{score}")


def _cells(threshold: dict[str, Any]) -> list[str]:
    rate = percent(threshold["true_match_rate"])
    if threshold["true_match_rate"] is not None:
        rate += f" % [{percent(threshold['true_match_low'])}, {percent(threshold['true_match_high'])}]"
    distance = f"{threshold['distance']:.4f} [{threshold['low']:.4f}, {threshold['high']:.4f}]"
    return [f"{threshold['rate']:g}", distance, rate]
