"""A diagnosis in numbers as text: how each one is written, and the tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NOTHING = "–"
# Key of `measured`, `formula` and `simulation`; name; how it is written.
NUMBERS = (
    ("correlation", "S(W)", ".4f"),
    ("severest_pair", "severest pair", ".3g"),
    ("condition_number", "condition number", ".4g"),
    ("effective_rank", "effective rank", ".1f"),
    ("stable_rank", "stable rank", ".1f"),
    ("largest_cosine", "largest |cos|", ".3f"),
    ("mean_cosine", "mean |cos|", ".4f"),
    ("norm_ratio", "longest / shortest", ".3g"),
)
HEADER = (
    *("weight", "kind", "D × K", "parameters", "S(W)", "of Gaussian", "severest pair", "condition", "effective rank"),
    "largest |cos|",
)


def survey_cells(row: Mapping[str, Any]) -> list[str]:
    """One row of the survey under `HEADER`; a broken one has its reason in the place of S(W)."""
    cells = [row["name"], kind(row), size(row), f"{row['parameters']:,}"]
    if row["broken"]:
        return [*cells, f"broken: {row['broken']}", *[NOTHING] * 5]
    if row["correlation"] is None:
        return [*cells, "no pairs", *[NOTHING] * 5]
    rank = f"{row['effective_rank']:.1f} of {row['groups'] * min(row['d_in'], row['k'] // row['groups'])}"
    return [
        *cells,
        f"{row['correlation']:.4f}",
        f"{row['ratio']:.3f}",
        f"{row['severest_pair']:.3g}",
        condition(row),
        rank,
        f"{row['largest_cosine']:.3f}",
    ]


def survey_table(rows: Sequence[Mapping[str, Any]], top: int = 20) -> str:
    """The first rows, as a Markdown table."""
    lines = [f"| {' | '.join(name.replace('|', chr(92) + '|') for name in HEADER)} |", "|" + "---|" * len(HEADER)]
    lines += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in survey_cells(row))} |" for row in rows[:top]]
    if len(rows) > top:
        lines.append(f"{len(rows) - top} more in diagnosis.json and on the page")
    return "\n".join(lines)


def layer_table(layer: Mapping[str, Any]) -> str:
    """The numbers of one layer beside those of a Gaussian matrix, as a Markdown table, and its first pairs."""
    lines = [f"{layer['name']}: {kind(layer)}, {size(layer)}", "| | this layer | Gaussian, formula | simulated |"]
    lines += ["|---|---|---|---|"]
    lines += [f"| {' | '.join(row).replace('|cos|', chr(92) + '|cos' + chr(92) + '|')} |" for row in number_rows(layer)]
    for title, pairs in (
        ("most correlated vectors", layer["pairs"][:5]),
        ("most alike identities", (layer.get("identities") or {}).get("pairs", [])[:10]),
    ):
        told = ", ".join(f"{pair['first']}–{pair['second']} {cosine(pair['cos'])}" for pair in pairs)
        lines += [f"{title}: {told}"] if pairs else []
    return "\n".join(lines)


def replacement_table(dataset: Mapping[str, Any]) -> str:
    """What another weight in the Eigenlayer's place does without retraining, as a Markdown table."""
    lines = [
        f"replacements on {dataset['name']}, without retraining; rank-1 / mAP of the Eigenlayer's output",
        "| weight | S(W) | loss | raw | L2-normalized |",
        "|---|---|---|---|---|",
    ]
    for row in dataset["replacements"]:
        scores = {score["normalized"]: score for score in row["scores"]}
        told = [
            f"{100 * scores[kind]['rank1']:.1f} / {100 * scores[kind]['mAP']:.1f}" if kind in scores else NOTHING
            for kind in (False, True)
        ]
        numbers = [
            NOTHING if row[key] is None else format(row[key], form)
            for key, form in (("correlation", ".4f"), ("train_loss_after", ".3f"))
        ]
        lines.append(f"| {' | '.join([row['variant'], *numbers, *told])} |")
    return "\n".join(lines)


def number_rows(layer: Mapping[str, Any]) -> list[list[str]]:
    """(name, this layer, formula, simulation) of every number."""
    formula, simulation = layer["formula"] or {}, layer["simulation"] or {}
    rows = []
    for key, name, form in NUMBERS:
        value = layer["measured"][key]
        written = NOTHING if value is None else format(value, form)
        if value is None and key in ("condition_number", "norm_ratio") and layer["formula"]:
            written = "∞"
        expected, drawn = formula.get(key), simulation.get(key)
        rows.append(
            [
                name,
                written,
                NOTHING if expected is None else format(expected, form),
                NOTHING if drawn is None else _spread(drawn, form),
            ]
        )
    return rows


def kind(row: Mapping[str, Any]) -> str:
    """linear, convolution 3×3, ...; with the number of groups where there are some, guessed ones with a "?"."""
    guess = "?" if row["groups_from"] == "shapes" else ""
    if row["groups"] == 1 or row["groups"] == row["k"]:
        return f"{row['kind']}{guess if row['groups'] > 1 else ''}"
    return f"{row['kind']}, {row['groups']} groups{guess}"


def size(row: Mapping[str, Any]) -> str:
    """D × K, of each group where there are several."""
    groups = row["groups"]
    return f"{row['d_in']} × {row['k'] // groups}{f', {groups} times' if groups > 1 else ''}"


def cosine(value: float) -> str:
    """With its sign; one that three digits would call zero with its power of ten."""
    return f"{value:+.3f}" if abs(value) >= 0.0005 or value == 0.0 else f"{value:+.0e}"


def condition(row: Mapping[str, Any]) -> str:
    """The condition number; ∞ where the smallest singular value is zero to rounding."""
    return "∞" if row["condition_number"] is None else f"{row['condition_number']:.4g}"


def _spread(drawn: Mapping[str, float], form: str) -> str:
    mean, low, high = (format(drawn[key], form) for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low} to {high})"
