"""Our own feature files: query and gallery in one `.npz`, or training images."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.atomic import write_bytes
from reid.io.feature_files.checks import make_features
from reid.io.npy import NpzReader
from reid.records import Features


def save_features(path: Path, query: Features, gallery: Features, *, feature: str) -> None:
    """Write query and gallery into one `.npz`: `{query,gallery}_{values,identities,cameras,paths}` and `feature`.

    feature: what they are, the Eigenlayer's "input" or "output".
    """
    _write(path, {"query": query, "gallery": gallery}, feature)


def save_training_features(path: Path, training: Features, *, feature: str) -> None:
    """Write the features of training images, which a whitening is fitted on: `train_{values,...}` and `feature`."""
    _write(path, {"train": training}, feature)


def load_npz(path: Path) -> tuple[Features, Features, str]:
    """Query, gallery and what they are, as `save_features` wrote them; paths and `feature` may be missing.

    Raises InputError for a missing, broken or foreign file.
    """
    (query, gallery), feature = _load(path, ("query", "gallery"))
    return query, gallery, feature


def load_training_npz(path: Path) -> tuple[Features, str]:
    """What `save_training_features` wrote; raises as `load_features` does."""
    (training,), feature = _load(path, ("train",))
    return training, feature


def is_training_npz(path: Path) -> bool:
    """Whether a file is of the kind that `load_training_features` reads."""
    try:
        with NpzReader(path) as arrays:
            return "train_values" in arrays
    except (ValueError, OSError):
        return False


def _load(path: Path, parts: Sequence[str]) -> tuple[list[Features], str]:
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        with NpzReader(path) as arrays:
            found = [_part(arrays, part, path) for part in parts]
            return found, str(arrays["feature"]) if "feature" in arrays else "features"
    except KeyError as error:
        name = str(error).strip("'\"").split(" ")[0]
        raise InputError(
            f"{path}: holds no array {name}, but {', '.join(arrays) or 'nothing'}; "
            "was it written by tools/evaluate.py --save-features?"
        ) from None
    except InputError:
        raise
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: broken or no feature file ({error})") from None


def _part(arrays: Any, part: str, path: Path) -> Features:
    values, identities, cameras = (arrays[f"{part}_{name}"] for name in ("values", "identities", "cameras"))
    paths = tuple(map(str, arrays[f"{part}_paths"].reshape(-1).tolist())) if f"{part}_paths" in arrays else ()
    return make_features(
        values,
        f"{path}, {part}_values",
        identities=(identities, f"{path}, {part}_identities"),
        cameras=(cameras, f"{path}, {part}_cameras"),
        paths=paths,
    )


def _write(path: Path, parts: dict[str, Features], feature: str) -> None:
    arrays: dict[str, Any] = {
        f"{part}_{name}": np.asarray(getattr(features, name))
        for part, features in parts.items()
        for name in ("values", "identities", "cameras", "paths")
    }
    buffer = io.BytesIO()
    np.savez(buffer, feature=np.asarray(feature), **arrays)
    write_bytes(path, buffer.getbuffer())
