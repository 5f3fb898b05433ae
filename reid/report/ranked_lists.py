"""The page of ranked lists, from the content of `ranked_lists.json` and the image files it names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from reid.report import pages
from reid.report.tables import variant_name
from reid.report.thumbnails import FRAME, page_images

MEASURES = {
    "rank1": "rank-1", "rank5": "rank-5", "rank10": "rank-10", "mAP": "mAP", "mAP_trapezoid": "mAP trapezoid",
    "mINP": "mINP",
}  # fmt: skip


def render(content: dict[str, Any]) -> str:
    """Render the page.

    Args:
        content: Result of `diagnostics.retrieval.describe_retrieval`. Thumbnails of the images named in "lists" are
            embedded, up to a total size.

    Returns:
        HTML document.

    Raises:
        InputError: If the extra `report` is not installed.
    """
    pages.check_available()
    from reid.report.ranked_figures import map_chart

    lists, sides = content["lists"], content["sides"]
    images = page_images(card_paths(lists))
    return pages.render_page(
        "ranked_lists.html",
        dataset=content["dataset"],
        counts=content["counts"],
        sides=sides,
        variants=[variant_name(side["scores"]) for side in sides],
        measures=MEASURES,
        comparison=content["comparison"],
        listed=content["listed"],
        queries=[query_card(entry, images.ids) for entry in lists],
        cameras=sorted({entry["camera"] for entry in lists}),
        images=images,
        frame=FRAME,
        matrices=[_matrix(sides, name) for name in ("rank1", "mAP")] if sides[0]["camera_pairs"]["images"] else [],
        maps=[map_chart(side, number) for number, side in enumerate(sides) if side["map"]],
    )


def card_paths(entries: Iterable[dict[str, Any]]) -> list[str]:
    """List the image files on the cards of queries.

    Args:
        entries: Entries of "lists" in `ranked_lists.json`.

    Returns:
        Paths of the queries and their results, in order of appearance.
    """
    return [
        path
        for entry in entries
        for path in (entry["path"], *(answer["path"] for side in entry["sides"] for answer in side["answers"]))
    ]


def query_card(entry: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    """Prepare what the card of a query shows.

    Args:
        entry: Entry of "lists" in `ranked_lists.json`.
        ids: `PageImages.ids`.

    Returns:
        The entry with the id and the text alternative of each image.
    """
    return {
        **entry,
        "alt": f"query: identity {entry['identity']}, camera {entry['camera']}",
        "picture": ids.get(entry["path"], ""),
        "file": _name(entry["path"]),
        "sides": [{**side, "answers": [_answer(answer, ids) for answer in side["answers"]]} for side in entry["sides"]],
    }


def _answer(answer: dict[str, Any], ids: dict[str, str]) -> dict[str, Any]:
    identity = f"identity {answer['identity']}" if answer["identity"] > 0 else "a distractor"
    verdict = "right" if answer["right"] else "wrong"
    missing = "" if answer["path"] in ids else ", no image"
    return {
        **answer,
        "alt": f"{identity}, camera {answer['camera']}, rank {answer['rank']}, {verdict}{missing}",
        "verdict": verdict,
        "distance": _three_digits(answer["distance"]),
        "picture": ids.get(answer["path"], ""),
        "file": _name(answer["path"]),
    }


def _three_digits(distance: float) -> str:
    """0.123, 1.23, 12.3, 123. Trailing zeros are kept, so that columns align."""
    return f"{distance:.{3 if distance < 1 else 2 if distance < 10 else 1 if distance < 100 else 0}f}"


def _name(path: str) -> str:
    return path.replace("\\", "/").rpartition("/")[2]


def _matrix(sides: list[dict[str, Any]], measure: str) -> dict[str, Any]:
    """One measure by camera pair: that of the first side, and its difference from the second."""
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
