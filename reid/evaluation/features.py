"""Feature extraction: embeddings of images by a network."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from reid.data.loading.loaders import TestLoader
from reid.data.loading.whole_images import WholeImageLoader
from reid.distributed import gather, get_rank, get_world_size
from reid.errors import InputError, unknown_name
from reid.model.network import Embedding, ReidNetwork
from reid.model.pooling.flatten import Flatten
from reid.progress import progress_bar, track
from reid.records import Features
from reid.training.epoch import evaluation_mode
from reid.training.step import evaluated_in

COMBINATIONS = ("mean", "gem")
FEATURES = ("input", "output")
ENGINES = ("auto", "torch", "onnxruntime", "openvino")


class BatchEmbedder(Protocol):
    """A network that another engine than PyTorch may run: see `reid.inference.engines.engine.Engine`."""

    def embed_batches(self, batches: Iterable[Tensor]) -> Iterator[Embedding]:
        """Embed batches.

        Args:
            batches: (B, 3, H, W) float32 images each, normalized.

        Returns:
            The features of each batch.
        """
        ...


Network = ReidNetwork | BatchEmbedder


def distinct_features(model: ReidNetwork) -> tuple[str, ...]:
    """List the features of a network that differ from each other.

    Args:
        model: The network.

    Returns:
        "input" and "output" of the Eigenlayer; only "input" if the Eigenlayer is the identity.
    """
    return FEATURES[:1] if model.eigenlayer.is_identity else FEATURES


@torch.inference_mode()
def extract(
    model: Network,
    loader: TestLoader,
    *,
    mirror: bool = False,
    dtype: torch.dtype | None = None,
    title: str = "",
) -> dict[str, Features]:
    """Embed every image of a loader; the mode of the model is restored.

    Args:
        model: Network, on the device of the batches, or an engine that runs it.
        loader: Images with labels.
        mirror: Embed the mirrored images instead.
        dtype: Autocast type of a network, None for float32.
        title: Title of the progress bar.

    Returns:
        "input" (N, D_in) and "output" (N, K) of the Eigenlayer, float32.
    """
    parts: dict[str, list[np.ndarray]] = {"input": [], "output": []}
    batches = track(loader, title or "features", total=len(loader), unit="batches")
    for embedding in _embeddings(model, (images.flip(-1) if mirror else images for images in batches), dtype):
        parts["input"].append(embedding.input.float().cpu().numpy())
        parts["output"].append(embedding.output.float().cpu().numpy())
    return {
        name: Features(np.concatenate(values), loader.identities, loader.cameras, tuple(loader.paths))
        for name, values in parts.items()
    }


def _embeddings(model: Network, batches: Iterator[Tensor], dtype: torch.dtype | None) -> Iterator[Embedding]:
    if not isinstance(model, ReidNetwork):
        yield from model.embed_batches(batches)
        return
    with evaluation_mode(model):
        for images in batches:
            with evaluated_in(images.device, dtype):
                embedding = model.embed(images)
            yield embedding


def extract_together(
    model: Network,
    loader: TestLoader,
    *,
    mirror: bool = False,
    title: str = "",
) -> dict[str, Features]:
    """Embed every image of a loader by all processes together.

    Args:
        model: Network with the same weights on every process, or an engine that runs it.
        loader: Images with labels.
        mirror: Embed the mirrored images instead.
        title: Title of the progress bar.

    Returns:
        On the main process the features as `extract` returns them, on all others {}.
    """
    if get_world_size() == 1:
        return extract(model, loader, mirror=mirror, title=title)
    own, values = loader.shard(get_rank(), get_world_size()), dict[str, Tensor]()
    if len(own):
        extracted = extract(model, own, mirror=mirror, title=title)
        values = {name: torch.from_numpy(features.values) for name, features in extracted.items()}
    parts = [part for part in gather(values) if part]
    return {
        name: Features(
            torch.cat([part[name] for part in parts]).numpy(), loader.identities, loader.cameras, tuple(loader.paths)
        )
        for name in (FEATURES if parts else ())
    }


def mean_features(first: Features, second: Features) -> Features:
    """Average the embeddings of images and their mirror images (flip test).

    Args:
        first: Features of the images.
        second: Features of the mirrored images, in the same order.

    Returns:
        The averaged features with the labels of `first`.
    """
    return Features((first.values + second.values) / 2, first.identities, first.cameras, first.paths)


@dataclass(frozen=True)
class DescriptorOptions:
    """How global descriptors of whole images are computed.

    Attributes:
        feature: "input" or "output" of the Eigenlayer.
        scales: Relative sizes at which each image is embedded, resized bilinearly (no antialiasing, sides rounded
            down).
        combine: How the unit descriptors of the scales are combined (Radenović, Tolias, Chum 2018 and the authors'
            code): "mean", or "gem" for the generalized mean (mean of v^p)^(1/p) with the exponent p of the network's
            GeM pooling.
        mirror: Average the descriptor of an image at each scale with that of its mirror image.
        dtype: Autocast type, None for float32.
    """

    feature: str = "input"
    scales: Sequence[float] = (1.0,)
    combine: str = "mean"
    mirror: bool = False
    dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        if self.feature not in FEATURES:
            raise unknown_name("feature", self.feature, FEATURES)
        if not self.scales or not all(0 < scale < math.inf for scale in self.scales):
            raise InputError(f"scales {list(self.scales)}: must be one or more numbers above 0, such as 1 0.7071 0.5")
        if self.combine not in COMBINATIONS:
            raise unknown_name("way to combine scales", self.combine, COMBINATIONS)


_DEFAULT_OPTIONS = DescriptorOptions()


@torch.inference_mode()
def extract_whole(
    model: ReidNetwork, images: WholeImageLoader, options: DescriptorOptions = _DEFAULT_OPTIONS, *, title: str = ""
) -> np.ndarray:
    """Compute global descriptors of images of any size; the mode of the model is restored.

    The descriptors of the scales are combined in float64. A row of zeros stays zero, with a warning.

    Args:
        model: Network that accepts images of any size, see `check_any_size`.
        images: Images in a fixed order.
        options: How descriptors are computed.
        title: Title of the progress bar and name in messages.

    Returns:
        (N, D) float32 rows of length 1.

    Raises:
        InputError: If the network has a fixed image size, a scale leaves no pixel, "gem" is requested without GeM
            pooling or with negative values, or descriptors are not finite.
    """
    check_any_size(model)
    exponent = _exponent(model, options)
    parts = []
    with (
        evaluation_mode(model),
        progress_bar(title or "features", len(images), unit="images") as bar,
    ):
        for batch in images:
            descriptors = []
            for scale in options.scales:
                resized = _rescale(batch, scale)
                views = (resized, resized.flip(-1)) if options.mirror else (resized,)
                with evaluated_in(batch.device, options.dtype):
                    values = [getattr(model.embed(view), options.feature).double() for view in views]
                descriptors.append(functional.normalize(torch.stack(values).mean(0), dim=1, eps=_EPS))
            parts.append(_combine(torch.stack(descriptors), exponent).float().cpu().numpy())
            bar.advance(len(batch))
    result = np.concatenate(parts) if parts else np.empty((0, 0), dtype=np.float32)
    _check_rows(result, title)
    return result


def check_any_size(model: ReidNetwork) -> None:
    """Check that a network accepts images of any size.

    Args:
        model: Network whose backbone and pooling are checked.

    Raises:
        InputError: If its backbone or pooling has a fixed image size.
    """
    size = getattr(model.backbone, "input_size", None)
    if size is None and isinstance(model.pooling, Flatten):
        size = model.pooling.size
    if size is not None:
        raise InputError(
            f"the network of this checkpoint only accepts images of one size (its {size[0]} x {size[1]}) and cannot "
            "describe whole images; use one with a ResNet or OSNet backbone"
        )


_EPS = 1e-300  # a shorter descriptor is zero


def _exponent(model: ReidNetwork, options: DescriptorOptions) -> Tensor | None:
    """Return None for the mean, otherwise p, (1,) or (D,) float64."""
    if options.combine == "mean":
        return None
    p = getattr(model.pooling, "p", None)
    if not isinstance(p, Tensor):
        raise InputError(
            "combine 'gem': scales are combined with the exponent of GeM pooling, but this network has "
            f"{type(model.pooling).__name__} pooling; use 'mean'"
        )
    if options.feature == "output":
        raise InputError("combine 'gem': the Eigenlayer's output has negative values; use 'mean'")
    return p.detach().double()


def _rescale(images: Tensor, scale: float) -> Tensor:
    if scale == 1:
        return images
    height, width = images.shape[2:]
    if min(height, width) * scale < 1:
        raise InputError(f"scale {scale}: leaves no pixel of an image of {height} x {width} (height x width)")
    return functional.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)


def _combine(descriptors: Tensor, exponent: Tensor | None) -> Tensor:
    """Combine (scales, B, D) float64 to (B, D) rows of length 1."""
    if exponent is None:
        combined = descriptors.mean(0)
    else:
        if (descriptors < 0).any():
            raise InputError("combine 'gem': the descriptors have negative values; use 'mean'")
        if len(exponent) not in (1, descriptors.shape[2]):
            raise InputError(
                f"combine 'gem': the network has {len(exponent)} exponents, one per channel of the feature map, for "
                f"descriptors of {descriptors.shape[2]} dimensions; use 'mean'"
            )
        # Relative to the largest value, so that no power of a small value underflows.
        largest = descriptors.amax(0).clamp(min=_EPS)
        combined = (descriptors / largest).pow(exponent).mean(0).pow(1 / exponent) * largest
    return functional.normalize(combined, dim=1, eps=_EPS)


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
