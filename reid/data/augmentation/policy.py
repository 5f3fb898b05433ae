"""Learned and random augmentation policies of torchvision, with one random number per image."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from reid.errors import unknown_name

POLICIES = {"autoaugment": "AutoAugment", "randaugment": "RandAugment", "trivialaugment": "TrivialAugmentWide"}


def apply_policy(images: Tensor, name: str, numbers: np.ndarray) -> Tensor:
    """Apply AutoAugment (its ImageNet policy), RandAugment or TrivialAugment with torchvision's defaults.

    Args:
        images: (B, 3, H, W) uint8.
        name: One of `POLICIES`.
        numbers: (B,) float64 in [0, 1), which determine what is done to each image.

    Returns:
        (B, 3, H, W) uint8; pixels moved in from outside are black.

    Raises:
        InputError: If the name is unknown.
    """
    transform, generator = _transform(name), torch.Generator()
    changed = []
    for image, number in zip(images, numbers, strict=True):
        generator.manual_seed(int(number * 2**53))
        with _UseGenerator(generator):
            changed.append(transform(image))
    return torch.stack(changed) if changed else images


def _transform(name: str) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # takes half a second to import, and most runs have no policy

    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return getattr(v2, POLICIES[name])()


class _UseGenerator(TorchFunctionMode):
    """Makes torch sample from the given generator.

    torchvision's policies use torch's global generator. Seeding that one would disturb the training step, whose dropout
    uses it in another thread; a function mode applies to its own thread only.
    """

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.generator = generator

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = dict(kwargs or {})
        if func in (torch.rand, torch.randint, torch.randperm):
            kwargs["generator"] = self.generator
        return func(*args, **kwargs)
