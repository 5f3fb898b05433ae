"""The part of a diagnosis that needs a dataset, as the partial `diagnosis_dataset.html` reads it."""

from __future__ import annotations

from typing import Any

from reid.report.pages import Chart

FEATURES = {"input": "Eigenlayer's input", "output": "Eigenlayer's output"}
PARTS = {"retrieval": "query and gallery", "train": "training images"}
NAMES = {"UVt": "UVᵀ"}
NOTHING = "–"


def dataset_sections(data: dict[str, Any]) -> dict[str, Any]:
    """Key "dataset" of diagnosis.json -> what the partial reads as the variable `dataset`.

    Render with `dataset=dataset_sections(data["dataset"])`, or `dataset=None` where no dataset was given, and
    `{% include "diagnosis_dataset.html" %}` stands in the page. Needs the extra `report`.
    """
    counts, layer = data["counts"], data["eigenlayer"]
    return {
        "name": data["name"] or "this dataset",
        "counts": (
            f"{counts['query']:,} query and {counts['gallery']:,} gallery images, of which {counts['junk']:,} are junk "
            f"and left out of the statistics; {counts['train']:,} training images of {counts['train_identities']:,} "
            "identities, unaugmented"
        ),
        "features": _feature_rows(data["features"]),
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
            "images": f"{found['images']:,}",
            "dimensions": str(found["dimensions"]),
            "dead": str(found["dead"]),
            "correlation": f"{found['correlation']:.4f}",
            "mean": _number(found["mean_absolute_correlation"], ".4f"),
            "chance": f"{found['by_chance']:.4f}",
            "effective_rank": f"{found['effective_rank']:.1f}",
        }
        for feature, parts in features.items()
        for part, found in parts.items()
    ]


def _input_row(scores: list[dict[str, Any]]) -> dict[str, Any]:
    row = {"variant": "Eigenlayer's input", "correlation": NOTHING, "loss": NOTHING}
    return {**row, "scores": _scores(scores)}


def _replacement_row(row: dict[str, Any]) -> dict[str, Any]:
    loss = NOTHING
    if row["train_loss_after"] is not None:
        loss = f"{_number(row['train_loss_before'], '.3f')} → {row['train_loss_after']:.3f}"
    return {
        "variant": _name(row["variant"]),
        "correlation": _number(row["correlation"], ".4f"),
        "loss": loss if row["variant"] != "Orig" else _number(row["train_loss_after"], ".3f"),
        "scores": _scores(row["scores"]),
    }


def _scores(scores: list[dict[str, Any]]) -> list[str]:
    """rank-1, rank-5, mAP and mINP in percent, raw and then L2-normalized; dashes where there are none."""
    found = []
    for normalized in (False, True):
        entry = next((s for s in scores if s["normalized"] == normalized), None)
        for key in ("rank1", "rank5", "mAP", "mINP"):
            found.append(_number(100 * entry[key] if entry else None, ".1f"))
    return found


def _equality_row(row: dict[str, Any]) -> dict[str, Any]:
    first, second = map(_name, row["variants"])
    return {
        "pair": f"{first} and {second}",
        "deviation": _number(row["max_relative_deviation"], ".1e"),
        "raw": _points(row["largest_score_difference_raw"]),
        "normalized": _points(row["largest_score_difference_normalized"]),
        "verdict": _verdict(row),
        "broken": bool(row["demanded"] and row["equal"] is False),
    }


def _verdict(row: dict[str, Any]) -> str:
    if row["equal"] is None:
        return "one of them does not exist for this weight"
    if row["demanded"]:
        return "equal, as theory demands" if row["equal"] else "NOT equal, though theory demands it"
    return "equal here, though theory does not demand it" if row["equal"] else "theory demands nothing"


def _theory(layer: dict[str, Any]) -> list[str]:
    """What may be expected of the table, given the layer."""
    if layer["relu"]:
        return ["A ReLU follows this Eigenlayer, so theory demands no equality."]
    notes = ["Distances follow from W Wᵀ alone, which US leaves as it is, and which U and UVᵀ have in common."]
    if layer["bias"]:
        notes.append(
            "This Eigenlayer has a bias. It cancels in distances, so those stay equal; in rows divided by their length "
            "it does not, so L2-normalized scores may differ."
        )
    elif layer["d_in"] == layer["k"]:
        notes.append(
            "There are as many weight vectors as dimensions: U and UVᵀ only turn the Eigenlayer's input and score as it"
            " does."
        )
    return notes


def _loss_note(data: dict[str, Any]) -> str:
    if not data["loss_images"]:
        return (
            f"No loss: the network tells {data['classes']:,} identities apart and this dataset trains on "
            f"{data['counts']['train_identities']:,}."
        )
    smoothing = f", label smoothing {data['label_smoothing']:g}" if data["label_smoothing"] else ""
    return (
        f"Loss: on {data['loss_images']:,} training images as they are, in evaluation mode{smoothing}, before → after. "
        "The classifier is left as it is: an input that is turned or stretched lifts the loss."
    )


def _small_row(row: dict[str, Any], whole: int, kept: str) -> dict[str, Any]:
    scores = _scores(row["scores"])
    return {
        "rank": str(row["rank"]),
        "dimensions": str(row["dimensions"]),
        "parameters": f"{row['parameters']:,}",
        "size": f"{100 * row['parameters'] / whole:.0f} %",
        "kept": f"{100 * row[kept]:.1f}",
        "correlation": _number(row.get("correlation"), ".4f"),
        "loss": _number(row.get("train_loss"), ".3f"),
        "scores": [scores[i] for i in (0, 2, 4, 6)],
    }


def _feature_charts(features: dict[str, Any]) -> list[Chart]:
    from reid.report import dataset_figures

    stats = {(feature, part): found for feature, parts in features.items() for part, found in parts.items()}
    told = "; ".join(
        f"{FEATURES[feature]}, {PARTS[part]}: largest {found['spectrum'][0]:.3g}, smallest {found['spectrum'][-1]:.3g},"
        f" effective rank {found['effective_rank']:.1f} of {found['dimensions']}"
        for (feature, part), found in stats.items()
    )
    spectrum = Chart(
        "Spectrum of the features' covariance",
        dataset_figures.covariance_chart({key: found["spectrum"] for key, found in stats.items()}),
        told,
        "Variance along each principal component, largest first. The steeper the fall, the fewer directions carry the"
        " embedding.",
    )
    shares = {
        (feature, kind): [(entry["k"], 100 * entry[kind]) for entry in parts["retrieval"]["variance"]]
        for feature, parts in features.items()
        for kind in ("components", "dimensions")
    }
    kinds = {"components": "principal components", "dimensions": "dimensions"}
    told = "; ".join(
        f"{FEATURES[feature]}, first k {kinds[kind]}: " + ", ".join(f"{k} carry {share:.1f} %" for k, share in points)
        for (feature, kind), points in shares.items()
    )
    variance = Chart(
        "Variance carried by the first k",
        dataset_figures.variance_chart(shares),
        told,
        "Query and gallery. Solid: the k best directions there are. Dashed: the first k dimensions in their order, far"
        " below it where variance is spread over all dimensions.",
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
        told = "; ".join(
            f"{label}: " + ", ".join(f"rank {rank} {value:.1f}" for rank, value in points)
            for label, points in curves.items()
        )
        charts.append(
            Chart(
                f"{name} against rank",
                dataset_figures.compression_chart(curves, whole, name),
                told + (f"; US at full size: {whole:.1f}" if whole is not None else ""),
                "Raw features, without retraining. Dashed: US, which keeps every singular value.",
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
    return NOTHING if fraction is None else f"{100 * fraction:.3f}"


def _number(value: float | None, form: str) -> str:
    return NOTHING if value is None else format(value, form)
