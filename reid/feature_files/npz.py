"""Our own feature file: query and gallery in one `.npz`."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.feature_files.checks import features_from
from reid.files import write_whole
from reid.records import Features


def save_features(path: Path, query: Features, gallery: Features, *, feature: str) -> None:
    """Write query and gallery into one `.npz`: `{query,gallery}_{values,identities,cameras,paths}` and `feature`.

    feature: what they are, the Eigenlayer's "input" or "output".
    """
    arrays: dict[str, Any] = {
        f"{part}_{name}": np.asarray(getattr(features, name))
        for part, features in (("query", query), ("gallery", gallery))
        for name in ("values", "identities", "cameras", "paths")
    }
    buffer = io.BytesIO()
    np.savez(buffer, feature=np.asarray(feature), **arrays)
    write_whole(path, buffer.getbuffer())


def load_features(path: Path) -> tuple[Features, Features, str]:
    """Query, gallery and what they are, as `save_features` wrote them; paths and `feature` may be missing.

    Raises InputError for a missing, broken or foreign file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = [_part(arrays, part, path) for part in ("query", "gallery")]
            return parts[0], parts[1], str(arrays["feature"]) if "feature" in arrays else "features"
    except KeyError as error:
        name = str(error).strip("'\"").split(" ")[0]
        raise InputError(
            f"{path}: holds no array {name}, but {', '.join(arrays) or 'nothing'}; "
            "was it written by tools/evaluate.py --save-features?"
        ) from None
    except InputError:
        raise
    except (ValueError, TypeError, AttributeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: broken or no feature file ({type(error).__name__})") from None


def _part(arrays: Any, part: str, path: Path) -> Features:
    values, identities, cameras = (arrays[f"{part}_{name}"] for name in ("values", "identities", "cameras"))
    paths = tuple(arrays[f"{part}_paths"].tolist()) if f"{part}_paths" in arrays else ()
    return features_from(
        values,
        f"{path}, {part}_values",
        identities=(identities, f"{path}, {part}_identities"),
        cameras=(cameras, f"{path}, {part}_cameras"),
        paths=paths,
    )
