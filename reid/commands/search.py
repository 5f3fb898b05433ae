"""Find the most similar images of an index, shown in the terminal and as a page."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np

from reid import Embedder
from reid.errors import InputError
from reid.io.atomic import write_json
from reid.report.pages import check_available
from reid.report.search_page import answer_table, write_page
from reid.search import gallery


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.output:
        check_available()
    snapshot = gallery.read_snapshot(arguments.index)
    if not snapshot.crops:
        raise InputError(f"{arguments.index}: the index is empty; add images with svdnet index")
    # Before the model is loaded, so that errors show at once.
    mask = snapshot.filter_mask(arguments.camera or (), _parse_range(arguments.time))
    metadata = snapshot.metadata
    gallery.check_tool_entries(arguments.index, metadata)
    embedder = Embedder.load(
        arguments.weights or metadata["weights"],
        device=arguments.device,
        feature=metadata["feature"],
        flip=metadata["flip"],
    )
    snapshot.check_model(embedder.model_id, embedder.dim)
    crops = [str(path) for path in arguments.crops]
    rows = embedder.embed(crops)
    zero = np.flatnonzero(~rows.any(axis=1))
    if len(zero):
        raise InputError(f"{crops[zero[0]]}: its feature is all zero, so it cannot be searched")
    query_paths = [[path] for path in crops]
    if arguments.mean:
        rows, query_paths = gallery.mean_query(rows), [crops]
    exclude = []
    if arguments.exclude_same_file:
        exclude = [{hashlib.sha256(Path(path).read_bytes()).digest() for path in paths} for paths in query_paths]
    neighbor_search, description = gallery.select_search(snapshot, arguments.faiss_beyond)
    results = gallery.search_snapshot(
        snapshot, rows, arguments.top, mask=mask, exclude=exclude, neighbor_search=neighbor_search
    )
    content = {
        "index": str(arguments.index),
        "root": metadata["root"],
        "model_id": embedder.model_id,
        "images": int(mask.sum()),
        "search": description if mask.all() else "exact",
        **gallery.describe_calibration(embedder.calibration, arguments.prior),
        "kinds": sorted(snapshot.kinds.values()),
        "queries": [
            {
                "paths": paths,
                "answers": [
                    {**answer, "file": str(Path(metadata["root"]) / answer["path"])}
                    for answer in gallery.results_to_dicts(query_results, embedder.calibration, arguments.prior)
                ],
            }
            for paths, query_results in zip(query_paths, results, strict=True)
        ],
    }
    _write_output(content, arguments)


def _write_output(content: dict[str, object], arguments: argparse.Namespace) -> None:
    print(answer_table(content))
    if arguments.json:
        write_json(arguments.json, content)
        print(f"wrote {arguments.json}")
    if arguments.output:
        print(f"wrote {write_page(arguments.output, content)}; it contains images of people, so share it with care")


def _parse_range(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    start, dots, end = text.partition("..")
    if not dots or not (start or end):
        raise InputError(f"--time {text!r}: must be FROM..TO, where either end may be omitted")
    return gallery.parse_time_range(start, end)
