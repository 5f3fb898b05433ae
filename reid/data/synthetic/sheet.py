"""A contact sheet of the synthetic dataset."""

from __future__ import annotations

import io
from collections.abc import Sequence

from PIL import Image

from reid.data.synthetic.layout import PARTS, ImageSpec, plan_images
from reid.data.synthetic.rendering import Renderer
from reid.data.synthetic.scene import HEIGHT, WIDTH

COLUMNS = 10
GAP = 2


def contact_sheet(seed: int) -> Image.Image:
    """Render three identities seen by several cameras, a row of others, and a row of junk and distractors.

    Args:
        seed: Seed of the dataset, which has the size "demo".

    Returns:
        The image, with 256 colors.
    """
    specs = plan_images("demo", "market", seed)
    rows = [_spread([p for p in specs if p.identity == identity]) for identity in _identities(specs, 3)]
    rows.append(_spread([spec for spec in specs if spec.part == PARTS["query"]]))
    aside = [_spread([p for p in specs if p.identity == label and p.kind != "clutter"]) for label in (-1, 0)]
    clutter = next(spec for spec in specs if spec.kind == "clutter")
    rows.append([*aside[0][::2], *aside[1][::2][:4], clutter])
    renderer = Renderer(seed)
    size = (COLUMNS * (WIDTH + GAP) - GAP, len(rows) * (HEIGHT + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for row, line in enumerate(rows):
        for column, spec in enumerate(line):
            image = Image.open(io.BytesIO(renderer.jpeg(spec)))
            sheet.paste(image, (column * (WIDTH + GAP), row * (HEIGHT + GAP)))
    return sheet.quantize(256)


def _identities(specs: Sequence[ImageSpec], count: int) -> list[int]:
    """Choose the training identities seen by the most cameras."""
    cameras: dict[int, set[int]] = {}
    for spec in specs:
        if spec.part == PARTS["train"]:
            cameras.setdefault(spec.identity, set()).add(spec.camera)
    return sorted(cameras, key=lambda identity: (-len(cameras[identity]), identity))[:count]


def _spread(specs: Sequence[ImageSpec]) -> list[ImageSpec]:
    """Choose COLUMNS images, evenly spaced from the first to the last."""
    return [specs[index * (len(specs) - 1) // (COLUMNS - 1)] for index in range(COLUMNS)]
