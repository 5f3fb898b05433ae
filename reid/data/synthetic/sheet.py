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
    """Three identities of size demo seen by several cameras, a row of others, a row of junk and distractors."""
    pictures = plan_images("demo", "market", seed)
    rows = [_spread([p for p in pictures if p.identity == identity]) for identity in _identities(pictures, 3)]
    rows.append(_spread([picture for picture in pictures if picture.part == PARTS["query"]]))
    aside = [_spread([p for p in pictures if p.identity == label and p.kind != "clutter"]) for label in (-1, 0)]
    clutter = next(picture for picture in pictures if picture.kind == "clutter")
    rows.append([*aside[0][::2], *aside[1][::2][:4], clutter])
    renderer = Renderer(seed)
    size = (COLUMNS * (WIDTH + GAP) - GAP, len(rows) * (HEIGHT + GAP) - GAP)
    sheet = Image.new("RGB", size, "white")
    for row, line in enumerate(rows):
        for column, picture in enumerate(line):
            image = Image.open(io.BytesIO(renderer.jpeg(picture)))
            sheet.paste(image, (column * (WIDTH + GAP), row * (HEIGHT + GAP)))
    return sheet.quantize(256)


def _identities(pictures: Sequence[ImageSpec], wanted: int) -> list[int]:
    """The first identities of the training part that most cameras see."""
    cameras: dict[int, set[int]] = {}
    for picture in pictures:
        if picture.part == PARTS["train"]:
            cameras.setdefault(picture.identity, set()).add(picture.camera)
    return sorted(cameras, key=lambda identity: (-len(cameras[identity]), identity))[:wanted]


def _spread(pictures: Sequence[ImageSpec]) -> list[ImageSpec]:
    """COLUMNS of them, evenly from the first to the last."""
    return [pictures[index * (len(pictures) - 1) // (COLUMNS - 1)] for index in range(COLUMNS)]
