"""The strip of examples in the training report: queries repaired and broken, from `examples.json`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from reid.io.json_yaml import parse_json
from reid.report.entries import is_examples
from reid.report.ranked_lists import card_paths, query_card
from reid.report.thumbnails import page_images

FILE = "examples.json"


def read_examples(folder: Path) -> dict[str, Any] | None:
    """Read the examples of a run with their images.

    A file that is missing, unreadable or of another form gives none: the report is about the scores.

    Args:
        folder: `OUTPUT_DIR` of the run.

    Returns:
        The content of the file with the cards of the queries and the images on them, or None.
    """
    try:
        content = parse_json((folder / FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    if not is_examples(content):
        return None
    images = page_images(card_paths(content["lists"]))
    cards = [query_card(entry, images.ids) for entry in content["lists"]]
    return {**content, "cards": cards, "images": images} if images.ids else None
