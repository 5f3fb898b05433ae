"""Features: a network and images in, embeddings out."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from tqdm import tqdm

from reid.distributed import gather, get_rank, get_world_size, is_main_process
from reid.errors import InputError, unknown_name
from reid.model.network import ReidNetwork
from reid.model.pooling.flatten import Flatten
from reid.records import Features
from reid.training.epoch import evaluation_mode
from reid.training.step import autocast

COMBINATIONS = ("mean", "gem")
FEATURES = ("input", "output")


class LabeledBatches(Protocol):
    """Images in a fixed order with their labels: see `reid.data.loading.loaders.TestLoader`."""

    def shard(self, rank: int, world: int) -> LabeledBatches: ...

    @property
    def identities(self) -> np.ndarray: ...

    @property
    def cameras(self) -> np.ndarray: ...

    @property
    def paths(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


class ImageBatches(Protocol):
    """Images of any sizes in a fixed order, each batch of one size: see `reid.data.loading.whole_images.WholeImageLoader`."""

    def __len__(self) -> int:
        """Images, not batches."""
        ...

    def __iter__(self) -> Iterator[Tensor]: ...


@torch.inference_mode()
def extract(
    model: ReidNetwork,
    loader: LabeledBatches,
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
        for images in tqdm(
            loader, desc=title or "features", unit="batch", leave=False, mininterval=1.0, disable=not is_main_process()
        ):
            with autocast(images.device, dtype):
                embedding = model.embed(images.flip(-1) if mirror else images)
            parts["input"].append(embedding.input.float().cpu().numpy())
            parts["output"].append(embedding.output.float().cpu().numpy())
    return {
        name: Features(np.concatenate(values), loader.identities, loader.cameras, tuple(loader.paths))
        for name, values in parts.items()
    }


def extract_together(
    model: ReidNetwork,
    loader: LabeledBatches,
    *,
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> dict[str, Features]:
    """As `extract`, where several processes embed a part each: the first gets the whole, the others get {}."""
    if get_world_size() == 1:
        return extract(model, loader, mirror=mirror, dtype=dtype, title=title)
    mine, values = loader.shard(get_rank(), get_world_size()), dict[str, Tensor]()
    if len(mine):
        found = extract(model, mine, mirror=mirror, dtype=dtype, title=title)
        values = {name: torch.from_numpy(features.values) for name, features in found.items()}
    parts = [part for part in gather(values) if part]
    return {
        name: Features(
            torch.cat([part[name] for part in parts]).numpy(), loader.identities, loader.cameras, tuple(loader.paths)
        )
        for name in (FEATURES if parts else ())
    }


def mean_features(first: Features, second: Features) -> Features:
    """The mean of an image's embedding and its mirror image's: the flip test."""
    return Features((first.values + second.values) / 2, first.identities, first.cameras, first.paths)


@torch.inference_mode()
def extract_whole(
    model: ReidNetwork,
    images: ImageBatches,
    *,
    feature: str = "input",
    scales: Sequence[float] = (1.0,),
    combine: str = "mean",
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> np.ndarray:
    """Global descriptors of images of any size: (N, D) float32, rows of unit length.

    feature: the Eigenlayer's "input" or "output". scales: each image is seen at each, resized bilinearly (no
    antialiasing, sides rounded down). The descriptor of each scale gets unit length; they are combined in float64 and
    the result gets unit length again (Radenović, Tolias, Chum 2018 and the authors' code): "mean" by their mean, "gem"
    by the generalized mean (mean of v^p)^(1/p) with the exponent p of the network's GeM pooling.
    mirror: an image's descriptor at a scale is the mean of its own and its mirror image's. dtype: autocast type.
    The model's mode is restored. A row of zeros stays one, with a warning.
    Raises InputError for a network made for one size of image, an unknown name, a scale that is not above 0 or leaves
    no pixel, "gem" without one or with negative values, and descriptors that are not finite.
    """
    check_any_size(model)
    if feature not in FEATURES:
        raise unknown_name("feature", feature, FEATURES)
    if not scales or not all(0 < scale < math.inf for scale in scales):
        raise InputError(f"scales {list(scales)} must be one or more numbers above 0, such as 1 0.7071 0.5")
    exponent = _exponent(model, feature, combine)
    parts = []
    with (
        evaluation_mode(model),
        tqdm(total=len(images), desc=title or "features", unit="image", leave=False, mininterval=1.0) as bar,
    ):
        for batch in images:
            seen = []
            for scale in scales:
                resized = _rescaled(batch, scale)
                views = (resized, resized.flip(-1)) if mirror else (resized,)
                with autocast(batch.device, dtype):
                    values = [getattr(model.embed(view), feature).double() for view in views]
                seen.append(functional.normalize(torch.stack(values).mean(0), dim=1, eps=_LEAST))
            parts.append(_combined(torch.stack(seen), exponent).float().cpu().numpy())
            bar.update(len(batch))
    found = np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)
    _check_rows(found, title)
    return found


def check_any_size(model: ReidNetwork) -> None:
    """Raise InputError for a network whose backbone or pooling was made for images of one size."""
    size = getattr(model.backbone, "input_size", None)
    if size is None and isinstance(model.pooling, Flatten):
        size = model.pooling.size
    if size is not None:
        raise InputError(
            f"the network of this checkpoint was made for images of one size (its {size[0]} x {size[1]}) and cannot "
            "describe whole images of any: take one with a ResNet or an OSNet as its backbone"
        )


_LEAST = 1e-300  # a shorter descriptor is zero


def _exponent(model: ReidNetwork, feature: str, combine: str) -> Tensor | None:
    """None for the mean, else p, (1,) or (D,) float64."""
    if combine not in COMBINATIONS:
        raise unknown_name("way to combine scales", combine, COMBINATIONS)
    if combine == "mean":
        return None
    p = getattr(model.pooling, "p", None)
    if not isinstance(p, Tensor):
        raise InputError(
            f"'gem' combines scales with the exponent of GeM pooling, and this network pools by "
            f"{type(model.pooling).__name__}: take 'mean'"
        )
    if feature == "output":
        raise InputError("'gem' takes powers of the Eigenlayer's output, which has negative values: take 'mean'")
    return p.detach().double()


def _rescaled(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    height, width = images.shape[2:]
    if min(height, width) * scale < 1:
        raise InputError(f"the scale {scale} leaves nothing of an image of {height} x {width} (height x width)")
    return functional.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def _combined(seen: Tensor, exponent: Tensor | None) -> Tensor:
    """(scales, B, D) float64 -> (B, D) of unit length."""
    if exponent is None:
        combined = seen.mean(0)
    else:
        if (seen < 0).any():
            raise InputError("'gem' takes powers of descriptors, and these have negative values: take 'mean'")
        if len(exponent) not in (1, seen.shape[2]):
            raise InputError(
                f"'gem' has {len(exponent)} exponents, one a channel of the map, for descriptors of {seen.shape[2]} "
                "dimensions: take 'mean'"
            )
        # Of the share of the largest, so that no power of a small value becomes zero.
        largest = seen.amax(0).clamp(min=_LEAST)
        combined = (seen / largest).pow(exponent).mean(0).pow(1 / exponent) * largest
    return functional.normalize(combined, dim=1, eps=_LEAST)


def _check_rows(values: np.ndarray, title: str) -> None:
    bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
    if len(bad):
        raise InputError(
            f"{title or 'features'}: {len(bad)} of {len(values)} descriptors hold NaN or infinity, the first that of "
            f"image {bad[0]}; try TEST.PRECISION float32"
        )
    zero = int((~values.any(axis=1)).sum())
    if zero:
        warnings.warn(f"{title or 'features'}: {zero} of {len(values)} descriptors are zero", stacklevel=3)
