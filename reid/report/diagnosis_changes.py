"""The page and the table of a diagnosis of two checkpoints."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reid.report.dataset_sections import FEATURES
from reid.report.diagnosis_tables import kind, size
from reid.report.pages import render_page
from reid.report.summary import provenance_rows
from reid.report.tables import MISSING, Table, number

# The values of both sides: their key, heading and format.
SIDES = (
    ("correlation", "S(W)", ".4f"),
    ("ratio", "of Gaussian", ".3f"),
    ("severest_pair", "severest pair", ".3g"),
    ("condition_number", "condition number", ".3g"),
    ("effective_rank", "effective rank", ".1f"),
)
HEADER = (
    *("weight", "kind", "D × K"),
    *(heading for _, name, _ in SIDES for heading in (f"{name} before", "after")),
    *("distance", "after a rotation", "overlap", "by chance", "largest angle"),
)
LOOK_AT = 3
# In 80 characters.
_SHOWN = ("weight", "S(W) before", "after", "distance", "after a rotation", "overlap")


def render_changes(content: Mapping[str, Any]) -> str:
    """Render the page.

    Args:
        content: Content of `diagnosis.json` with "changes".

    Returns:
        HTML document.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    changes = content["changes"]
    return render_page(
        "diagnosis_changes.html",
        contents=[("section-layers", "Layers"), ("section-provenance", "Provenance")],
        weights=content["weights"],
        against=content["against"],
        story=_story(content),
        header=HEADER,
        layers=[_cells(row) for row in changes["layers"]],
        unmatched=changes["unmatched"],
        features=_feature_rows(changes.get("features", {})),
        dataset=changes.get("dataset", ""),
        provenance=provenance_rows(content["provenance"]),
        config_text=content["config"] or "",
    )


def changes_tables(content: Mapping[str, Any], top: int = 20) -> list[Table]:
    """Format the most changed layers and the features for the terminal.

    Args:
        content: Content of `diagnosis.json` with "changes".
        top: Number of layers to show.

    Returns:
        A table of layers and, with a dataset, one of features.
    """
    changes = content["changes"]
    # "after" of S(W) is the first of its name.
    columns = [HEADER.index(name) for name in _SHOWN]
    rows = [[cells[column] for column in columns] for cells in map(_cells, changes["layers"][:top])]
    more = len(changes["layers"]) - top
    notes = [f"{more} more in diagnosis.json and on the page"] if more > 0 else []
    if changes["unmatched"]:
        notes.append(f"not in both: {', '.join(changes['unmatched'][:5])}{' ...' * (len(changes['unmatched']) > 5)}")
    title = f"{content['weights']} against {content['against']}"
    tables = [Table(_SHOWN, rows, title=title, note="\n".join(notes))]
    features = _feature_rows(changes.get("features", {}))
    return tables + (
        [Table(("features", "linear CKA", "by chance", "Procrustes", "by chance"), features)] if features else []
    )


def _story(content: Mapping[str, Any]) -> list[str]:
    rows = [row for row in content["changes"]["layers"] if row["broken"] is None]
    sentences = []
    moved = [row for row in rows if None not in (row["before"]["ratio"], row["after"]["ratio"])]
    if moved:
        moved.sort(key=lambda row: -abs(row["after"]["ratio"] - row["before"]["ratio"]))
        changes = [
            f"{row['name']} (from {row['before']['correlation']:.4f} to {row['after']['correlation']:.4f})"
            for row in moved[:LOOK_AT]
        ]
        sentences.append(f"S(W) changed most in {', '.join(changes)}.")
    if rows and rows[0]["distance"] == 0.0:
        sentences.append("All weights are equal.")
    elif rows:
        moves = [
            f"{row['name']} (by {row['distance']:.2f} of its length, {row['procrustes']:.2f} up to a rotation)"
            for row in rows[:LOOK_AT]
        ]
        sentences.append(f"The weights that moved farthest are {', '.join(moves)}.")
    for name, values in content["changes"].get("features", {}).items():
        sentences.append(
            f"Linear CKA of the {FEATURES[name]} is {values['cka']:.3f}, by chance {values['cka_by_chance']:.3f}."
        )
    return sentences


def _cells(row: Mapping[str, Any]) -> list[str]:
    before, after = row["before"], row["after"]
    cells = [row["name"], kind(row), size(row)]
    if row["broken"]:
        return [*cells, f"invalid: {row['broken']}", *[""] * (len(HEADER) - 4)]
    for key, _, form in SIDES:
        cells += [number(side[key], form) for side in (before, after)]
    return [
        *cells,
        f"{row['distance']:.3f}",
        f"{row['procrustes']:.3f}",
        number(row["overlap"], ".3f"),
        number(row["overlap_by_chance"], ".3f"),
        MISSING if row["largest_angle"] is None else f"{row['largest_angle']:.1f}°",
    ]


def _feature_rows(features: Mapping[str, Any]) -> list[list[str]]:
    keys = [f"{measure}{suffix}" for measure in ("cka", "procrustes") for suffix in ("", "_by_chance")]
    return [[FEATURES[name], *(number(values[key], ".4f") for key in keys)] for name, values in features.items()]
