"""This project's own feature files: query and gallery, or training images, in one `.npz`."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.feature_files.checks import make_features
from reid.io.npy import NpzReader
from reid.io.reading import raise_machine_error
from reid.io.sealing import write_sealed
from reid.records import Features


def save_features(path: Path, query: Features, gallery: Features, *, feature: str) -> None:
    """Write query and gallery to one `.npz` file, with its digest in the comment of the archive.

    The arrays are `{query,gallery}_{values,identities,cameras,paths}` and `feature`.

    Args:
        path: File to create or replace.
        query: Features of the queries.
        gallery: Features of the gallery.
        feature: Name of the feature: the "input" or "output" of the Eigenlayer.
    """
    _write(path, {"query": query, "gallery": gallery}, feature)


def save_training_features(path: Path, training: Features, *, feature: str) -> None:
    """Write features of training images, on which a whitening is fitted, to one `.npz` file.

    The arrays are `train_{values,identities,cameras,paths}` and `feature`.

    Args:
        path: File to create or replace.
        training: Features of the training images.
        feature: Name of the feature: the "input" or "output" of the Eigenlayer.
    """
    _write(path, {"train": training}, feature)


def load_npz(path: Path) -> tuple[Features, Features, str]:
    """Read a file of `save_features`, in which paths and `feature` may be missing.

    Args:
        path: A `.npz` file.

    Returns:
        Query, gallery and the name of the feature.

    Raises:
        InputError: If the file is missing, corrupt, or lacks an array.
    """
    (query, gallery), feature = _load(path, ("query", "gallery"))
    return query, gallery, feature


def load_training_npz(path: Path) -> tuple[Features, str]:
    """Read a file of `save_training_features`, in which paths and `feature` may be missing.

    Args:
        path: A `.npz` file.

    Returns:
        Training features and the name of the feature.

    Raises:
        InputError: If the file is missing, corrupt, or lacks an array.
    """
    (training,), feature = _load(path, ("train",))
    return training, feature


def is_training_npz(path: Path) -> bool:
    """Return whether a file can be read by `load_training_npz`.

    Args:
        path: Any file; it need not exist.

    Returns:
        False for a file that is missing, unreadable or of another kind.
    """
    try:
        with NpzReader(path) as arrays:
            return "train_values" in arrays
    except (ValueError, OSError):
        return False


def _load(path: Path, splits: Sequence[str]) -> tuple[list[Features], str]:
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        with NpzReader(path) as arrays:
            features = [_load_split(arrays, split, path) for split in splits]
            return features, str(arrays["feature"]) if "feature" in arrays else "features"
    except KeyError as error:
        name = str(error).strip("'\"").split(" ")[0]
        raise InputError(
            f"{path}: has no array {name}, only {', '.join(arrays) or 'nothing'}; "
            "was it written by svdnet evaluate --save-features?"
        ) from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise_machine_error(error, path)
        raise InputError(f"{path}: corrupt or not a feature file ({error})") from None


def _load_split(arrays: Any, split: str, path: Path) -> Features:
    values, identities, cameras = (arrays[f"{split}_{name}"] for name in ("values", "identities", "cameras"))
    paths = tuple(map(str, arrays[f"{split}_paths"].reshape(-1).tolist())) if f"{split}_paths" in arrays else ()
    return make_features(
        values,
        f"{path}, {split}_values",
        identities=(identities, f"{path}, {split}_identities"),
        cameras=(cameras, f"{path}, {split}_cameras"),
        paths=paths,
    )


def _write(path: Path, splits: dict[str, Features], feature: str) -> None:
    arrays: dict[str, Any] = {
        f"{split}_{name}": np.asarray(value.cpu() if hasattr(value := getattr(features, name), "cpu") else value)
        for split, features in splits.items()
        for name in ("values", "identities", "cameras", "paths")
    }
    buffer = io.BytesIO()
    np.savez(buffer, feature=np.asarray(feature), **arrays)
    write_sealed(path, buffer.getbuffer())
