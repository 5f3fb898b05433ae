"""Features on disk: our own `.npz`, arrays with label files, and the `.mat` files of two well-known codebases.

What is read, with N images, D dimensions and P standing for `query` and `gallery`:

- `FILE.npz`: `P_values` (N, D), `P_identities`, `P_cameras` (N,), where known `P_paths` and `feature`, as
  `save_features` writes them; of training images `train_values` and so on, as `save_training_features` does.
- a folder, or one of its two feature files: `P.npy` (N, D) with `P.csv` (columns identity, camera and perhaps path) or
  `P_ids.npy` and `P_cameras.npy` (or `.txt`, a number a line). A prefix common to all names is fine:
  `market_query.npy`. In place of `P.npy` there may be a folder `P/` of shards `000.npy`, `001.npy`, ..., whose labels
  lie beside the folder as above or, as `000.csv`, `001.csv`, ..., in it.
- `pytorch_result.mat` as layumi's Person_reID_baseline_pytorch writes it: `P_f` (N, D), `P_label`, `P_cam` (1, N).
- `NAME_test.mat` or `NAME_query.mat` as zhunzhong07's person-re-ranking writes them: one variable (D, N), with
  `testID.mat`, `testCam.mat`, `queryID.mat`, `queryCam.mat` in the same folder or in `data/DATASET` above it.
- `NAME_detected.mat` or `NAME_labeled.mat` of the same for CUHK03: one variable (D, N) of all images, with
  `cuhk03_new_protocol_config_detected.mat` (or `labeled`).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from reid.errors import InputError
from reid.io.feature_files.arrays import (
    is_array_folder,
    read_array_files,
    read_array_folder,
    read_array_training,
    read_matrix_folder,
    save_matrix_folder,
)
from reid.io.feature_files.checks import MAX_IN_MEMORY, check_pair
from reid.io.feature_files.mat import read_mat, read_mat_images
from reid.io.feature_files.npz import (
    is_training_npz,
    load_npz,
    load_training_npz,
    save_features,
    save_training_features,
)
from reid.records import Features

__all__ = [
    "MAX_IN_MEMORY",
    "load_npz",
    "load_training_npz",
    "read_features",
    "read_matrix_folder",
    "read_multi_query",
    "read_training_features",
    "save_features",
    "save_matrix_folder",
    "save_training_features",
]

SUFFIXES = (".npz", ".npy", ".mat")


def read_features(path: Path, *, in_memory: int = MAX_IN_MEMORY) -> tuple[Features, Features, str]:
    """Query, gallery and what the features are called, from any layout this package knows.

    in_memory: bytes up to which an `.npy` of the gallery is loaded; a larger one, and shards, stay on the disk and are
    read piece by piece. Raises InputError in one line: an unknown layout, a missing, broken or cut file, what it lacks
    and what it holds instead, labels of another length, features and labels exchanged, NaN or infinite rows, widths
    that differ, an empty side.
    """
    if path.is_dir() and is_array_folder(path):
        query, gallery, name = read_array_folder(path, in_memory=in_memory)
    elif path.is_dir():
        query, gallery, name = read_mat(_only_mat(path))
    elif not path.exists():
        raise InputError(f"{path}: no such feature file or folder")
    elif path.suffix.lower() == ".npz":
        query, gallery, name = load_npz(path)
    elif path.suffix.lower() == ".npy":
        query, gallery, name = read_array_files(path, in_memory=in_memory)
    elif path.suffix.lower() == ".mat":
        query, gallery, name = read_mat(path)
    else:
        raise InputError(f"{path}: features are read from {', '.join(SUFFIXES)} or a folder, not from {path.suffix!r}")
    check_pair(query, gallery, str(path))
    return query, gallery, name


def read_training_features(path: Path) -> tuple[Features, str]:
    """Features of training images, and what they are called: what `save_training_features` wrote, a folder that holds
    `train.npy` or shards in `train/`, or both sides of any layout that `read_features` knows, one after the other.
    """
    if (path / "train.npy").is_file() or (path / "train").is_dir():
        return read_array_training(path)
    if is_training_npz(path):
        return load_training_npz(path)
    query, gallery, name = read_features(path)
    values = np.concatenate([np.asarray(side.values[:]) for side in (query, gallery)])
    identities, cameras = (
        np.concatenate([getattr(side, n) for side in (query, gallery)]) for n in ("identities", "cameras")
    )
    return Features(values, identities, cameras), name


def read_multi_query(path: Path) -> Features | None:
    """The images that multi-query pools, where they lie beside the features: layumi's `multi_query.mat`."""
    folder = path if path.is_dir() else path.parent
    found = folder / "multi_query.mat"
    return read_mat_images(found) if found.is_file() else None


def _only_mat(folder: Path) -> Path:
    """The `.mat` to start from in a folder that holds no arrays."""
    for pattern in ("pytorch_result.mat", "*_query.mat", "*_detected.mat", "*_labeled.mat"):
        found = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith("cuhk03_new_protocol")]
        if len(found) > 1:
            names = ", ".join(path.name for path in found)
            raise InputError(f"{folder}: holds several sets of features, {names}; name one of them")
        if found:
            return found[0]
    held = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
    raise InputError(
        f"{folder}: no features here; looked for query.npy with gallery.npy (or gallery/), pytorch_result.mat and "
        f"*_query.mat with *_test.mat; the folder holds {held}"
    )
