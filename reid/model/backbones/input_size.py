"""The check of backbones that take images of one size only."""

from __future__ import annotations

from torch import Tensor

from reid.errors import InputError


def check_image_size(images: Tensor, size: tuple[int, int], backbone: str) -> None:
    """Check that images have the size the backbone was designed for.

    Args:
        images: (B, 3, H, W) float32.
        size: Expected height and width in pixels.
        backbone: Name of the backbone for the error message.

    Raises:
        InputError: If the images have a different size.
    """
    if tuple(images.shape[2:]) != size:
        raise InputError(
            f"{backbone} takes images of {size[0]} x {size[1]}, not {images.shape[2]} x {images.shape[3]}; "
            f"set INPUT.SIZE [{size[0]}, {size[1]}]"
        )
