"""`tools/attend.py` on networks that have never been trained: what counts is which places are drawn how."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from called import Tool
from html_page import Page
from PIL import Image
from untrained import save_untrained

from reid.config.loading import parse_config
from reid.inference.conversion import load_network
from reid.report.attention import draw_assignments, draw_attention

pytest.importorskip("jinja2")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    path = tmp_path / "a photo.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (128, 64, 3), dtype=np.uint8)).save(path)
    return path


def checkpoint(path: Path, pooling: str, *pairs: str) -> Path:
    text = "MODEL: {BACKBONE: small_convolution, WEIGHTS: none}\nINPUT: {SIZE: [128, 64]}"
    config = parse_config(text, ["MODEL.POOLING.NAME", pooling, "MODEL.POOLING.INIT", "random", *pairs])
    return save_untrained(path, config)


@pytest.mark.parametrize(
    ("pooling", "pairs", "names"),
    [
        ("weighted_gem", (), ["attention"]),
        ("crow", (), ["attention"]),
        ("regional_weighted_gem", ("MODEL.POOLING.REGIONS", "2"), ["region1", "region2"]),
        ("netvlad", ("MODEL.POOLING.CLUSTERS", "4"), ["clusters"]),
        ("ghost_vlad", ("MODEL.POOLING.CLUSTERS", "4", "MODEL.POOLING.GHOSTS", "2"), ["clusters"]),
    ],
)
def test_draws_what_the_pooling_computes(
    tool: Tool, tmp_path: Path, photo: Path, pooling: str, pairs: tuple[str, ...], names: list[str]
) -> None:
    weights = checkpoint(tmp_path / "a.pth", pooling, *pairs)
    output = tmp_path / "drawn"
    ended = tool("attend", "--weights", weights, "--output", output, photo)
    files = [output / f"a photo_{name}.png" for name in names]
    page = output / "attention.html"
    assert (ended.code, ended.out.splitlines()) == (0, [*map(str, files), f"wrote {page}"]), ended.err
    pictures = [attributes for tag, attributes in Page(page).tags if tag == "img" and attributes["alt"]]
    assert [picture["alt"].partition(" of ")[0] for picture in pictures] == ["image a photo.png", *names]
    model, config = load_network(weights)
    image = np.asarray(Image.open(photo))
    pixels = (image / 255 - np.array(config.INPUT.MEAN)) / np.array(config.INPUT.STD)
    with torch.no_grad():
        maps = model.backbone(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None])
        attention = model.pooling.attention(maps)[0].numpy()
    if names == ["clusters"]:
        expected = [draw_assignments(image, attention, ghosts=2 if pooling == "ghost_vlad" else 0)]
    else:
        expected = [draw_attention(image, part) for part in attention.reshape(len(names), *attention.shape[-2:])]
    for file, drawing in zip(files, expected, strict=True):
        # Pixels are normalized by another rounding: a weight may differ in its last bits, a color by one.
        difference = np.asarray(Image.open(file)).astype(int) - np.asarray(drawing).astype(int)
        assert np.abs(difference).max() <= 1


def test_a_pooling_without_weights_and_names_twice_are_told(tool: Tool, tmp_path: Path, photo: Path) -> None:
    weights = checkpoint(tmp_path / "a.pth", "average")
    ended = tool("attend", "--weights", weights, "--output", tmp_path / "drawn", photo)
    ended.fails("has no attention map to visualize; crow")
    tool("attend", "--weights", weights, photo, tmp_path / "other" / photo.name).fails("two images are named a photo")
    assert not (tmp_path / "drawn").exists()
