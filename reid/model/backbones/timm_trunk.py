"""Networks of timm (PyTorch Image Models) as backbones, named `timm:NAME`; timm is an optional dependency."""

from __future__ import annotations

import difflib
import math
import sys
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from reid.errors import InputError, install_command, unknown_name
from reid.io.checkpoint import load_state_dict
from reid.model.backbones.efficientnet_names import from_efficientnet_pytorch
from reid.model.backbones.input_size import check_image_size

PREFIX = "timm:"
OWN_POOLING = "own"  # in MODEL.POOLING.NAME: what the network itself does after its feature maps


class TimmTrunk(nn.Module):
    """A network of timm up to its feature maps: (B, 3, H, W) float32 -> (B, out_channels, h, w).

    The maps are those of timm's `forward_features`; the patch tokens of a transformer become a map, and its class token
    and registers are left out. With `pooled`, the network pools by itself (a ViT takes its class token) and applies all
    layers before its classifier: (B, out_channels, 1, 1). Whatever is not needed for this is removed, so that no layer
    stays untrained.

    Args:
        network: Network of timm without a classifier.
        name: Its name in error messages.
        image_size: Height and width of the images.
        fixed: Whether it accepts images of this size only; always true of tokens.
        pooled: Whether the network pools.

    Raises:
        InputError: If it cannot process such images or computes no feature maps.

    Attributes:
        out_channels: Channels of the maps.
        input_size: Height and width of the only images it accepts, or None.
        unused: Names of timm's tensors that were removed.
    """

    def __init__(
        self, network: nn.Module, name: str, *, image_size: tuple[int, int], fixed: bool = False, pooled: bool = False
    ) -> None:
        super().__init__()
        self.network, self.name, self.pooled = network, name, pooled
        features = _try(network, image_size, name)
        self.channels_last, self.grid, self.prefix_tokens = False, None, 0
        self.unused: tuple[str, ...] = ()
        if not pooled:
            self.channels_last, self.grid, self.prefix_tokens = _layout(network, features, image_size, name)
            self.unused = _remove_untrained(network, features)
        self.input_size = image_size if fixed or self.grid else None
        with torch.no_grad():
            self.out_channels = self._finish(features).shape[1]
        network.train()

    def forward(self, images: Tensor) -> Tensor:
        """Compute the feature maps.

        Args:
            images: (B, 3, H, W) float32, normalized.

        Returns:
            (B, out_channels, h, w).

        Raises:
            InputError: If the network is built for images of another size.
        """
        if self.input_size is not None:
            check_image_size(images, self.input_size, self.name)
        return self._finish(self.network.forward_features(images))  # type: ignore[operator]

    def _finish(self, features: Tensor) -> Tensor:
        if self.pooled:
            return self.network.forward_head(features, pre_logits=True).flatten(1)[:, :, None, None]  # type: ignore[operator]
        if self.grid is not None:
            return features[:, self.prefix_tokens :].transpose(1, 2).unflatten(2, self.grid)
        return features.permute(0, 3, 1, 2) if self.channels_last else features


def timm_trunk(
    name: str,
    *,
    weights: Mapping[str, Tensor] | None = None,
    image_size: tuple[int, int],
    pooled: bool = False,
    source: str = "the given weights",
) -> TimmTrunk:
    """Build the backbone.

    Args:
        name: `timm:NAME`, where NAME may end in the tag of its pretrained weights (`resnet18.a1_in1k`).
        weights: State dict of the whole network of timm, or of the program that it was ported from where timm reads
            that too; position embeddings are resized to the image size. None to start from scratch.
        image_size: Height and width of the images. A transformer is built for this size.
        pooled: Let the network pool, see `TimmTrunk`.
        source: Name of the weights in error messages.

    Returns:
        Backbone with the given weights or new ones.

    Raises:
        InputError: If timm is missing or does not know the name, the network cannot process such images, or the weights
            do not fit.
    """
    timm, architecture = _find(name)
    fixed = bool(getattr(timm.get_pretrained_cfg(architecture), "fixed_input_size", False))
    options: dict[str, Any] = {"img_size": image_size} if fixed else {}
    try:
        network = timm.create_model(architecture, num_classes=0, **options)
    except Exception as error:  # each network of timm checks its arguments in a way of its own
        raise InputError(f"{name} cannot be built for images of {_size(image_size)}: {_reason(error)}") from None
    trunk = TimmTrunk(network, name, image_size=image_size, fixed=fixed, pooled=pooled)
    if weights is not None:
        _load(trunk, weights, source)
    return trunk


def download(name: str) -> dict[str, Tensor]:
    """Let timm download the weights of a network; those it finds in its cache are not downloaded again.

    Args:
        name: `timm:NAME`.

    Returns:
        State dict of the whole network.

    Raises:
        InputError: If timm is missing, does not know the name, or has no weights for it, or if the download fails.
    """
    timm, architecture = _find(name)
    try:
        return dict(timm.create_model(architecture, pretrained=True).state_dict())
    except Exception as error:  # of timm, the Hugging Face Hub, the network and the file system
        raise InputError(
            f"timm cannot provide the pretrained weights of {name} ({_reason(error)}); give the path of a file, or "
            "'none'"
        ) from None


def pretrained_normalization(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Look up how images were normalized for the weights that timm provides.

    Args:
        name: `timm:NAME`.

    Returns:
        Mean and std per channel, of pixels in [0, 1]; None if timm does not say.

    Raises:
        InputError: If timm is missing or does not know the name.
    """
    timm, architecture = _find(name)
    found = timm.get_pretrained_cfg(architecture)
    return None if found is None else (tuple(found.mean), tuple(found.std))


def installed_version() -> str:
    """Look up the version of timm.

    Returns:
        Such as "1.0.31".

    Raises:
        InputError: If timm is missing.
    """
    return str(_import("this network").__version__)


def _import(name: str) -> Any:
    try:
        import timm  # takes a second
    except ImportError as error:
        raise InputError(f"{name} needs the library timm ({error}): {install_command('timm')}") from None
    return timm


def _find(name: str) -> tuple[Any, str]:
    """The library, and the name of the network there."""
    timm, architecture = _import(name), name.removeprefix(PREFIX)
    bare, _, tag = architecture.partition(".")
    if not timm.is_model(bare):
        near = difflib.get_close_matches(bare, timm.list_models(), n=3, cutoff=0.5)
        guess = f"; did you mean {' or '.join(PREFIX + one for one in near)}?" if near else ""
        raise InputError(f"timm {timm.__version__} has no network {bare!r}{guess} (timm.list_models() lists all)")
    tags = [known.partition(".")[2] for known in timm.list_models(bare, pretrained=True)]
    if tag and tag not in tags:
        raise unknown_name(f"tag of timm's pretrained {bare}", tag, tags)
    return timm, architecture


def _try(network: nn.Module, image_size: tuple[int, int], name: str) -> Tensor:
    """The features of an empty image, with their graph."""
    try:
        with torch.enable_grad():
            features = network.eval().forward_features(torch.zeros(1, 3, *image_size))  # type: ignore[operator]
    except Exception as error:  # each network of timm fails in a way of its own
        raise InputError(
            f"{name} cannot process images of {_size(image_size)} ({_reason(error)}); set INPUT.SIZE to a larger one, "
            "or to multiples of 32"
        ) from None
    if not isinstance(features, Tensor):
        raise InputError(f"{name} does not compute a single feature map; use another network of timm")
    return features


def _layout(
    network: nn.Module, features: Tensor, image_size: tuple[int, int], name: str
) -> tuple[bool, tuple[int, int] | None, int]:
    """Whether channels are last; for tokens, height and width of their map and the number of tokens before it."""
    channels: Any = network.num_features
    if features.ndim == 4:
        return features.shape[1] != channels and features.shape[3] == channels, None, 0
    prefix = int(getattr(network, "num_prefix_tokens", 0))
    patches = features.shape[1] - prefix if features.ndim == 3 else 0
    patch = math.isqrt(math.prod(image_size) // patches) if patches > 0 else 0
    grid = (image_size[0] // patch, image_size[1] // patch) if patch else (0, 0)
    if not patch or math.prod(grid) != patches:
        raise InputError(
            f"{name} computes features of shape {tuple(features.shape[1:])}, which are no map; set MODEL.POOLING.NAME "
            f"{OWN_POOLING} to let it pool them"
        )
    if any(side % patch for side in image_size):
        raise InputError(
            f"{name} takes images whose sides are multiples of {patch}, not {_size(image_size)}; set INPUT.SIZE"
        )
    return False, grid, prefix


def _remove_untrained(network: nn.Module, features: Tensor) -> tuple[str, ...]:
    """Remove the layers that the features do not depend on, such as the head; return the names of their tensors."""
    before = tuple(network.state_dict())
    parameters = list(network.parameters())
    gradients = torch.autograd.grad(features.float().sum(), parameters, allow_unused=True)
    used = {id(parameter) for parameter, gradient in zip(parameters, gradients, strict=True) if gradient is not None}
    for name, child in list(network.named_children()):
        if not any(id(parameter) in used for parameter in child.parameters()) and any(True for _ in child.parameters()):
            setattr(network, name, nn.Identity())
    after = network.state_dict()
    return tuple(name for name in before if name not in after)


def _load(trunk: TimmTrunk, weights: Mapping[str, Tensor], source: str) -> None:
    network = trunk.network
    adapted = from_efficientnet_pytorch(dict(weights), network.state_dict(), network=trunk.name, source=source)
    # timm's own conversion of the files of authors, which also resizes position embeddings.
    convert = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        try:
            adapted = dict(convert(adapted, network))
        except Exception as error:  # files of anything
            raise InputError(f"{source}: not the weights of {trunk.name}: {_reason(error)}") from None
    config: Any = network.pretrained_cfg
    heads = config.get("classifier") or ()
    prefixes = tuple(f"{head}." for head in ((heads,) if isinstance(heads, str) else heads))
    unused = [*trunk.unused, *(name for name in adapted if name.startswith(prefixes))]
    load_state_dict(network, adapted, network=trunk.name, source=source, unused=unused)


def _size(image_size: tuple[int, int]) -> str:
    return f"{image_size[0]} x {image_size[1]}"


def _reason(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
