"""Features in the MATLAB files of layumi's Person_reID_baseline_pytorch and zhunzhong07's person-re-ranking."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from reid.errors import InputError
from reid.io.feature_files.checks import check_labels, check_matrix, make_features
from reid.io.mat import list_variables, load_variables
from reid.records import Features

_LAYUMI = ("gallery_f", "gallery_label", "gallery_cam", "query_f", "query_label", "query_cam")
_LAYUMI_IMAGES = ("mquery_f", "mquery_label", "mquery_cam")
_CUHK03 = ("labels", "camId", "query_idx", "gallery_idx")
_LABELS = {"query": ("queryID", "queryCam"), "gallery": ("testID", "testCam")}


def read_mat(path: Path) -> tuple[Features, Features, str]:
    """Read query and gallery from a MATLAB file of any layout that the package's docstring lists.

    Args:
        path: A `.mat` file; further files are found by its name.

    Returns:
        Query, gallery and the name of the features, taken from the file name.

    Raises:
        InputError: If a file or variable is missing, corrupt or does not fit.
    """
    names = _variable_names(path)
    if any(key in names for key in _LAYUMI):
        arrays = _read(path, _LAYUMI)
        query, gallery = (_layumi(path, arrays, split) for split in ("query", "gallery"))
        return query, gallery, path.stem
    for ending in ("_test", "_query"):
        if path.stem.endswith(ending):
            name = path.stem.removesuffix(ending)
            query, gallery = (
                _market(path.with_name(f"{name}{end}.mat"), split)
                for split, end in (("query", "_query"), ("gallery", "_test"))
            )
            return query, gallery, name
    for ending in ("detected", "labeled"):
        if path.stem.endswith(f"_{ending}"):
            query, gallery = _cuhk03(path, _beside(path, f"cuhk03_new_protocol_config_{ending}.mat"))
            return query, gallery, path.stem
    raise InputError(
        f"{path}: holds {', '.join(names) or 'nothing'}; it must hold {', '.join(_LAYUMI)}, or be named *_query.mat, "
        "*_test.mat, *_detected.mat or *_labeled.mat and hold one variable"
    )


def read_mat_images(path: Path) -> Features:
    """Read the images for multi-query evaluation from layumi's `multi_query.mat`.

    Args:
        path: A `.mat` file with `mquery_f` (N, D), `mquery_label` and `mquery_cam` (1, N).

    Returns:
        Features with identities and cameras.

    Raises:
        InputError: If the file or a variable is missing, corrupt or does not fit.
    """
    return _layumi(path, _read(path, _LAYUMI_IMAGES), "mquery")


def _layumi(path: Path, arrays: dict[str, np.ndarray], split: str) -> Features:
    values, identities, cameras = (arrays[f"{split}_{name}"] for name in ("f", "label", "cam"))
    return make_features(
        np.ascontiguousarray(check_matrix(values, f"{path}, {split}_f")),
        f"{path}, {split}_f",
        identities=(identities, f"{path}, {split}_label"),
        cameras=(cameras, f"{path}, {split}_cam"),
    )


def _market(path: Path, split: str) -> Features:
    values = _only_variable(path)
    files = [_beside(path, f"{name}.mat") for name in _LABELS[split]]
    identities, cameras = (_only_variable(file) for file in files)
    rows = _rows_of_columns(values, identities.size, str(path))
    return make_features(rows, str(path), identities=(identities, str(files[0])), cameras=(cameras, str(files[1])))


def _cuhk03(path: Path, config: Path) -> tuple[Features, Features]:
    labels = _read(config, _CUHK03)
    count = labels["labels"].size
    rows = _rows_of_columns(_only_variable(path), count, str(path))
    identities, cameras = (check_labels(labels[key], count, f"{key} in {config}") for key in ("labels", "camId"))
    splits = []
    for split in ("query", "gallery"):
        indices = labels[f"{split}_idx"]
        index = check_labels(indices, indices.size, f"{split}_idx in {config}") - 1  # MATLAB counts from 1
        if len(index) and not 0 <= index.min() <= index.max() < count:
            raise InputError(f"{config}: {split}_idx goes beyond the {count} images of {path}")
        source = (str(path), str(config))
        splits.append(
            make_features(
                rows[index], source[0], identities=(identities[index], source[1]), cameras=(cameras[index], source[1])
            )
        )
    return splits[0], splits[1]


def _rows_of_columns(values: np.ndarray, count: int, source: str) -> np.ndarray:
    """Convert (D, N) features to contiguous (N, D); (N, D) is accepted if only that fits the labels."""
    matrix = check_matrix(values, source)
    if matrix.shape[1] == count:
        return np.ascontiguousarray(matrix.T)
    if matrix.shape[0] == count:
        return np.ascontiguousarray(matrix)
    raise InputError(f"{source}: features {matrix.shape} for {count} labels; must be (D, N), one column per image")


def _beside(path: Path, name: str) -> Path:
    """Find a label file in the folder of the features, or as published: `feat/SET/X.mat` and `data/SET/name`."""
    folder = path.resolve().parent
    for candidate in (folder, *(above / "data" / folder.name for above in folder.parents)):
        if (candidate / name).is_file():
            return candidate / name
    raise InputError(f"{path}: no labels; {name} is neither next to it nor in data/{folder.name}/ above it")


def _variable_names(path: Path) -> list[str]:
    return _guarded(path, list_variables)


def _only_variable(path: Path) -> np.ndarray:
    names = _variable_names(path)
    if len(names) != 1:
        raise InputError(f"{path}: holds {len(names)} variables ({', '.join(names)}), must be one")
    return _read(path, names)[names[0]]


def _read(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    names = _variable_names(path)
    missing = [key for key in keys if key not in names]
    if missing:
        raise InputError(f"{path}: has no {' and no '.join(missing)}, only {', '.join(names)}")
    return _guarded(path, lambda file: load_variables(file, keys))


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    """Call `read(path)` and turn its errors into InputError."""
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        return read(path)
    except ValueError as error:
        raise InputError(f"{path}: corrupt, truncated, or not a MATLAB file ({error})") from None
