"""Features on disk: our own `.npz`, arrays with label files, and the `.mat` files of two well-known codebases.

Layouts that are read, with N images, D dimensions and S standing for `query` and `gallery`:

- `FILE.npz`: `S_values` (N, D), `S_identities`, `S_cameras` (N,), and if known `S_paths` and `feature`, as
  `save_features` writes them; for training images `train_values` and so on, as `save_training_features` does.
- a folder, or one of its two feature files: `S.npy` (N, D) with `S.csv` (columns identity, camera and perhaps path) or
  `S_ids.npy` and `S_cameras.npy` (or `.txt` or `.csv`, one number per line). A prefix common to all names is allowed:
  `market_query.npy`. Instead of `S.npy` there may be a folder `S/` of shards `000.npy`, `001.npy`, ..., whose labels
  are next to the folder as above, or in it as `000.csv`, `001.csv`, ...
- `pytorch_result.mat` as layumi's Person_reID_baseline_pytorch writes it: `S_f` (N, D), `S_label`, `S_cam` (1, N).
- `NAME_test.mat` or `NAME_query.mat` as zhunzhong07's person-re-ranking writes them: one variable (D, N), with
  `testID.mat`, `testCam.mat`, `queryID.mat`, `queryCam.mat` in the same folder or in `data/DATASET` above it.
- `NAME_detected.mat` or `NAME_labeled.mat` of the same codebase for CUHK03: one variable (D, N) of all images, with
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
    read_labeled_shards,
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
    "read_labeled_shards",
    "read_matrix_folder",
    "read_multi_query",
    "read_training_features",
    "save_features",
    "save_matrix_folder",
    "save_training_features",
]

SUFFIXES = (".npz", ".npy", ".mat")


def read_features(path: Path, *, max_in_memory: int = MAX_IN_MEMORY) -> tuple[Features, Features, str]:
    """Read query and gallery from any layout that this package knows.

    Args:
        path: A feature file or a folder.
        max_in_memory: Size in bytes up to which an `.npy` file of the gallery is loaded; a larger one, and shards, are
            mapped into memory.

    Returns:
        Query, gallery and the name of the features.

    Raises:
        InputError: If the layout is unknown, a file is missing or corrupt, labels do not fit the features, features are
            not finite or of different dimensions, or one of the splits is empty.
    """
    if path.is_dir() and is_array_folder(path):
        query, gallery, name = read_array_folder(path, max_in_memory=max_in_memory)
    elif path.is_dir():
        query, gallery, name = read_mat(_only_mat(path))
    elif not path.exists():
        raise InputError(f"{path}: no such feature file or folder")
    elif path.suffix.lower() == ".npz":
        query, gallery, name = load_npz(path)
    elif path.suffix.lower() == ".npy":
        query, gallery, name = read_array_files(path, max_in_memory=max_in_memory)
    elif path.suffix.lower() == ".mat":
        query, gallery, name = read_mat(path)
    else:
        raise InputError(f"{path}: features are read from {', '.join(SUFFIXES)} or a folder, not from {path.suffix!r}")
    check_pair(query, gallery, str(path))
    return query, gallery, name


def read_training_features(path: Path) -> tuple[Features, str]:
    """Read features of training images, on which a whitening is fitted.

    Args:
        path: A file of `save_training_features`, a folder with `train.npy` or shards in `train/`, or any path that
            `read_features` accepts, whose query and gallery are then concatenated.

    Returns:
        The features and their name.

    Raises:
        InputError: If nothing can be read.
    """
    if (path / "train.npy").is_file() or (path / "train").is_dir():
        return read_array_training(path)
    if is_training_npz(path):
        return load_training_npz(path)
    query, gallery, feature = read_features(path)
    values = np.concatenate([np.asarray(split.values[:]) for split in (query, gallery)])
    identities, cameras = (
        np.concatenate([getattr(split, name) for split in (query, gallery)]) for name in ("identities", "cameras")
    )
    return Features(values, identities, cameras), feature


def read_multi_query(path: Path) -> Features | None:
    """Read the images whose features multi-query evaluation pools.

    Args:
        path: Feature file, or folder with features, next to which layumi's `multi_query.mat` may be.

    Returns:
        The features of these images, or None if there is no such file.

    Raises:
        InputError: If the file is corrupt.
    """
    folder = path if path.is_dir() else path.parent
    file = folder / "multi_query.mat"
    return read_mat_images(file) if file.is_file() else None


def _only_mat(folder: Path) -> Path:
    """Find the `.mat` file to start from in a folder without arrays."""
    for pattern in ("pytorch_result.mat", "*_query.mat", "*_detected.mat", "*_labeled.mat"):
        files = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith("cuhk03_new_protocol")]
        if len(files) > 1:
            names = ", ".join(path.name for path in files)
            raise InputError(f"{folder}: holds several sets of features, {names}; give one of these files")
        if files:
            return files[0]
    content = ", ".join(sorted(entry.name for entry in folder.iterdir())[:5]) or "nothing"
    raise InputError(
        f"{folder}: no features found; looked for query.npy with gallery.npy (or gallery/), pytorch_result.mat and "
        f"*_query.mat with *_test.mat; the folder holds {content}"
    )
