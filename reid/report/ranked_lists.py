"""The page of ranked lists, out of what `ranked_lists.json` holds and the image files it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid.report import pages

FRAME = (56, 112)  # pixels, width and height of a picture on the page; one of another shape is centered in it
MAX_BYTES = 10_000_000  # of pictures on a page
MEASURES = {
    "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mAP_trapezoid": "mAP trapezoid",
    "mINP": "mINP",
}  # fmt: skip


def write_page(path: Path, content: dict[str, Any]) -> Path:
    """Write the page of `diagnostics.retrieval.describe_retrieval`'s content to `path`; returns it.

    Each image file named in "lists" is inlined once, small, up to 10 MB of them; one that cannot be read leaves an
    empty frame. Raises InputError where the extra `report` is missing.
    """
    return pages.write_page(path, render(content))


def render(content: dict[str, Any]) -> str:
    """The page as text."""
    pages.check_available()
    from reid.report.ranked_figures import map_chart, thumbnails

    lists, sides = content["lists"], content["sides"]
    named = [
        path
        for entry in lists
        for path in (entry["path"], *(answer["path"] for side in entry["sides"] for answer in side["answers"]))
    ]
    pictures = {path: small for path, small in thumbnails(named).items() if small}
    found = as_fit(named, pictures)
    places = {path: f"p{number}" for number, path in enumerate(found)}
    return pages.render_page(
        "ranked_lists.html",
        dataset=content["dataset"],
        counts=content["counts"],
        sides=sides,
        variants=[_variant(side["scores"]) for side in sides],
        measures=MEASURES,
        comparison=content["comparison"],
        listed=content["listed"],
        queries=[_query(entry, places) for entry in lists],
        cameras=sorted({entry["camera"] for entry in lists}),
        pictures=[(places[path], pictures[path]) for path in found],
        unread=len(set(named)) - len(pictures),
        left_out=len(pictures) - len(found),
        frame=FRAME,
        matrices=[_matrix(sides, name) for name in ("rank1", "mAP")] if sides[0]["camera_pairs"]["images"] else [],
        maps=[map_chart(side, number) for number, side in enumerate(sides) if side["map"]],
    )


def as_fit(named: list[str], pictures: dict[str, pages.Picture]) -> list[str]:
    """The images for which a page has room, those named first, each once."""
    found, room = [], MAX_BYTES
    for path in dict.fromkeys(named):
        if path in pictures and len(pictures[path].src) <= room:
            room -= len(pictures[path].src)
            found.append(path)
    return found


def _variant(score: dict[str, Any]) -> str:
    feature = {"input": "Eigenlayer input", "output": "Eigenlayer output"}.get(score["feature"], score["feature"])
    normalized = "L2-normalized" if score["normalized"] else "raw"
    return ", ".join(part for part in (feature, normalized, "flip test" if score["flip"] else "no flip test") if part)


def _query(entry: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    """What a card shows; alternative texts first."""
    return {
        **entry,
        "alt": f"query: identity {entry['identity']}, camera {entry['camera']}",
        "picture": places.get(entry["path"], ""),
        "file": _name(entry["path"]),
        "sides": [
            {**side, "answers": [_answer(answer, places) for answer in side["answers"]]} for side in entry["sides"]
        ],
    }


def _answer(answer: dict[str, Any], places: dict[str, str]) -> dict[str, Any]:
    who = f"identity {answer['identity']}" if answer["identity"] > 0 else "a distractor"
    verdict = "right" if answer["right"] else "wrong"
    missing = "" if answer["path"] in places else ", no picture"
    return {
        **answer,
        "alt": f"{who}, camera {answer['camera']}, rank {answer['rank']}, {verdict}{missing}",
        "verdict": verdict,
        "distance": _three_digits(answer["distance"]),
        "picture": places.get(answer["path"], ""),
        "file": _name(answer["path"]),
    }


def _three_digits(distance: float) -> str:
    """0.123, 1.23, 12.3, 123: zeros at the end are kept, so that neighbors line up."""
    return f"{distance:.{3 if distance < 1 else 2 if distance < 10 else 1 if distance < 100 else 0}f}"


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _matrix(sides: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    """The table of one measure by camera pair: of the first side, with its difference from the second."""
    pairs = [side["camera_pairs"] for side in sides]
    values = [value for row in pairs[0][measure] for value in row if value is not None]
    low, high = min(values, default=0.0), max(values, default=1.0)
    rows = []
    for a, camera in enumerate(pairs[0]["query_cameras"]):
        cells: list[dict[str, Any] | None] = []
        for b in range(len(pairs[0]["gallery_cameras"])):
            value = pairs[0][measure][a][b]
            if value is None:
                cells.append(None)
                continue
            difference = value - pairs[1][measure][a][b] if len(pairs) == 2 else None
            heat = (value - low) / (high - low) if high > low else 0.5
            cells.append({"value": value, "difference": difference, "heat": round(heat, 3)})
        rows.append({"camera": camera, "cells": cells})
    return {"id": f"pairs-{measure.lower()}", "name": MEASURES[measure], "rows": rows, "low": low, "high": high}
