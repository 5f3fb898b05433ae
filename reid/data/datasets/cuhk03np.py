"""CUHK03-NP: CUHK03 (Li et al., CVPR 2014) under the new protocol of Zhong et al., CVPR 2017, labeled and detected.

Two published forms are read: Market-1501's three folders, and the protocol's `.mat` file beside the images taken out of
`cuhk-03.mat`. The persons' numbers differ between the two, the images of each part do not.
"""

from __future__ import annotations

import dataclasses
import re
from functools import partial
from pathlib import Path

import numpy as np

from reid.data.datasets.layout import Layout, PartCounts, check_counts, check_matches, is_there, locate, read_dataset
from reid.errors import InputError
from reid.io.mat import load_variables
from reid.records import ImageRecord, Split

_OUTER = ("cuhk03-np", "CUHK03-NP", "cuhk03_np", "CUHK03_np")
_PARTS = ("train", "query", "gallery")


def _layout(box: str, folder: str, train: int, gallery: int) -> Layout:
    return Layout(
        name=f"cuhk03np_{box}",
        title=f"CUHK03-NP ({box})",
        folders=(*(f"{outer}/{inner}" for outer in _OUTER for inner in (folder, folder.title())), folder),
        archive="",
        pattern=re.compile(r"(?P<identity>\d{1,9})_c(?P<camera>\d{1,4})_\d+.*"),
        example="0003_c1_22.png",
        official={
            "train": PartCounts(images=train, identities=767, cameras=2),
            "query": PartCounts(images=1_400, identities=700, cameras=2),
            "gallery": PartCounts(images=gallery, identities=700, cameras=2),
        },
        obtaining="Its images come from the Chinese University of Hong Kong, whose terms hold; unpack a zip by hand",
    )


LAYOUTS = {
    "labelled": _layout("labelled", "labeled", train=7_368, gallery=5_328),
    "detected": _layout("detected", "detected", train=7_365, gallery=5_332),
}


def _read(box: str, root: Path, *, strict: bool = True, cache: Path) -> Split:
    """Read CUHK03-NP, `labeled` or `detected`, from its three folders or from the protocol's `.mat` and the images.

    The folders are `cuhk03-np/labeled/{bounding_box_train,query,bounding_box_test}`; otherwise
    `cuhk03_new_protocol_config_labeled.mat` in `root`, `cuhk03/` or `cuhk03-np/` and its images beside it, in
    `cuhk03_labeled/` or `images_labeled/`; `detected` in the place of `labeled` throughout. strict: the official counts
    must hold. Raises `InputError`.
    """
    layout = LAYOUTS[box]
    spelling = layout.folders[-1]
    protocol = dataclasses.replace(
        layout, folders=("cuhk03", "CUHK03", *_OUTER), marks=(f"cuhk03_new_protocol_config_{spelling}.mat",)
    )
    if is_there(layout, root) or not is_there(protocol, root):
        return read_dataset(layout, root, strict=strict, cache=cache)
    folder = locate(protocol, root, cache=cache)
    split = _read_protocol(layout.name, folder / protocol.marks[0], folder, spelling)
    check_matches(split, folder)
    if strict:
        check_counts(split, layout.official, f"the official {layout.title}", "DATASETS.STRICT False accepts a subset")
    return split


read_cuhk03np_labeled = partial(_read, "labelled")
read_cuhk03np_detected = partial(_read, "detected")


def _read_protocol(name: str, path: Path, folder: Path, spelling: str) -> Split:
    """`filelist` names all images, `labels` and `camId` tell of each, `*_idx` say from 1 which are in a part."""
    arrays = _load(path)
    names = [str(np.squeeze(entry)) for entry in arrays["filelist"].ravel()]
    outside = [name for name in names if not name or Path(name).name != name]
    if outside:
        raise InputError(f"{path}: filelist holds {outside[0][:80]!r}, which is no name of a file")
    identities, cameras = (_whole(arrays[key], key, path) for key in ("labels", "camId"))
    if not len(names) == len(identities) == len(cameras):
        raise InputError(
            f"{path}: {len(names)} names in filelist, but {len(identities)} labels and {len(cameras)} camId"
        )
    places = [folder / f"{start}_{spelling}" for start in ("cuhk03", "images")]
    images = next((place for place in places if place.is_dir()), None)
    if images is None:
        raise InputError(f"{path}: its images are missing; neither {places[0]} nor {places[1]} is a folder")
    parts = {}
    for part in _PARTS:
        chosen = _whole(arrays[f"{part}_idx"], f"{part}_idx", path) - 1
        if not len(chosen) or chosen.min() < 0 or chosen.max() >= len(names):
            raise InputError(f"{path}: {part}_idx must hold numbers from 1 to {len(names)}, as filelist has names")
        gone = [names[i] for i in chosen if not (images / names[i]).is_file()]
        if gone:
            raise InputError(f"{images / gone[0]}: no such image, but {path.name} names it ({len(gone)} of {part})")
        parts[part] = tuple(
            ImageRecord(str(images / names[i]), int(identities[i]), int(cameras[i])) for i in chosen.tolist()
        )
    return Split(name, parts["train"], parts["query"], parts["gallery"])


def _whole(values: np.ndarray, name: str, path: Path) -> np.ndarray:
    """(N,) int64 of an array of whole numbers from 0 on."""
    flat = values.ravel()
    if flat.dtype.kind in "iuf":
        with np.errstate(invalid="ignore"):
            whole = flat.astype(np.int64)
        if (whole == flat).all() and (whole >= 0).all() and (whole < 10**9).all():
            return whole
    raise InputError(f"{path}: {name} must hold whole numbers, this is {values.dtype} {values.shape}")


def _load(path: Path) -> dict[str, np.ndarray]:
    keys = ["filelist", "labels", "camId", *(f"{part}_idx" for part in _PARTS)]
    try:
        found = load_variables(path, keys)
    except ValueError as error:
        raise InputError(f"{path}: broken or no MATLAB file of version 7 ({error})") from None
    missing = [key for key in keys if key not in found]
    if missing:
        raise InputError(f"{path}: holds no {' and no '.join(missing)}; is it the published protocol?")
    return found
