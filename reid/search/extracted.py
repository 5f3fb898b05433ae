"""Features that `svdnet extract` has written, in place of embedding the images of an index again."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from reid.errors import InputError
from reid.io.feature_files import read_labeled_shards
from reid.ranking import normalize_rows
from reid.search.gallery import CropListing, EmbedFunction

_CHECKED = 16  # images that are embedded to compare
_TOLERANCE = 1e-3  # of a Euclidean distance in [0, 2]: other batch sizes and machines differ by less


def extracted_features(
    folder: Path, listing: CropListing, embed: Callable[[Sequence[str]], np.ndarray]
) -> EmbedFunction:
    """Read extracted features for the images of a folder.

    An image is found by its path, or if the images were moved by its path below the folder that holds all of them. Some
    are embedded to make sure that the features are those of the model.

    Args:
        folder: Shards of one part and feature, such as `features/input/gallery`, with the labels next to it.
        listing: The images to index.
        embed: Embeds images with the model of the index.

    Returns:
        A function for `update_index`, which raises InputError for an image that was not extracted.

    Raises:
        InputError: If the extraction is incomplete or does not name its images, no image of the listing was extracted,
            or the features are those of another model.
    """
    features = read_labeled_shards(folder)
    if not features.paths:
        raise InputError(f"{folder}: its labels do not say which images the features are of; use svdnet extract")
    values_of, top, row_of = features.values, *_find_rows(features.paths, listing.folder)
    del features  # of a long list, the paths take as much memory as the listing

    def rows_of(paths: Sequence[str]) -> np.ndarray:
        rows = []
        for path in paths:
            row = row_of.get(os.path.relpath(path, listing.folder))
            if row is None:
                raise InputError(f"{path}: has no feature in {folder}")
            rows.append(row)
        values = np.asarray(values_of[np.array(rows, dtype=np.int64)], dtype=np.float32)
        nonzero = values.any(axis=1)
        values[nonzero] = normalize_rows(values[nonzero])
        return values

    known = [number for number, crop in enumerate(listing.crops) if os.path.normpath(crop.path) in row_of]
    if not known:
        raise InputError(f"{folder}: holds features of images in {top}, none of which are below {listing.folder}")
    chosen = np.random.default_rng(0).choice(known, min(_CHECKED, len(known)), replace=False)
    _check_model(folder, [str(listing.folder / listing.crops[i].path) for i in chosen.tolist()], rows_of, embed)
    return rows_of


def _find_rows(paths: Sequence[str], folder: Path) -> tuple[str, dict[str, int]]:
    """Return the folder of all paths, and the row of each by its path below `folder`, or below the former if moved."""
    extracted = [os.path.abspath(path) for path in paths]
    top = os.path.commonpath([os.path.dirname(path) for path in extracted])
    below = os.path.join(os.path.abspath(folder), "")
    if any(path.startswith(below) for path in extracted):
        return top, {path[len(below) :]: row for row, path in enumerate(extracted) if path.startswith(below)}
    return top, {os.path.relpath(path, top): row for row, path in enumerate(extracted)}


def _check_model(folder: Path, paths: list[str], rows_of: EmbedFunction, embed: EmbedFunction) -> None:
    for path in paths:
        try:
            embedded = np.asarray(embed([path]))
        except InputError:
            continue  # reported when it is indexed
        row = rows_of([path])
        if embedded.shape != row.shape:
            raise InputError(
                f"{folder}: holds features of dimension {row.shape[1]}, but the model outputs {embedded.shape[1]}"
            )
        if not np.linalg.norm(embedded - row) <= _TOLERANCE:
            raise InputError(
                f"{folder}: the feature of {path} is not that of the model; extract with the same weights, feature and "
                "TEST.FLIP, TEST.PRECISION float32, and from the same images"
            )
