"""Learned and random augmentation policies, as torchvision has them, with random numbers of our own."""

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
    """A policy's choice of changes for each image: AutoAugment, RandAugment or TrivialAugment of torchvision.

    images: (B, 3, H, W) uint8. name: of `POLICIES`. numbers: (B,) float64 in [0, 1), from which alone the choices
    follow. The published defaults hold (AutoAugment's policy is that of ImageNet); what is moved in is black.
    """
    transform, generator = _transform(name), torch.Generator()
    changed = []
    for image, number in zip(images, numbers, strict=True):
        generator.manual_seed(int(number * 2**53))
        with _Drawing(generator):
            changed.append(transform(image))
    return torch.stack(changed) if changed else images


def _transform(name: str) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms import v2  # takes half a second to load, and most runs have no policy

    if name not in POLICIES:
        raise unknown_name("policy", name, POLICIES)
    return getattr(v2, POLICIES[name])()


class _Drawing(TorchFunctionMode):
    """Within, torch draws from this generator.

    torchvision's policies draw from torch's global generator. To seed that one would disturb the training step, whose
    dropout draws from it in another thread; a mode holds for its own thread alone.
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
