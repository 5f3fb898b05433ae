"""Features of sets too large for one sitting: shard by shard, by any number of processes, no finished shard twice.

A folder holds `extraction.json`, which tells whose features of which images these are, and per feature of the
Eigenlayer `FEATURE/PART/000000.npy`, `000001.npy`, ..., each with its checksum in a `.json` beside. `FEATURE/PART.csv`,
the labels, is written last, so a part that is not whole is not read: `FEATURE` is a folder of
`reid.io.feature_files.read_features`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from reid.distributed import barrier, get_rank, get_world_size, is_main_process, run_on_main
from reid.errors import InputError
from reid.evaluation.features import FEATURES, LabeledBatches, extract, mean_features
from reid.io.atomic import write_bytes, write_json
from reid.model.network import ReidNetwork
from reid.records import Features

MANIFEST = "extraction.json"


class PartialBatches(LabeledBatches, Protocol):
    """Labeled images of which a stretch can be had: see `reid.data.loading.loaders.TestLoader`."""

    def slice(self, first: int, last: int) -> LabeledBatches: ...


def extract_shards(
    model: ReidNetwork,
    parts: Mapping[str, PartialBatches],
    folder: Path,
    *,
    shard: int,
    settings: Mapping[str, Any],
    features: Sequence[str] = FEATURES,
    flip: bool = False,
    dtype: torch.dtype | None = None,
) -> dict[str, int]:
    """Embed every image of `parts`, `shard` images a file, into `folder`; returns how many shards each part was short.

    parts: by name, such as "query" and "gallery". settings: plain values that say how images become features, beside
    the network's weights. features: of FEATURES. flip: the mean with the mirror image's. dtype: autocast type. Shards
    that a process before has finished stay as they are; one that is not what its checksum says is made again. Several
    processes share the shards out and need to see one folder. Raises InputError where the folder holds shards of
    another network, settings or images.
    """
    made = dict[str, int]()
    run_on_main(lambda: _check_manifest(model, parts, folder, shard, {**settings, "flip": flip}))
    for part, images in parts.items():
        starts = range(0, len(images.identities), shard)
        made[part] = 0
        for number in range(get_rank(), len(starts), get_world_size()):
            files = [folder / feature / part / f"{number:06d}.npy" for feature in features]
            if all(map(_finished, files)):
                continue
            stretch = images.slice(starts[number], min(starts[number] + shard, len(images.identities)))
            found = _embedded(model, stretch, flip, dtype, f"{part}, shard {number + 1} of {len(starts)}")
            for file, feature in zip(files, features, strict=True):
                _write(file, found[feature].values)
            made[part] += 1
        barrier()
        if is_main_process():
            _write_labels(folder, part, images, len(starts), features)
    return made


def fingerprint(model: torch.nn.Module) -> str:
    """A digest of every tensor of the network."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _embedded(
    model: ReidNetwork, images: LabeledBatches, flip: bool, dtype: torch.dtype | None, title: str
) -> dict[str, Features]:
    found = extract(model, images, dtype=dtype, title=title)
    if not flip:
        return found
    mirrored = extract(model, images, mirror=True, dtype=dtype, title=f"{title}, mirrored")
    return {name: mean_features(found[name], mirrored[name]) for name in found}


def _check_manifest(
    model: ReidNetwork, parts: Mapping[str, PartialBatches], folder: Path, shard: int, settings: Mapping[str, Any]
) -> None:
    """Write down what the folder's shards are of, or find that they are of something else."""
    path = folder / MANIFEST
    now = {"weights": fingerprint(model), **settings, "shard": shard}
    now |= {f"images of {part}": _digest(images) for part, images in parts.items()}
    now = json.loads(json.dumps(now))
    was: dict[str, Any] = {}
    if path.exists():
        try:
            was = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError) as error:
            raise InputError(f"{path}: broken ({error}); move the folder away and start again") from None
    different = [key for key, value in now.items() if key in was and was[key] != value]
    if different:
        raise InputError(
            f"{folder} holds features that differ in {', '.join(different)}: give another --output, or all as it was"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**was, **now})


def _digest(images: LabeledBatches) -> str:
    """Of names, order and labels; where the dataset lies may change."""
    digest = hashlib.sha256()
    for path, identity, camera in _rows(images):
        digest.update(f"{Path(path).name}\0{identity}\0{camera}\n".encode())
    return f"{len(images.identities)}, {digest.hexdigest()}"


def _rows(images: LabeledBatches) -> Iterator[tuple[str, int, int]]:
    return zip(images.paths, images.identities.tolist(), images.cameras.tolist(), strict=True)


def _write(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    buffer = io.BytesIO()
    np.save(buffer, values, allow_pickle=False)
    # Without its checksum a shard does not count, and with another one neither.
    write_bytes(path, buffer.getbuffer())
    write_json(path.with_suffix(".json"), {"rows": len(values), "crc32": zlib.crc32(buffer.getbuffer())})


def _finished(path: Path) -> bool:
    """Whether a shard is there and what its checksum says."""
    try:
        told = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["crc32"]
        checksum = 0
        with open(path, "rb") as file:
            while piece := file.read(2**24):
                checksum = zlib.crc32(piece, checksum)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return False
    return bool(checksum == told)


def _write_labels(folder: Path, part: str, images: LabeledBatches, shards: int, features: Sequence[str]) -> None:
    for feature in features:
        missing = [n for n in range(shards) if not (folder / feature / part / f"{n:06d}.npy").is_file()]
        if missing:
            raise InputError(
                f"{folder / feature / part}: {len(missing)} of {shards} shards are not here, the first number "
                f"{missing[0]}; were they written on another host? Bring them here and start again"
            )
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("identity", "camera", "path"))
        writer.writerows((identity, camera, path) for path, identity, camera in _rows(images))
        write_bytes(folder / feature / f"{part}.csv", table.getvalue().encode("utf-8"))
