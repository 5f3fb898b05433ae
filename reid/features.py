"""Features: a network and images in, embeddings out, saved and loaded as `.npz`."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from reid.errors import InputError
from reid.files import write_whole
from reid.model.network import ReidNetwork
from reid.records import Features
from reid.stages.epoch import autocast, evaluation_mode


class LabelledBatches(Protocol):
    """Images in a fixed order with their labels: see `reid.data.loaders.TestLoader`."""

    @property
    def identities(self) -> np.ndarray: ...

    @property
    def cameras(self) -> np.ndarray: ...

    @property
    def paths(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@torch.inference_mode()
def extract(
    model: ReidNetwork,
    loader: LabelledBatches,
    *,
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> dict[str, Features]:
    """Embed every image of `loader`: {"input": (N, D_in), "output": (N, K)} of the Eigenlayer, float32.

    mirror: embed the mirror images instead. dtype: autocast type, None for float32. The model's mode is restored.
    """
    parts: dict[str, list[np.ndarray]] = {"input": [], "output": []}
    with evaluation_mode(model):
        for images in tqdm(loader, desc=title or "features", unit="batch", leave=False, mininterval=1.0):
            with autocast(images.device, dtype):
                embedding = model.embed(images.flip(-1) if mirror else images)
            parts["input"].append(embedding.input.float().cpu().numpy())
            parts["output"].append(embedding.output.float().cpu().numpy())
    return {
        name: Features(np.concatenate(values), loader.identities, loader.cameras, tuple(loader.paths))
        for name, values in parts.items()
    }


def mean_features(first: Features, second: Features) -> Features:
    """The mean of an image's embedding and its mirror image's: the flip test."""
    return Features((first.values + second.values) / 2, first.identities, first.cameras, first.paths)


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
    """Query, gallery and what they are, as `save_features` wrote them.

    Raises InputError for a missing, broken or foreign file.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such feature file")
    try:
        with np.load(path, allow_pickle=False) as arrays:
            parts = [
                Features(
                    arrays[f"{part}_values"],
                    arrays[f"{part}_identities"],
                    arrays[f"{part}_cameras"],
                    tuple(arrays[f"{part}_paths"].tolist()),
                )
                for part in ("query", "gallery")
            ]
            return parts[0], parts[1], str(arrays["feature"])
    except KeyError as error:
        name = str(error).strip("'\"").split(" ")[0]
        raise InputError(
            f"{path}: holds no array {name}; was it written by tools/evaluate.py --save-features?"
        ) from None
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: broken or no feature file ({type(error).__name__})") from None
