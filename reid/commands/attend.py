"""Visualize a checkpoint's pooling: the attention of weighted pooling, the clusters of VLAD."""

from __future__ import annotations

import argparse

import numpy as np
import torch

from reid.data.images.decode import decode_image
from reid.data.images.normalization import normalize
from reid.errors import InputError
from reid.inference.conversion import load_network
from reid.report.attention import draw_assignments, draw_attention
from reid.report.attention_page import Attended, write_page
from reid.report.pages import check_available


def main(arguments: argparse.Namespace) -> None:
    """Run the command.

    Args:
        arguments: Those of its parser in `reid.commands.parsers`.
    """
    check_available(["jinja2"], what="the page")
    model, config = load_network(arguments.weights)
    height, width = config.INPUT.SIZE
    vlad, ghosts = config.MODEL.POOLING.NAME.endswith("vlad"), 0
    if config.MODEL.POOLING.NAME == "ghost_vlad":
        ghosts = config.MODEL.POOLING.GHOSTS
    names = [path.stem for path in arguments.image]
    duplicate = next((name for name in names if names.count(name) > 1), None)
    if duplicate:
        raise InputError(f"two images are named {duplicate}: their output files would overwrite each other")
    rows = []
    for path in arguments.image:
        image = decode_image(str(path), (height, width), config.INPUT.RESIZE)
        pixels = normalize(torch.tensor(image)[None], config.INPUT.MEAN, config.INPUT.STD)
        with torch.no_grad():
            weights = model.pooling.attention(model.backbone(pixels))[0].numpy()
        image = np.ascontiguousarray(image.transpose(1, 2, 0))
        maps = {"clusters" if vlad else "attention": weights}
        if weights.ndim == 3 and not vlad:
            maps = {f"region{number}": part for number, part in enumerate(weights, start=1)}
        drawings = {
            name: draw_assignments(image, part, ghosts=ghosts) if vlad else draw_attention(image, part)
            for name, part in maps.items()
        }
        rows.append(Attended(path, image, maps, drawings))
        arguments.output.mkdir(parents=True, exist_ok=True)
        for name, drawing in drawings.items():
            file = arguments.output / f"{path.stem}_{name}.png"
            drawing.save(file)
            print(file)
    title = f"{'Clusters' if vlad else 'Attention'} of {config.MODEL.POOLING.NAME} in {arguments.weights.name}"
    print(f"wrote {write_page(arguments.output / 'attention.html', rows, title=title, ghosts=ghosts)}")
