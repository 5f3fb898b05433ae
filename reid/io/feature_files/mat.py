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
    """Query, gallery and the file's name, whichever of the layouts it is; see the package's docstring."""
    held = _held(path)
    if any(key in held for key in _LAYUMI):
        arrays = _read(path, _LAYUMI)
        query, gallery = (_layumi(path, arrays, part) for part in ("query", "gallery"))
        return query, gallery, path.stem
    for ending in ("_test", "_query"):
        if path.stem.endswith(ending):
            name = path.stem.removesuffix(ending)
            query, gallery = (
                _market(path.with_name(f"{name}{end}.mat"), part)
                for part, end in (("query", "_query"), ("gallery", "_test"))
            )
            return query, gallery, name
    for ending in ("detected", "labeled"):
        if path.stem.endswith(f"_{ending}"):
            query, gallery = _cuhk03(path, _beside(path, f"cuhk03_new_protocol_config_{ending}.mat"))
            return query, gallery, path.stem
    raise InputError(
        f"{path}: holds {', '.join(held) or 'nothing'}; wanted are {', '.join(_LAYUMI)}, or a file named *_query.mat, "
        "*_test.mat, *_detected.mat or *_labeled.mat with one variable"
    )


def read_mat_images(path: Path) -> Features:
    """The images of layumi's `multi_query.mat`: `mquery_f` (N, D), `mquery_label`, `mquery_cam` (1, N)."""
    return _layumi(path, _read(path, _LAYUMI_IMAGES), "mquery")


def _layumi(path: Path, arrays: dict[str, np.ndarray], part: str) -> Features:
    values, identities, cameras = (arrays[f"{part}_{name}"] for name in ("f", "label", "cam"))
    return make_features(
        np.ascontiguousarray(check_matrix(values, f"{path}, {part}_f")),
        f"{path}, {part}_f",
        identities=(identities, f"{path}, {part}_label"),
        cameras=(cameras, f"{path}, {part}_cam"),
    )


def _market(path: Path, part: str) -> Features:
    values = _only_variable(path)
    files = [_beside(path, f"{name}.mat") for name in _LABELS[part]]
    identities, cameras = (_only_variable(file) for file in files)
    rows = _rows_of_columns(values, identities.size, str(path))
    return make_features(rows, str(path), identities=(identities, str(files[0])), cameras=(cameras, str(files[1])))


def _cuhk03(path: Path, config: Path) -> tuple[Features, Features]:
    labels = _read(config, _CUHK03)
    count = labels["labels"].size
    rows = _rows_of_columns(_only_variable(path), count, str(path))
    identities, cameras = (check_labels(labels[key], count, f"{key} in {config}") for key in ("labels", "camId"))
    parts = []
    for part in ("query", "gallery"):
        chosen = labels[f"{part}_idx"]
        index = check_labels(chosen, chosen.size, f"{part}_idx in {config}") - 1  # MATLAB counts from 1
        if len(index) and not 0 <= index.min() <= index.max() < count:
            raise InputError(f"{config}: {part}_idx goes beyond the {count} images of {path}")
        source = (str(path), str(config))
        parts.append(
            make_features(
                rows[index], source[0], identities=(identities[index], source[1]), cameras=(cameras[index], source[1])
            )
        )
    return parts[0], parts[1]


def _rows_of_columns(values: np.ndarray, count: int, source: str) -> np.ndarray:
    """(D, N) as these tools write it -> (N, D) with rows in one piece; (N, D) is taken where only that fits."""
    matrix = check_matrix(values, source)
    if matrix.shape[1] == count:
        return np.ascontiguousarray(matrix.T)
    if matrix.shape[0] == count:
        return np.ascontiguousarray(matrix)
    raise InputError(f"{source}: features {matrix.shape} for {count} labels; (D, N) is wanted, an image a column")


def _beside(path: Path, name: str) -> Path:
    """A label file: in the folder of the features, or as published: `feat/SET/X.mat` and `data/SET/name`."""
    folder = path.resolve().parent
    for place in (folder, *(above / "data" / folder.name for above in folder.parents)):
        if (place / name).is_file():
            return place / name
    raise InputError(f"{path}: no labels; {name} is neither beside it nor in data/{folder.name}/ above it")


def _held(path: Path) -> list[str]:
    """The names of the variables in a file."""
    return _guarded(path, list_variables)


def _only_variable(path: Path) -> np.ndarray:
    held = _held(path)
    if len(held) != 1:
        raise InputError(f"{path}: holds {len(held)} variables ({', '.join(held)}), one is wanted")
    return _read(path, held)[held[0]]


def _read(path: Path, keys: Sequence[str]) -> dict[str, np.ndarray]:
    held = _held(path)
    missing = [key for key in keys if key not in held]
    if missing:
        raise InputError(f"{path}: holds no {' and no '.join(missing)}, but {', '.join(held)}")
    return _guarded(path, lambda file: load_variables(file, keys))


def _guarded(path: Path, read: Callable[[Path], Any]) -> Any:
    """`read(path)`, with every way it fails on a file that is not sound told in one line."""
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        return read(path)
    except ValueError as error:
        raise InputError(f"{path}: broken, cut short, or no MATLAB file ({error})") from None
