"""Build an index of a folder of crops, or bring it up to date: only new and changed images are embedded."""

from __future__ import annotations

import argparse
import fnmatch
import time
from pathlib import Path
from typing import Any

from reid import Embedder
from reid.distributed import restart_command
from reid.errors import InputError, Interrupted, install_command, one_line, stop_signals
from reid.ranking.exact.row_codes import integer_products
from reid.search import gallery, milvus, stores
from reid.search.extracted import extracted_features

MAX_LISTED = 20  # paths of each kind


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    if arguments.remove or arguments.restore or arguments.compact or arguments.check:
        names = ("weights", "features", "pattern", "shard", "faiss_beyond", "recall", "reread")
        if given := [f"--{name.replace('_', '-')}" for name in names if getattr(arguments, name) not in (None, False)]:
            raise InputError(f"{', '.join(given)}: of an update of the index; omit it here")
        _maintain(arguments)
        return
    folder, place = arguments.folder.expanduser().resolve(), stores.find_place(arguments.index, arguments.store)
    if arguments.store and arguments.faiss_beyond is not None:
        raise InputError("--faiss-beyond: an index in --store is searched by Milvus; omit it")
    if arguments.recall and not arguments.store:
        raise InputError("--recall: an index in a folder is searched exactly, or by FAISS with its recall; omit it")
    if stores.is_index(place):
        # From here on nobody else changes the folder of an index, so the listing below is not older than what it holds.
        with stores.open_writer(place) as index:
            stored = index.metadata()
            _check_root(arguments, place, stored)
            embedder, metadata = _load_model(arguments, folder, stored)
            index.check(embedder.model_id, embedder.dim, arguments.shard)
            start = time.perf_counter()
            listing, embed = _prepare(arguments, embedder, metadata)
            _update(arguments, place, index, embedder, metadata, listing, embed, start)
        return
    gallery.check_crops(folder, arguments.pattern or "")
    embedder, metadata = _load_model(arguments, folder, {})
    start = time.perf_counter()
    # Before an index is created: features that are refused leave none behind.
    listing, embed = _prepare(arguments, embedder, metadata)
    with stores.create_writer(
        place, model_id=embedder.model_id, dim=embedder.dim, metadata=metadata, shard_size=arguments.shard
    ) as index:
        _update(arguments, place, index, embedder, metadata, listing, embed, start)


def _check_root(arguments: argparse.Namespace, place: stores.Place, stored: dict[str, Any]) -> None:
    """Check that the index is that of the folder."""
    folder = arguments.folder.expanduser().resolve()
    if stored.get("root") not in (None, str(folder)) and not arguments.moved:
        raise InputError(
            f"{place}: is the index of {stored['root']}, not of {folder}; choose another --index or, if the folder was "
            "moved, add --moved"
        )


def _load_model(arguments: argparse.Namespace, folder: Path, stored: dict[str, Any]) -> tuple[Embedder, dict[str, Any]]:
    """Load the model and describe it, the folder and the pattern for the metadata of the index."""
    weights = arguments.weights or stored.get("weights")
    if not weights:
        of_what = "an index that does not name its model" if stored else "a new index"
        raise InputError(f"{of_what} needs --weights: a checkpoint, or demo for the bundled model")
    embedder = Embedder.load(
        weights,
        device=arguments.device,
        engine=arguments.engine,
        feature=arguments.feature or stored.get("feature"),
        flip=arguments.flip or stored.get("flip") or False,
    )
    return embedder, {
        "root": str(folder),
        "weights": weights if weights == "demo" else str(Path(weights).expanduser().resolve()),
        "feature": embedder.feature,
        "flip": embedder.flip,
        "pattern": arguments.pattern if arguments.pattern is not None else stored.get("pattern") or "",
    }


def _prepare(
    arguments: argparse.Namespace, embedder: Embedder, metadata: dict[str, Any]
) -> tuple[gallery.CropListing, gallery.EmbedFunction]:
    """List the crops, and choose where their features come from."""
    listing = gallery.list_crops(Path(metadata["root"]), metadata["pattern"])
    if arguments.features:
        return listing, extracted_features(arguments.features, listing, embedder.embed)
    return listing, embedder.embed


def _update(
    arguments: argparse.Namespace,
    place: stores.Place,
    index: gallery.IndexWriter,
    embedder: Embedder,
    metadata: dict[str, Any],
    listing: gallery.CropListing,
    embed: gallery.EmbedFunction,
    start: float,
) -> None:
    index.set_metadata(**metadata)
    embedder.engine.expect(len(listing.crops))
    try:
        with stop_signals() as stop:
            summary = gallery.update_index(
                index,
                listing,
                embed,
                skip_unreadable=arguments.broken == "skip",
                reread=arguments.reread,
                defer_interrupts=stop.held,
            )
    except KeyboardInterrupt:
        command = restart_command(arguments.program, arguments.arguments)
        raise Interrupted(f"interrupted; embedded images are in the index; resume with: {command}") from None
    _print_summary(summary, place, time.perf_counter() - start)
    if isinstance(index, gallery.Gallery):
        _update_codes(index)
        _update_faiss(index, arguments.faiss_beyond)
    elif isinstance(index, milvus.MilvusIndex):
        _finish_milvus(index, arguments.recall)


def _print_summary(summary: gallery.UpdateSummary, place: stores.Place, seconds: float) -> None:
    for title, lines in (
        ("unreadable", [f"{path}: {reason}" for path, reason in summary.unreadable.items()]),
        ("does not match the pattern, indexed without labels", summary.unmatched),
        ("not entered, its path is too long", summary.too_deep),
        ("modified while it was read, left for the next update", summary.modified),
    ):
        for line in lines[:MAX_LISTED]:
            print(f"{title}: {one_line(line)}")
        if len(lines) > MAX_LISTED:
            print(f"{title}: {len(lines) - MAX_LISTED:,} more")
    total = summary.unchanged + summary.added + summary.changed
    counts = {
        "new": summary.added,
        "changed": summary.changed,
        "unchanged": summary.unchanged,
        "deleted": summary.deleted,
        "relabeled": summary.relabeled,
        "removed before": summary.removed,
        "unreadable": len(summary.unreadable),
    }
    parts = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count)
    print(f"{place}: {total:,} images ({parts}); {summary.embedded:,} embedded, {seconds:.1f} s")


def _update_codes(index: gallery.Gallery) -> None:
    start = time.perf_counter()
    if encoded := gallery.update_codes(index):
        missing = "" if integer_products() else f", which needs NumKong to use them: {install_command('search')}"
        seconds = time.perf_counter() - start
        print(f"8-bit codes of {encoded:,} images written in {seconds:.1f} s for exact search{missing}")


def _update_faiss(index: gallery.Gallery, faiss_beyond: int | None) -> None:
    """Build a FAISS index if the gallery is large enough and the present one is missing or outdated."""
    limit = index.metadata().get("faiss_beyond") if faiss_beyond is None else faiss_beyond
    index.set_metadata(faiss_beyond=limit)
    snapshot = gallery.read_snapshot(index.folder)
    if limit is None or len(snapshot.active_rows) <= limit:
        return
    start, entry = time.perf_counter(), snapshot.metadata.get("faiss") or {}
    improvable = entry and gallery.has_low_recall(entry) and not entry.get("probes_chosen")
    if improvable or not (gallery.has_current_faiss_index(snapshot) and gallery.is_faiss_index_intact(snapshot)):
        entry = gallery.build_faiss_index(index)
        print(f"{entry['summary']}; built in {time.perf_counter() - start:.1f} s")
    if gallery.has_low_recall(entry):
        print("it misses too many images, so searches stay exact unless --faiss-beyond is given to svdnet search")


def _finish_milvus(index: milvus.MilvusIndex, measure: bool) -> None:
    start = time.perf_counter()
    if finished := index.finish(measure):
        print(f"{finished} ({time.perf_counter() - start:.1f} s)")


def _maintain(arguments: argparse.Namespace) -> None:
    """Remove, restore, compact and check, which need no model."""
    place = stores.find_place(arguments.index, arguments.store)
    with stores.open_writer(place) as index:
        _check_root(arguments, place, index.metadata())
        for patterns, removed in ((arguments.remove, True), (arguments.restore, False)):
            if patterns:
                matching = {
                    crop.path: before
                    for crop, _, before in index.images()
                    if any(fnmatch.fnmatch(crop.path, pattern) for pattern in patterns)
                }
                if not matching:
                    raise InputError(f"{place}: no image matches {' or '.join(patterns)}; paths are relative to DIR")
                # Perhaps none: a command that failed later, while compacting, can be repeated.
                selected = {path for path, before in matching.items() if before != removed}
                if selected:
                    index.set_removed(selected, removed)
                print(f"{len(selected):,} images {'removed' if removed else 'restored'}")
        if arguments.compact:
            print(f"{index.compact():,} feature rows without an image dropped")
            if isinstance(index, gallery.Gallery):
                _update_codes(index)
        if arguments.check:
            _check(place, index)


def _check(place: stores.Place, index: gallery.IndexWriter) -> None:
    """Check features and FAISS index; the manifest was checked when it was opened."""
    corrupt = index.find_corrupt()
    if corrupt:
        raise InputError(
            f"{place}: the features of {len(corrupt):,} images do not match their checksums, first: "
            f"{corrupt[0]}; restore features/ from a copy, or build a new index"
        )
    if isinstance(index, gallery.Gallery):
        _check_faiss(index)
    print(f"{place}: the manifest is consistent, and all features match their checksums")


def _check_faiss(index: gallery.Gallery) -> None:
    snapshot = gallery.read_snapshot(index.folder)
    if gallery.has_current_faiss_index(snapshot) and not gallery.is_faiss_index_intact(snapshot):
        raise InputError(
            f"{index.folder / snapshot.metadata['faiss']['file']}: missing or corrupt, its digest is not that of the "
            f"manifest; rebuild it with {gallery.rebuild_command(snapshot)}"
        )
