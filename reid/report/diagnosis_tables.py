"""Numbers of a diagnosis as text: how each one is formatted, and the tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from reid.report.tables import MISSING, Table, number, percent

# Key of `measured`, `formula` and `simulation`; name; format.
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
    *("largest |cos|", "α", "spikes"),
)
# Key of `spectral` and of its `shuffled`; name; format.
SPECTRAL = (
    ("alpha", "exponent α of the power-law tail", ".3f"),
    ("sigma", "standard error of α", ".3f"),
    ("D", "Kolmogorov–Smirnov distance of the fit", ".3f"),
    ("xmin", "smallest eigenvalue of the tail", ".4g"),
    ("num_pl_spikes", "eigenvalues in the tail", ",d"),
    ("num_spikes", "eigenvalues above the Marchenko–Pastur bulk", ",d"),
    ("bulk_max", "upper edge of the bulk", ".4g"),
    ("mp_softrank", "edge / largest eigenvalue", ".3f"),
    ("spectral_norm", "largest eigenvalue", ".4g"),
    ("norm", "sum of the eigenvalues", ".4g"),
    ("stable_rank", "stable rank of all matrices", ".1f"),
    ("matrix_rank", "eigenvalues above rounding", ",d"),
    ("entropy", "entropy of the eigenvalues", ".4f"),
    ("alpha_weighted", "α log₁₀ of the largest eigenvalue", ".3f"),
    ("log_alpha_norm", "log₁₀ of the sum of the eigenvalues to the power α", ".3f"),
)
# In 80 characters.
SHOWN = ("weight", "D × K", "S(W)", "of Gaussian", "condition", "effective rank")


def survey_cells(row: Mapping[str, Any]) -> list[str]:
    """Format one row of the survey.

    Args:
        row: Entry of "survey" in `diagnosis.json`.

    Returns:
        Cells under `HEADER`. An invalid weight has the reason in place of S(W).
    """
    cells = [row["name"], kind(row), size(row), f"{row['parameters']:,}"]
    if row["broken"]:
        return [*cells, f"invalid: {row['broken']}", *[MISSING] * 7]
    if row["correlation"] is None:
        return [*cells, "no pairs", *[MISSING] * 7]
    rank = f"{row['effective_rank']:.1f} of {row['groups'] * min(row['d_in'], row['k'] // row['groups'])}"
    return [
        *cells,
        f"{row['correlation']:.4f}",
        f"{row['ratio']:.3f}",
        f"{row['severest_pair']:.3g}",
        "∞" if row["condition_number"] is None else f"{row['condition_number']:.4g}",
        rank,
        f"{row['largest_cosine']:.3f}",
        number((row["spectral"] or {}).get("alpha"), ".2f"),
        number((row["spectral"] or {}).get("num_spikes"), ",d"),
    ]


def survey_table(rows: Sequence[Mapping[str, Any]], top: int = 20) -> Table:
    """Format the first rows of a survey.

    Args:
        rows: "survey" of `diagnosis.json`.
        top: Number of rows to show.

    Returns:
        A table with one row per layer, and the columns of `HEADER` that fit a terminal.
    """
    columns = [HEADER.index(name) for name in SHOWN]
    shown = [[cells[column] for column in columns] for cells in map(survey_cells, rows[:top])]
    note = f"{len(rows) - top} more in diagnosis.json and on the page" if len(rows) > top else ""
    return Table(SHOWN, shown, note=note)


def layer_table(layer: Mapping[str, Any]) -> Table:
    """Format the numbers of one layer next to those of a Gaussian matrix, and list its first pairs.

    Args:
        layer: Entry of "layers" in `diagnosis.json`.

    Returns:
        A table, with a list of pairs below it.
    """
    notes = []
    for title, found, count in (
        ("most correlated vectors", layer["pairs"], 5),
        ("most similar identities", (layer.get("identities") or {}).get("pairs", []), 10),
    ):
        pairs = above_chance(layer, found)[:count]
        listed = ", ".join(f"{pair['first']}–{pair['second']} {pair['cos']:+.3f}" for pair in pairs)
        notes += [f"{title}: {listed}"] if pairs else []
    title = f"{layer['name']}: {kind(layer)}, {size(layer)}"
    header = ("", "this layer", "Gaussian, formula", "simulated")
    return Table(header, number_rows(layer), title=title, note="\n".join(notes))


def replacement_table(dataset: Mapping[str, Any]) -> Table:
    """Format the effect of other weights in place of the Eigenlayer's, without retraining.

    Args:
        dataset: "dataset" of `diagnosis.json`.

    Returns:
        A table with one row per variant.
    """
    title = f"replacements on {dataset['name']}, without retraining;\nrank-1 / mAP of the Eigenlayer's output"
    rows = []
    for row in dataset["replacements"]:
        scores = {score["normalized"]: score for score in row["scores"]}
        cells = [
            f"{percent(scores[normalized]['rank1'])} / {percent(scores[normalized]['mAP'])}"
            if normalized in scores
            else MISSING
            for normalized in (False, True)
        ]
        rows.append([row["variant"], number(row["correlation"], ".4f"), number(row["train_loss_after"], ".3f"), *cells])
    return Table(("weight", "S(W)", "loss", "raw", "L2-normalized"), rows, title=title)


def number_rows(layer: Mapping[str, Any]) -> list[list[str]]:
    """Format all numbers of one layer.

    Args:
        layer: Entry of "layers" in `diagnosis.json`.

    Returns:
        (name, this layer, formula, simulation) of each number.
    """
    formula, simulation = layer["formula"] or {}, layer["simulation"] or {}
    rows = []
    for key, name, form in NUMBERS:
        value, simulated = layer["measured"][key], simulation.get(key)
        infinite = value is None and key == "condition_number" and layer["formula"]
        rows.append(
            [
                name,
                "∞" if infinite else number(value, form),
                number(formula.get(key), form),
                MISSING if simulated is None else _range(simulated, form),
            ]
        )
    return rows


def spectral_rows(layer: Mapping[str, Any]) -> list[list[str]]:
    """Format the shape of a layer's spectrum.

    Args:
        layer: Entry of "layers" in `diagnosis.json`.

    Returns:
        (name, this layer, its shuffled weight) of each number; empty without a spectrum.
    """
    values = layer.get("spectral")
    if not values:
        return []
    shuffled = values["shuffled"]
    return [[name, number(values[key], form), number(shuffled[key], form)] for key, name, form in SPECTRAL]


def kind(row: Mapping[str, Any]) -> str:
    """Describe the kind of a layer.

    Args:
        row: Entry of "survey" or "layers" in `diagnosis.json`.

    Returns:
        Text such as "linear" or "convolution 3×3", with the number of groups if there are several. A question mark
        means that they were guessed.
    """
    guess = "?" if row["groups_from"] == "shapes" else ""
    if row["groups"] == 1 or row["groups"] == row["k"]:
        return f"{row['kind']}{guess if row['groups'] > 1 else ''}"
    return f"{row['kind']}, {row['groups']} groups{guess}"


def size(row: Mapping[str, Any]) -> str:
    """Describe the size of a layer.

    Args:
        row: Entry of "survey" or "layers" in `diagnosis.json`.

    Returns:
        D × K, per group if there are several, and the number of dead vectors if there are any.
    """
    groups, dead = row["groups"], row.get("measured", row).get("dead_vectors")
    times = f", {groups} times" if groups > 1 else ""
    return f"{row['d_in']} × {row['k'] // groups}{times}{f', {dead} dead' if dead else ''}"


def above_chance(layer: Mapping[str, Any], pairs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Select the pairs that are more similar than the most similar pair among as many Gaussian vectors.

    Args:
        layer: Entry of "layers" in `diagnosis.json`.
        pairs: Its "pairs" or those of its "identities".

    Returns:
        The pairs whose |cos| is above the median of the largest |cos| of Gaussian vectors.
    """
    chance = (layer["formula"] or {}).get("largest_cosine") or 0.0
    return [pair for pair in pairs if abs(pair["cos"]) > chance]


def _range(simulated: Mapping[str, float], form: str) -> str:
    mean, low, high = (format(simulated[key], form) for key in ("mean", "min", "max"))
    return mean if low == high else f"{mean} ({low} to {high})"
