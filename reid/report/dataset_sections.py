"""Values of the template `diagnosis_dataset.html`: the part of a diagnosis that needs a dataset."""

from __future__ import annotations

from typing import Any

from reid.report.pages import Chart
from reid.report.tables import MISSING, number, percent

FEATURES = {"input": "Eigenlayer's input", "output": "Eigenlayer's output"}
PARTS = {"retrieval": "query and gallery", "train": "training images"}
NAMES = {"UVt": "UVᵀ"}


def dataset_sections(data: dict[str, Any]) -> dict[str, Any]:
    """Prepare the variable `dataset` of the template.

    A page includes the template with `{% include "diagnosis_dataset.html" %}` and is rendered with
    `dataset=dataset_sections(...)`, or with `dataset=None` if no dataset was given.

    Args:
        data: "dataset" of `diagnosis.json`.

    Returns:
        Values by name, including the charts.
    """
    counts, layer = data["counts"], data["eigenlayer"]
    return {
        "name": data["name"] or "this dataset",
        "counts": (
            f"{counts['query']:,} query and {counts['gallery']:,} gallery images, of which {counts['junk']:,} are junk "
            f"and excluded from the statistics; {counts['train']:,} training images of {counts['train_identities']:,} "
            "identities, unaugmented"
        ),
        "features": _feature_rows(data["features"]),
        "geometry": _geometry_rows(data.get("geometry", {})),
        "identity_or_camera": _identity_or_camera(data.get("geometry", {})),
        "feature_charts": _feature_charts(data["features"]),
        "replacements": [_input_row(data["input_scores"]), *(_replacement_row(row) for row in data["replacements"])],
        "left_out": [f"{_name(r['variant'])}: {r['left_out']}" for r in data["replacements"] if "left_out" in r],
        "loss": _loss_note(data),
        "theory": _theory(layer),
        "equalities": [_equality_row(row) for row in data["equalities"]["rows"]],
        "bar": f"{data['equalities']['bar']:.0e}",
        "pairs": data["equalities"]["pairs"],
        "compression_charts": _compression_charts(data),
        "truncated": [_small_row(row, layer["parameters"], "energy") for row in data["truncated_svd"]],
        "pca": [_small_row(row, layer["parameters"], "variance") for row in data["pca"]],
        "parameters": layer["parameters"],
        "size": f"{layer['d_in']} × {layer['k']}",
        "whole": _scores(_us(data)),
        "plain": not (layer["bias"] or layer["relu"]),
    }


def _feature_rows(features: dict[str, Any]) -> list[dict[str, str]]:
    return [
        {
            "feature": feature,
            "part": PARTS[part],
            "images": f"{stats['images']:,}",
            "dimensions": str(stats["dimensions"]),
            "dead": str(stats["dead"]),
            "correlation": f"{stats['correlation']:.4f}",
            "mean": number(stats["mean_absolute_correlation"], ".4f"),
            "chance": f"{stats['by_chance']:.4f}",
            "effective_rank": f"{stats['effective_rank']:.1f}",
        }
        for feature, parts in features.items()
        for part, stats in parts.items()
    ]


_GEOMETRY = (
    *(("images", ",d"), ("identities", ",d"), ("rank_me", ".1f"), ("rank_me_by_chance", ".1f")),
    *(("participation_ratio", ".1f"), ("participation_ratio_by_chance", ".1f")),
    *(("alignment", ".3f"), ("alignment_by_chance", ".3f"), ("uniformity", ".3f"), ("uniformity_by_chance", ".3f")),
    *(("nc1", ".3g"), ("nc1_by_chance", ".3g"), ("nc2_norms", ".3f"), ("nc2_norms_by_chance", ".3f")),
    *(("nc2_angles", ".3f"), ("nc2_angles_by_chance", ".3f"), ("nc3", ".3f"), ("nc4", ".3f")),
)


def _geometry_rows(geometry: dict[str, Any]) -> list[dict[str, Any]]:
    """A row per feature and part, followed by one per camera."""
    rows = []
    for feature, parts in geometry.items():
        for part, values in parts.items():
            entries = [(PARTS[part], values), *((f"camera {c['camera']}", c) for c in values.get("cameras", ()))]
            rows += [
                {"feature": feature, "part": name, "cells": [number(entry.get(key), form) for key, form in _GEOMETRY]}
                for name, entry in entries
            ]
    return rows


def _identity_or_camera(geometry: dict[str, Any]) -> list[str]:
    """What the variance of the features of query and gallery comes from, in words."""
    sentences = []
    for feature, parts in geometry.items():
        shares = parts["retrieval"].get("variance")
        if shares is None:
            continue
        sentences.append(
            f"{FEATURES[feature]}: {percent(shares['identity'])} % of the variance lies between identities (by chance "
            f"{percent(shares['identity_by_chance'])} %), {percent(shares['camera'])} % between cameras (by chance "
            f"{percent(shares['camera_by_chance'])} %), and {percent(shares['camera_within_identity'])} % between the "
            "cameras of an identity."
        )
    return sentences


def _input_row(scores: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"variant": "Eigenlayer's input", "correlation": MISSING, "loss": MISSING}
    return {**row, "scores": _scores(scores)}


def _replacement_row(row: dict[str, Any]) -> dict[str, Any]:
    loss = MISSING
    if row["train_loss_after"] is not None:
        loss = f"{number(row['train_loss_before'], '.3f')} → {row['train_loss_after']:.3f}"
    return {
        "variant": _name(row["variant"]),
        "correlation": number(row["correlation"], ".4f"),
        "loss": loss if row["variant"] != "Orig" else number(row["train_loss_after"], ".3f"),
        "scores": _scores(row["scores"]),
    }


def _scores(scores: list[dict[str, Any]]) -> list[str]:
    """rank-1, rank-5, mAP and mINP in percent, raw and then L2-normalized; dashes for missing ones."""
    cells = []
    for normalized in (False, True):
        entry = next((s for s in scores if s["normalized"] == normalized), None)
        for key in ("rank1", "rank5", "mAP", "mINP"):
            cells.append(percent(entry[key] if entry else None))
    return cells


def _equality_row(row: dict[str, Any]) -> dict[str, Any]:
    first, second = map(_name, row["variants"])
    return {
        "pair": f"{first} and {second}",
        "deviation": number(row["max_relative_deviation"], ".1e"),
        "raw": _points(row["largest_score_difference_raw"]),
        "normalized": _points(row["largest_score_difference_normalized"]),
        "verdict": _verdict(row),
        "broken": bool(row["demanded"] and row["equal"] is False),
    }


def _verdict(row: dict[str, Any]) -> str:
    if row["equal"] is None:
        return "one of them is not defined for this weight"
    if row["demanded"]:
        return "equal, as theory requires" if row["equal"] else "NOT equal, although theory requires it"
    return "equal, although theory does not require it" if row["equal"] else "not equal, and theory does not require it"


def _theory(layer: dict[str, Any]) -> list[str]:
    """What theory predicts for the layer."""
    if layer["relu"]:
        return ["A ReLU follows this Eigenlayer, so theory requires no equality."]
    notes = ["Distances depend on W Wᵀ alone, which US preserves, and which is the same for U and UVᵀ."]
    if layer["bias"]:
        notes.append(
            "This Eigenlayer has a bias. It cancels in distances, so those stay equal; after L2 normalization it does "
            "not, so L2-normalized scores may differ."
        )
    elif layer["d_in"] == layer["k"]:
        notes.append(
            "There are as many weight vectors as dimensions: U and UVᵀ only rotate the Eigenlayer's input and have its "
            "scores."
        )
    return notes


def _loss_note(data: dict[str, Any]) -> str:
    if not data["loss_images"]:
        return (
            f"No loss: the classifier has {data['classes']:,} identities, but this dataset has "
            f"{data['counts']['train_identities']:,} training identities."
        )
    smoothing = f", label smoothing {data['label_smoothing']:g}" if data["label_smoothing"] else ""
    return (
        f"Loss: on {data['loss_images']:,} unaugmented training images, in evaluation mode{smoothing}, before → after. "
        "The classifier is unchanged: rotating or scaling its input increases the loss."
    )


def _small_row(row: dict[str, Any], whole: int, kept: str) -> dict[str, Any]:
    scores = _scores(row["scores"])
    return {
        "rank": str(row["rank"]),
        "dimensions": str(row["dimensions"]),
        "parameters": f"{row['parameters']:,}",
        "size": f"{100 * row['parameters'] / whole:.0f} %",
        "kept": percent(row[kept]),
        "correlation": number(row.get("correlation"), ".4f"),
        "loss": number(row.get("train_loss"), ".3f"),
        "scores": [scores[i] for i in (0, 2, 4, 6)],
    }


def _feature_charts(features: dict[str, Any]) -> list[Chart]:
    from reid.report import dataset_figures

    stats = {(feature, part): values for feature, parts in features.items() for part, values in parts.items()}
    alt = "; ".join(
        f"{FEATURES[feature]}, {PARTS[part]}: largest {s['spectrum'][0]:.3g}, smallest {s['spectrum'][-1]:.3g},"
        f" effective rank {s['effective_rank']:.1f} of {s['dimensions']}"
        for (feature, part), s in stats.items()
    )
    spectrum = Chart(
        "Spectrum of the features' covariance",
        dataset_figures.covariance_chart({key: s["spectrum"] for key, s in stats.items()}),
        alt,
        "Variance along each principal component, in descending order. The steeper the curve, the fewer directions"
        " carry the embedding.",
    )
    shares = {
        (feature, kind): [(entry["k"], 100 * entry[kind]) for entry in parts["retrieval"]["variance"]]
        for feature, parts in features.items()
        for kind in ("components", "dimensions")
    }
    kinds = {"components": "principal components", "dimensions": "dimensions"}
    alt = "; ".join(
        f"{FEATURES[feature]}, first k {kinds[kind]}: " + ", ".join(f"{k} carry {share:.1f} %" for k, share in points)
        for (feature, kind), points in shares.items()
    )
    variance = Chart(
        "Variance carried by the first k",
        dataset_figures.variance_chart(shares),
        alt,
        "Query and gallery. Solid: the k best directions. Dashed: the first k dimensions in order, far below the solid"
        " line if variance is spread over all dimensions.",
        key=tuple(dataset_figures.variance_line(*line) for line in shares),
    )
    return [spectrum, variance]


def _compression_charts(data: dict[str, Any]) -> list[Chart]:
    from reid.report import dataset_figures

    rows = {"truncated SVD": data["truncated_svd"], "PCA of the input": data["pca"]}
    charts = []
    for key, name in (("rank1", "rank-1"), ("mAP", "mAP")):
        curves = {label: [(row["rank"], 100 * _raw(row["scores"])[key]) for row in rows[label]] for label in rows}
        us = _us(data)
        whole = 100 * _raw(us)[key] if us else None
        alt = "; ".join(
            f"{label}: " + ", ".join(f"rank {rank} {value:.1f}" for rank, value in points)
            for label, points in curves.items()
        )
        charts.append(
            Chart(
                f"{name} against rank",
                dataset_figures.compression_chart(curves, whole, name),
                alt + (f"; US at full size: {whole:.1f}" if whole is not None else ""),
                "Raw features, without retraining. Dashed: US, which preserves all singular values.",
            )
        )
    return charts


def _us(data: dict[str, Any]) -> list[dict[str, Any]]:
    return next(row["scores"] for row in data["replacements"] if row["variant"] == "US")


def _raw(scores: list[dict[str, Any]]) -> dict[str, Any]:
    return next(entry for entry in scores if not entry["normalized"])


def _name(variant: str) -> str:
    return NAMES.get(variant, variant)


def _points(fraction: float | None) -> str:
    return MISSING if fraction is None else f"{100 * fraction:.3f}"
