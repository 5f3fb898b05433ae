"""The page of a diagnosis: `diagnosis.html` out of the content of `diagnosis.json`."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.atomic import write_text
from reid.records import ImageRecord
from reid.report.dataset_sections import dataset_sections
from reid.report.diagnosis_tables import HEADER, NOTHING, cosine, kind, number_rows, size, survey_cells
from reid.report.pages import Chart, Picture, picture, provenance_facts, render_page

THUMBNAIL, MAX_BYTES = 128, 8_000_000
Images = Mapping[int, Sequence[ImageRecord]]


def write_diagnosis(folder: Path, told: Mapping[str, Any], *, images: Images | None = None) -> Path:
    """Write `diagnosis.html` into `folder`. told: the content of `diagnosis.json`; images: of the identities in it.

    Images go into the page as thumbnails, up to 8 MB of them. Raises InputError where the extra `report` is missing.
    """
    path = folder / "diagnosis.html"
    write_text(path, render(told, images or {}))
    return path


def render(told: Mapping[str, Any], images: Images) -> str:
    """The page as text."""
    return render_page(
        "diagnosis.html",
        weights=told["weights"],
        facts=_facts(told),
        header=list(zip(HEADER, _FIELDS, strict=True)),
        survey=[_survey_row(row) for row in told.get("survey", [])],
        layers=[_layer(number, layer, images) for number, layer in enumerate(told["layers"])],
        scale=_scale(),
        dataset=dataset_sections(told["dataset"]) if "dataset" in told else None,
        provenance=_provenance(told["provenance"]),
        config_text=told["config"] or "",
    )


# What a column of the survey is sorted by.
_FIELDS = (
    *("name", "kind", "k", "parameters", "correlation", "ratio", "severest_pair", "condition_number"),
    *("effective_rank", "largest_cosine"),
)


def _facts(told: Mapping[str, Any]) -> str:
    parts = [f"{told['tensors']:,} tensors"]
    if "survey" in told:
        total = sum(row["parameters"] for row in told["survey"])
        parts.append(f"{len(told['survey'])} linear and convolution weights with {total:,} numbers")
    return ", ".join(parts)


def _survey_row(row: Mapping[str, Any]) -> dict[str, Any]:
    keys: list[str] = []
    for field in _FIELDS:
        value = row.get(field)
        # A condition number that is no number is infinite; other gaps are gaps and go last.
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
        "draws": (layer["simulation"] or {}).get("draws", 0),
        "zero": layer["measured"]["zero_vectors"],
        "charts": _charts(number, layer),
        "gram": _gram(layer),
        "pairs": [(p["first"], p["second"], cosine(p["cos"])) for p in layer["pairs"]],
        "identities": _identities(layer.get("identities"), images),
    }


def _verdict(layer: Mapping[str, Any]) -> str:
    """S(W) against chance, in words."""
    value, ratio = layer["measured"]["correlation"], layer["ratio"]
    if value is None:
        if layer["groups"] == 1:
            return "There is one weight vector, so there is no pair to compare."
        return "Every kernel sees its own channel alone, so there is no pair of weight vectors to compare."
    told = f"S(W) is {value:.4f}; Gaussian vectors, as many and as long, have {layer['formula']['correlation']:.4f}. "
    if value > 0.999:
        return told + "The weight vectors are orthogonal: nothing of what one measures is measured by another."
    if abs(ratio - 1) > 0.02:
        more = "less" if ratio > 1 else "more"
        return told + f"These are {more} correlated than chance makes them: {ratio:.2f} of it."
    return told + "These are as correlated as chance makes them."


def _charts(number: int, layer: Mapping[str, Any]) -> list[Chart]:
    from reid.report import diagnosis_figures as figures

    values, expected, norms = layer["spectrum"], layer["spectrum_expected"], layer["norms"]
    rank = layer["measured"]["effective_rank"]
    told = f"Largest {values[0]:.3g}, smallest {values[-1]:.3g}; Gaussian: {expected[0]:.3g} and {expected[-1]:.3g}"
    charts = []
    if rank is not None:
        charts = [
            Chart(
                "Singular values",
                figures.spectrum_chart(values, expected, f"spectrum{number}"),
                f"{told}; effective rank {rank:.1f} of {len(values)}",
                "A line flatter than the Gaussian one uses its directions more evenly; a steep start means that a few "
                "directions carry most of the layer, a drop at the end that some vectors are combinations of others.",
            ),
            Chart(
                "Cosines of all pairs",
                figures.histogram_chart(layer["histogram"]["counts"], layer["histogram"]["gaussian"], f"cos{number}"),
                f"{sum(layer['histogram']['counts']):,} pairs; mean |cos| {layer['measured']['mean_cosine']:.4f}, "
                f"largest {layer['measured']['largest_cosine']:.3f}",
                "Good: a narrow heap around 0, within the Gaussian line or narrower. Bars far outside it are vectors "
                "that point the same way, or opposite ways, on purpose or by neglect.",
            ),
        ]
    charts.append(
        Chart(
            "Lengths of the weight vectors",
            figures.norms_chart(norms, layer["norms_expected"], f"norms{number}"),
            f"Longest {max(norms):.3g}, shortest {min(norms):.3g}; Gaussian: {layer['norms_expected'][0]:.3g} and "
            f"{layer['norms_expected'][-1]:.3g}",
            "Long vectors weigh more in distances. A level line is ordinary; after US, lengths are the singular values "
            "and fall as those do.",
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
        f"Picture of the absolute cosines between {vectors:,} weight vectors of {layer['name']}, similar ones side by "
        f"side: apart from the diagonal they reach {layer['measured']['largest_cosine']:.3f}, with a mean of "
        f"{layer['measured']['mean_cosine']:.4f}"
    )
    notes = ["ordered by hierarchical clustering" if gram["clustered"] else "in the order of the file, being too many"]
    if block > 1:
        notes.append(f"each pixel is the largest |cos| among {block} × {block} pairs of different vectors")
    return {
        "picture": picture(figures.colored(pixels), alt=alt, max_side=gram["size"], kind="PNG"),
        "notes": "; ".join(notes),
    }


def _scale() -> Picture:
    from reid.report import diagnosis_figures as figures

    return picture(figures.scale_bar(), alt="Colors from |cos| 0, dark, to 1, bright", max_side=256, kind="PNG")


def _identities(found: Mapping[str, Any] | None, images: Images) -> dict[str, Any] | None:
    """Each pair with its people; pictures as long as there is room for them."""
    if found is None:
        return None
    room, unread = MAX_BYTES, 0
    shown = Counter(pair[side] for pair in found["pairs"] for side in ("first", "second"))
    drawn: dict[int, list[Picture]] = {identity: [] for identity in shown}
    for identity, times in shown.items():
        for image in images.get(identity, ()):
            alt = f"identity {identity}, camera {image.camera}"
            try:
                thumbnail = picture(Path(image.path).read_bytes(), alt=alt, max_side=THUMBNAIL)
            except (OSError, InputError):
                unread += 1
                continue
            if times * len(thumbnail.src) <= room:
                room -= times * len(thumbnail.src)
                drawn[identity].append(thumbnail)
    pairs = [
        {
            "cos": cosine(pair["cos"]),
            "people": [(pair[side], pair[f"{side}_row"], drawn[pair[side]]) for side in ("first", "second")],
        }
        for pair in found["pairs"]
    ]
    return {"pairs": pairs, "dataset": found["dataset"], "pictures": any(drawn.values()), "unread": unread}


def _provenance(told: Mapping[str, Any]) -> list[tuple[str, str]]:
    facts = provenance_facts(told)
    return [(name, str(facts[name] or NOTHING)) for name in ("command", "commit", "versions", "processor")]
