"""Resumable extraction of features of large sets, shard by shard, by any number of processes.

The folder contains `extraction.json`, which identifies the network, the settings and the images, and per feature of the
Eigenlayer `FEATURE/PART/000000.npy`, `000001.npy`, ..., each with its checksum in a `.json` file. The labels,
`FEATURE/PART.csv` with a checksum too, are written last, so an incomplete part is not read: `FEATURE` is a folder for
`reid.io.feature_files.read_features`.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from reid.data.loading.loaders import TestLoader
from reid.distributed import barrier, get_rank, get_world_size, is_main_process, run_on_main
from reid.errors import InputError
from reid.evaluation.features import FEATURES, Network, extract, mean_features
from reid.io.atomic import write_json
from reid.io.checksums import is_finished, write_with_checksum
from reid.io.shards import save_matrix
from reid.model.network import ReidNetwork
from reid.records import Features

MANIFEST = "extraction.json"


@dataclass(frozen=True)
class ShardOptions:
    """How shards are extracted.

    Attributes:
        shard_size: Number of images per file.
        features: Features of the Eigenlayer, of `FEATURES`.
        flip: Average each embedding with that of the mirrored image.
        engine: What runs the network; None for PyTorch.
    """

    shard_size: int
    features: Sequence[str] = FEATURES
    flip: bool = False
    engine: Network | None = None


def extract_shards(
    model: ReidNetwork,
    parts: Mapping[str, TestLoader],
    folder: Path,
    options: ShardOptions,
    *,
    settings: Mapping[str, Any],
) -> dict[str, int]:
    """Embed every image and write the features as shards.

    Shards finished earlier are kept; a shard that does not match its checksum is extracted again. Several processes
    divide the shards among them and must share the folder.

    Args:
        model: Network that embeds the images; it must be on the device of the batches.
        parts: Images by name, such as "query" and "gallery".
        folder: Folder in which the shards are written.
        options: Size and content of the shards.
        settings: Plain values that determine how images become features, in addition to the network's weights.

    Returns:
        The number of shards of each part that this process extracted.

    Raises:
        InputError: If the folder holds shards of a different network, different settings or different images.
    """
    extracted = dict[str, int]()
    run_on_main(lambda: _check_manifest(model, parts, folder, options.shard_size, {**settings, "flip": options.flip}))
    for part, images in parts.items():
        total = len(images.identities)
        starts = range(0, total, options.shard_size)
        extracted[part] = 0
        for number in range(get_rank(), len(starts), get_world_size()):
            files = [folder / feature / part / f"{number:06d}.npy" for feature in options.features]
            if all(map(is_finished, files)):
                continue
            shard = images.slice(starts[number], min(starts[number] + options.shard_size, total))
            features = _embed_shard(
                options.engine or model, shard, options, f"{part}, shard {number + 1} of {len(starts)}"
            )
            for file, feature in zip(files, options.features, strict=True):
                save_matrix(file, features[feature].values)
            extracted[part] += 1
        barrier()
        if is_main_process():
            _write_labels(folder, part, images, len(starts), options.features)
    return extracted


def fingerprint(model: torch.nn.Module) -> str:
    """Compute a digest of every tensor of a network.

    Args:
        model: Network whose state dict is hashed.

    Returns:
        Hexadecimal SHA-256 digest.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _embed_shard(model: Network, images: TestLoader, options: ShardOptions, title: str) -> dict[str, Features]:
    features = extract(model, images, title=title)
    if not options.flip:
        return features
    mirrored = extract(model, images, mirror=True, title=f"{title}, mirrored")
    return {name: mean_features(features[name], mirrored[name]) for name in features}


def _check_manifest(
    model: ReidNetwork, parts: Mapping[str, TestLoader], folder: Path, shard: int, settings: Mapping[str, Any]
) -> None:
    """Write the manifest, or check that the folder's shards belong to the same network, settings and images."""
    path = folder / MANIFEST
    current = {"weights": fingerprint(model), **settings, "shard": shard}
    current |= {f"images of {part}": _digest(images) for part, images in parts.items()}
    current = json.loads(json.dumps(current))
    previous: dict[str, Any] = {}
    if path.exists():
        try:
            previous = dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, RecursionError) as error:
            raise InputError(f"{path}: corrupt ({error}); move the folder away and start again") from None
    different = [key for key, value in current.items() if key in previous and previous[key] != value]
    if different:
        raise InputError(
            f"{folder}: holds features that differ in {', '.join(different)}; use another --output or the same settings"
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, {**previous, **current})


def _digest(images: TestLoader) -> str:
    """Compute a digest of names, order and labels; the location of the dataset may change."""
    digest = hashlib.sha256()
    for path, identity, camera in _rows(images):
        digest.update(f"{Path(path).name}\0{identity}\0{camera}\n".encode("utf-8", "surrogateescape"))
    return f"{len(images.identities)}, {digest.hexdigest()}"


def _rows(images: TestLoader) -> Iterator[tuple[str, int, int]]:
    return zip(images.paths, images.identities.tolist(), images.cameras.tolist(), strict=True)


def _write_labels(folder: Path, part: str, images: TestLoader, shards: int, features: Sequence[str]) -> None:
    for feature in features:
        missing = [n for n in range(shards) if not (folder / feature / part / f"{n:06d}.npy").is_file()]
        if missing:
            raise InputError(
                f"{folder / feature / part}: {len(missing)} of {shards} shards are missing, first number {missing[0]}; "
                "were they written on another host? Copy them here and start again"
            )
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerow(("identity", "camera", "path"))
        writer.writerows((identity, camera, path) for path, identity, camera in _rows(images))
        write_with_checksum(folder / feature / f"{part}.csv", table.getvalue().encode("utf-8", "surrogateescape"))
