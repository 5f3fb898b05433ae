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
from reid.search import gallery, stores


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.output:
        check_available()
    place = stores.find_place(arguments.index, arguments.store)
    view = stores.open_view(place, faiss_beyond=arguments.faiss_beyond)
    if not view.summary.images:
        raise InputError(f"{place}: the index is empty; add images with svdnet index")
    # Before the model is loaded, so that errors show at once.
    cameras, time_range = arguments.camera or (), _parse_range(arguments.time)
    count = view.count(cameras, time_range)
    metadata = view.metadata
    gallery.check_tool_entries(place, metadata)
    embedder = Embedder.load(
        arguments.weights or metadata["weights"],
        device=arguments.device,
        engine=arguments.engine,
        feature=metadata["feature"],
        flip=metadata["flip"],
    )
    gallery.check_model(place, metadata, embedder.model_id, embedder.dim)
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
    results = view.search(rows, arguments.top, cameras=cameras, time_range=time_range, exclude=exclude)
    content = {
        "index": str(place),
        "root": metadata["root"],
        "model_id": embedder.model_id,
        "images": count,
        "search": view.describe_search(filtered=count < view.summary.images, advice=True),
        **gallery.describe_calibration(embedder.calibration, arguments.prior),
        "kinds": sorted(view.summary.kinds.values()),
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
