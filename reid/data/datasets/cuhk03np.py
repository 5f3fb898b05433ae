"""CUHK03-NP: CUHK03 (Li et al., CVPR 2014) under the new protocol of Zhong et al., CVPR 2017, labeled and detected.

Two published forms are supported: the three folders of Market-1501, and the protocol's `.mat` file next to the images
extracted from `cuhk-03.mat`. The identity numbers differ between the two, the images of each part do not.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path

import numpy as np

from reid.data.datasets.layout import Layout, PartCounts, check_counts, check_matches, is_present, locate, read_dataset
from reid.errors import InputError
from reid.io.mat import load_variables
from reid.records import ImageRecord, Split

_OUTER = ("cuhk03-np", "CUHK03-NP", "cuhk03_np", "CUHK03_np")
_PARTS = ("train", "query", "gallery")


def _layout(box: str, folder: str, train: int, gallery: int) -> Layout:
    return Layout(
        name=f"cuhk03np_{box}",
        title=f"CUHK03-NP ({folder})",
        folders=(*(f"{outer}/{inner}" for outer in _OUTER for inner in (folder, folder.title())), folder),
        archive="",
        pattern=re.compile(r"(?P<identity>\d{1,9})_c(?P<camera>\d{1,4})_\d+.*"),
        example="0003_c1_22.png",
        official={
            "train": PartCounts(images=train, identities=767, cameras=2),
            "query": PartCounts(images=1_400, identities=700, cameras=2),
            "gallery": PartCounts(images=gallery, identities=700, cameras=2),
        },
        availability="Its images are available from the Chinese University of Hong Kong; extract a zip yourself",
    )


LAYOUTS = {
    "labelled": _layout("labelled", "labeled", train=7_368, gallery=5_328),
    "detected": _layout("detected", "detected", train=7_365, gallery=5_332),
}


def _read(box: str, root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read CUHK03-NP, `labeled` or `detected`, from its three folders or from the protocol's `.mat` and the images.

    The folders are `cuhk03-np/labeled/{bounding_box_train,query,bounding_box_test}`. The alternative is
    `cuhk03_new_protocol_config_labeled.mat` in `root`, `cuhk03/` or `cuhk03-np/` with the images next to it in
    `cuhk03_labeled/` or `images_labeled/`. For the detected boxes, all names contain `detected` instead of `labeled`.
    """
    layout = LAYOUTS[box]
    spelling = layout.folders[-1]
    protocol = dataclasses.replace(
        layout, folders=("cuhk03", "CUHK03", *_OUTER), markers=(f"cuhk03_new_protocol_config_{spelling}.mat",)
    )
    if is_present(layout, root) or not is_present(protocol, root):
        return read_dataset(layout, root, strict=strict, cache=cache)
    folder = locate(protocol, root, cache=cache)
    split = _read_protocol(layout.name, folder / protocol.markers[0], folder, spelling)
    check_matches(split, folder)
    if strict:
        check_counts(split, layout.official, f"the official {layout.title}", "DATASETS.STRICT False accepts a subset")
    return split


read_cuhk03np_labeled = partial(_read, "labelled")
read_cuhk03np_detected = partial(_read, "detected")


def _read_protocol(name: str, path: Path, folder: Path, spelling: str) -> Split:
    """Read a split from `filelist`, `labels` and `camId` of all images and the 1-based `*_idx` of each part."""
    arrays = _load(path)
    names = [str(np.squeeze(entry)) for entry in arrays["filelist"].ravel()]
    outside = [name for name in names if not name or Path(name).name != name]
    if outside:
        raise InputError(f"{path}: filelist contains {outside[0][:80]!r}, which is not a file name")
    identities, cameras = (_integers(arrays[key], key, path) for key in ("labels", "camId"))
    if not len(names) == len(identities) == len(cameras):
        raise InputError(
            f"{path}: {len(names)} names in filelist, but {len(identities)} labels and {len(cameras)} camId"
        )
    candidates = [folder / f"{start}_{spelling}" for start in ("cuhk03", "images")]
    images = next((candidate for candidate in candidates if candidate.is_dir()), None)
    if images is None:
        raise InputError(f"{path}: its images are missing; neither {candidates[0]} nor {candidates[1]} is a folder")
    parts = {}
    for part in _PARTS:
        chosen = _integers(arrays[f"{part}_idx"], f"{part}_idx", path) - 1
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(names):
            raise InputError(f"{path}: {part}_idx must contain numbers from 1 to {len(names)}, the length of filelist")
        missing = [names[i] for i in chosen if not (images / names[i]).is_file()]
        if missing:
            raise InputError(
                f"{images / missing[0]}: no such image, but {path.name} lists it ({len(missing)} missing in {part})"
            )
        parts[part] = tuple(
            ImageRecord(str(images / names[i]), int(identities[i]), int(cameras[i])) for i in chosen.tolist()
        )
    return Split(name, parts["train"], parts["query"], parts["gallery"])


def _integers(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """Convert an array of integers from 0 on to (N,) int64."""
    flat = values.ravel()
    if flat.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            whole = flat.astype(np.int64)
        if (whole == flat).all() and (whole >= 0).all() and (whole < 10**9).all():
            return whole
    raise InputError(f"{path}: {name} must contain integers from 0 on, not {values.dtype} {values.shape}")


def _load(path: Path) -> dict[str, np.ndarray]:
    keys = ["filelist", "labels", "camId", *(f"{part}_idx" for part in _PARTS)]
    try:
        variables = load_variables(path, keys)
    except ValueError as error:
        raise InputError(f"{path}: not a MATLAB file of version 7, or a corrupt one ({error})") from None
    missing = [key for key in keys if key not in variables]
    if missing:
        raise InputError(f"{path}: {' and '.join(missing)} missing; is it the published protocol?")
    return variables
