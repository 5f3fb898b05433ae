"""A small index of drawn people, a random network that tells them apart by color, and a server in a thread."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from reid import Embedder
from reid.config import build
from reid.config.loading import parse_config
from reid.inference.calibration import Calibration
from reid.inference.calibration.record import Curve, Threshold
from reid.io.checkpoint import save_checkpoint
from reid.search import gallery

SETTINGS = ("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]")
PATTERN = gallery.PATTERNS["market1501"]
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (210, 210, 40))


@dataclass(frozen=True)
class Drawn:
    """weights: a checkpoint. crops: the folder that was indexed; index: what was made of it."""

    embedder: Embedder
    weights: Path
    crops: Path
    index: Path


def person(identity: int, seed: int, size: tuple[int, int] = (64, 128)) -> Image.Image:
    """A colored figure with some noise; those of one identity are alike."""
    width, height = size
    pixels = np.full((height, width, 3), 128.0)
    pixels[height // 8 :, width // 4 : -width // 4] = COLORS[identity % len(COLORS)]
    pixels += np.random.default_rng(100 * identity + seed).normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encoded(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def draw_index(folder: Path, *, identities: int = 4, cameras: int = 3) -> Drawn:
    """`identities` people, 1.., before each of `cameras` cameras, 1.., at the times 100 * camera + identity."""
    crops = folder / "crops"
    crops.mkdir(parents=True)
    for identity in range(identities):
        for camera in range(1, cameras + 1):
            name = f"{identity + 1:04d}_c{camera}s1_{100 * camera + identity + 1:06d}_00.png"
            person(identity, camera).save(crops / name)
    torch.manual_seed(0)
    config = parse_config("", SETTINGS)
    network = build.network(config, num_classes=5)
    weights = folder / "model.pth"
    save_checkpoint(weights, {"model": network.state_dict(), "config": config.dump(), "num_classes": 5})
    embedder = Embedder.load(weights, device="cpu")
    drawn = Drawn(embedder, weights, crops, folder / "index")
    reindex(drawn)
    return drawn


def reindex(drawn: Drawn, *, compact: bool = False) -> None:
    """What tools/index.py does."""
    embedder = drawn.embedder
    notes = {"root": str(drawn.crops), "weights": str(drawn.weights), "feature": embedder.feature, "flip": False}
    with gallery.Gallery.open_or_create(
        drawn.index, model_id=embedder.model_id, dim=embedder.dim, shard=None, notes=notes
    ) as index:
        gallery.update(index, gallery.read_names(drawn.crops, PATTERN), embedder.embed, progress=False)
        if compact:
            index.compact()


def calibrated(embedder: Embedder) -> Embedder:
    """With a probability of 1/2 at the distance 0.5."""
    threshold = Threshold(0.01, 0.25, 0.2, 0.3, 0.9, 0.8, 0.95)
    curve = Curve("logistic", (8.0, -4.0), 0.5)
    known = Calibration(embedder.model_id, "drawn people", 10, 90, 4, (threshold,), (), (), curve)
    return dataclasses.replace(embedder, calibration=known)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """The address of the app, served from a thread of this process."""
    from reid.search.serve.server import address, bind, make_server

    with bind("127.0.0.1", 0) as listening:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        try:
            yield address(listening)
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def talk(port: int, message: bytes, *, wait: float = 5.0) -> bytes:
    """All that a server answers to these bytes until it closes, or is silent for `wait` seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as line:
        line.sendall(message)
        found = b""
        with contextlib.suppress(OSError):
            while piece := line.recv(65536):
                found += piece
        return found
