"""The page of a diagnosis: `diagnosis.html` from the content of `diagnosis.json`."""

from __future__ import annotations

import base64
import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from reid.records import ImageRecord
from reid.report.dataset_sections import dataset_sections
from reid.report.diagnosis_tables import (
    HEADER,
    above_chance,
    kind,
    number_rows,
    size,
    spectral_rows,
    survey_cells,
)
from reid.report.pages import Chart, Picture, picture, render_page
from reid.report.summary import provenance_rows
from reid.report.thumbnails import thumbnails

MAX_BYTES = 8_000_000
Images = Mapping[int, Sequence[ImageRecord]]


def render(content: Mapping[str, Any], images: Images) -> str:
    """Render the page.

    Args:
        content: Content of `diagnosis.json`.
        images: Images of the identities in it, which are embedded as thumbnails, up to 8 MB of them.

    Returns:
        HTML document.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    layers = [_layer(number, layer, images) for number, layer in enumerate(content["layers"])]
    contents = [(layer["id"], layer["name"]) for layer in layers]
    if "dataset" in content:
        contents += [("section-features", "Features"), ("section-replacements", "Replacements")]
        contents.append(("section-smaller", "Smaller layers"))
    if content.get("survey"):
        contents.append(("section-survey", "Survey"))
    return render_page(
        "diagnosis.html",
        contents=[*contents, ("section-provenance", "Provenance")],
        story=_story(content),
        look=content.get("look", []),
        weights=content["weights"],
        facts=_facts(content),
        header=list(zip(HEADER, _FIELDS, strict=True)),
        survey=[_survey_row(row) for row in content.get("survey", [])],
        layers=layers,
        scale=_scale(),
        dataset=dataset_sections(content["dataset"]) if "dataset" in content else None,
        provenance=provenance_rows(content["provenance"]),
        config_text=content["config"] or "",
    )


def _story(content: Mapping[str, Any]) -> list[str]:
    """What was measured, and what came out for the layers in detail and over the whole network."""
    sentences = []
    for layer in content["layers"][:2]:
        value, chance = layer["measured"]["correlation"], (layer["formula"] or {}).get("correlation")
        if value is not None and chance is not None:
            sentences.append(f"S(W) of {layer['name']} is {value:.4f}, against {chance:.4f} by chance.")
    ratios = [(row["ratio"], row["name"]) for row in content.get("survey", []) if row.get("ratio") is not None]
    if ratios:
        lowest, name = min(ratios)
        more = sum(ratio < 0.98 for ratio, _ in ratios)
        sentences.append(
            f"Of {len(ratios)} weights with pairs of vectors, {more} are more correlated than by chance, most of all "
            f"{name} ({lowest:.3f} of the Gaussian value)."
        )
    return sentences


# Fields by which the columns of the survey are sorted.
_FIELDS = (
    *("name", "kind", "k", "parameters", "correlation", "ratio", "severest_pair", "condition_number"),
    *("effective_rank", "largest_cosine", "alpha", "num_spikes"),
)


def _facts(content: Mapping[str, Any]) -> str:
    parts = [f"{content['tensors']:,} tensors"]
    if "survey" in content:
        total = sum(row["parameters"] for row in content["survey"])
        parts.append(f"{len(content['survey'])} linear and convolution weights with {total:,} numbers")
    return ", ".join(parts)


def _survey_row(row: Mapping[str, Any]) -> dict[str, Any]:
    keys: list[str] = []
    for field in _FIELDS:
        value = (row.get("spectral") or {}).get(field) if field in ("alpha", "num_spikes") else row.get(field)
        # A missing condition number is infinite. Other missing values are sorted last.
        infinite = field == "condition_number" and value is None and row.get("correlation") is not None
        keys.append("1e999" if infinite else "" if value is None else str(value))
    return {"cells": list(zip(survey_cells(row), keys, strict=True)), "broken": bool(row["broken"])}


def _layer(number: int, layer: Mapping[str, Any], images: Images) -> dict[str, Any]:
    return {
        "id": f"layer{number}",
        "name": layer["name"],
        "title": f"{kind(layer)}, {size(layer)}",
        "verdict": _verdict(layer),
        "numbers": number_rows(layer),
        "spectral": spectral_rows(layer),
        "simulations": (layer["simulation"] or {}).get("draws", 0),
        "dead": layer["measured"]["dead_vectors"],
        "zero": layer["measured"]["zero_vectors"],
        "charts": _charts(number, layer),
        "gram": _gram(layer),
        "pairs": [(p["first"], p["second"], f"{p['cos']:+.3f}") for p in above_chance(layer, layer["pairs"])],
        "chance": f"{layer['formula']['largest_cosine']:.3f}" if layer["pairs"] else "",
        "identities": _identities(layer, images),
    }


def _verdict(layer: Mapping[str, Any]) -> str:
    """S(W) compared with chance, in words."""
    value, ratio = layer["measured"]["correlation"], layer["ratio"]
    if value is None:
        if layer["groups"] == 1:
            living = "living " if layer["k"] > 1 else ""
            return f"There is only one {living}weight vector, so there is no pair to compare."
        if layer["groups"] < layer["k"]:
            return "No group has more than one living weight vector, so there is no pair to compare."
        return "Every kernel sees only its own channel, so there is no pair of weight vectors to compare."
    by_chance = layer["formula"]["correlation"]
    text = f"S(W) is {value:.4f}; for as many Gaussian vectors of this length it is {by_chance:.4f}. "
    if value > 0.999:
        return text + "The weight vectors are orthogonal."
    if abs(ratio - 1) > 0.02:
        more = "less" if ratio > 1 else "more"
        return text + f"The vectors are {more} correlated than by chance: S(W) is {ratio:.2f} times the Gaussian value."
    return text + "The vectors are as correlated as by chance."


def _charts(number: int, layer: Mapping[str, Any]) -> list[Chart]:
    from reid.report import diagnosis_figures as figures

    values, expected, norms = layer["spectrum"], layer["spectrum_expected"], layer["norms"]
    rank = layer["measured"]["effective_rank"]
    spectrum = f"Largest {values[0]:.3g}, smallest {values[-1]:.3g}; Gaussian: {expected[0]:.3g} and {expected[-1]:.3g}"
    charts = []
    if rank is not None:
        charts = [
            Chart(
                "Singular values",
                figures.spectrum_chart(values, expected, f"spectrum{number}"),
                f"{spectrum}; effective rank {rank:.1f} of {len(values)}",
                "A curve flatter than the Gaussian one uses its directions more evenly. A steep start means that a few "
                "directions dominate, a drop at the end that some vectors are linear combinations of others.",
            ),
            Chart(
                "Cosines of all pairs",
                figures.histogram_chart(layer["histogram"]["counts"], layer["histogram"]["gaussian"], f"cos{number}"),
                f"{sum(layer['histogram']['counts']):,} pairs; mean |cos| {layer['measured']['mean_cosine']:.4f}, "
                f"largest {layer['measured']['largest_cosine']:.3f}",
                "Good: a narrow peak around 0, no wider than the Gaussian curve. Bars far outside of it are vectors "
                "that point in similar or opposite directions.",
            ),
        ]
    charts.append(
        Chart(
            "Norms of the weight vectors",
            figures.norms_chart(norms, layer["norms_expected"], f"norms{number}"),
            f"Longest {max(norms):.3g}, shortest {min(norms):.3g}; Gaussian: {layer['norms_expected'][0]:.3g} and "
            f"{layer['norms_expected'][-1]:.3g}",
            "Vectors with a large norm have more weight in distances. A flat curve is normal. After US, the norms are "
            "the singular values.",
        )
    )
    return charts


def _gram(layer: Mapping[str, Any]) -> dict[str, Any] | None:
    from reid.report import diagnosis_figures as figures

    gram = layer["gram"]
    if gram is None:
        return None
    pixels = np.frombuffer(base64.b64decode(gram["pixels"]), dtype=np.uint8).reshape(gram["size"], gram["size"])
    vectors, block = len(gram["order"]), gram["block"]
    alt = (
        f"Matrix of the absolute cosines between {vectors:,} weight vectors of {layer['name']}, similar ones side by "
        f"side. Off the diagonal, the largest is {layer['measured']['largest_cosine']:.3f} and the mean "
        f"{layer['measured']['mean_cosine']:.4f}"
    )
    notes = ["ordered by hierarchical clustering"]
    if not gram["clustered"]:
        notes = ["in the order of the file, as there are too many to cluster"]
    if block > 1:
        notes.append(f"each pixel is the largest |cos| among {block} × {block} pairs of different vectors")
    return {
        "picture": picture(figures.colored(pixels), alt=alt, max_side=gram["size"], kind="PNG"),
        "notes": "; ".join(notes),
    }


def _scale() -> Picture:
    from reid.report import diagnosis_figures as figures

    return picture(figures.scale_bar(), alt="Color scale from |cos| 0, dark, to 1, bright", max_side=256, kind="PNG")


def _identities(layer: Mapping[str, Any], images: Images) -> dict[str, Any] | None:
    """Each pair of identities that is more similar than by chance, with their images, up to the size limit."""
    alike = layer.get("identities")
    if alike is None:
        return None
    alike = {**alike, "pairs": above_chance(layer, alike["pairs"])}
    shown = Counter(pair[side] for pair in alike["pairs"] for side in ("first", "second"))
    small = thumbnails(image.path for identity in shown for image in images.get(identity, ()))
    kept: dict[int, list[Picture]] = {identity: [] for identity in shown}
    remaining = MAX_BYTES
    for identity, times in shown.items():
        for image in images.get(identity, ()):
            found = small[image.path]
            if found and times * len(found.src) <= remaining:
                remaining -= times * len(found.src)
                kept[identity].append(dataclasses.replace(found, alt=f"identity {identity}, camera {image.camera}"))
    pairs = [
        {
            "cos": f"{pair['cos']:+.3f}",
            "identities": [(pair[side], pair[f"{side}_row"], kept[pair[side]]) for side in ("first", "second")],
        }
        for pair in alike["pairs"]
    ]
    unread = list(small.values()).count(None)
    return {"pairs": pairs, "dataset": alike["dataset"], "pictures": any(kept.values()), "unread": unread}
