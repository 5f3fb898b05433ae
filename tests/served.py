"""A small index of synthetic people, a random network that distinguishes them by color, and a server in a thread."""

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
from PIL import Image
from untrained import save_untrained

from reid import Embedder
from reid.config.loading import parse_config
from reid.inference.calibration import Calibration
from reid.inference.calibration.record import Curve, Threshold
from reid.search import gallery

SETTINGS = ("MODEL.BACKBONE", "small_convolution", "MODEL.WEIGHTS", "none", "INPUT.SIZE", "[128, 64]")
PATTERN = gallery.PATTERNS["market1501"]
COLORS = ((200, 30, 30), (30, 200, 30), (30, 30, 200), (210, 210, 40))


@dataclass(frozen=True)
class SampleIndex:
    """An index with its model: a checkpoint, the folder of crops and the folder of the index."""

    embedder: Embedder
    weights: Path
    crops: Path
    index: Path


def person(identity: int, seed: int, size: tuple[int, int] = (64, 128)) -> Image.Image:
    """Generate a colored figure with some noise; images of one identity are similar."""
    width, height = size
    pixels = np.full((height, width, 3), 128.0)
    pixels[height // 8 :, width // 4 : -width // 4] = COLORS[identity % len(COLORS)]
    pixels += np.random.default_rng(100 * identity + seed).normal(0, 12, pixels.shape)
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def encode_image(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    """Encode an image as a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def build_sample_index(folder: Path, *, identities: int = 4, cameras: int = 3) -> SampleIndex:
    """Index one image per identity (1, 2, ...) and camera (1, 2, ...), taken at the time 100 * camera + identity."""
    crops = folder / "crops"
    crops.mkdir(parents=True)
    for identity in range(identities):
        for camera in range(1, cameras + 1):
            name = f"{identity + 1:04d}_c{camera}s1_{100 * camera + identity + 1:06d}_00.png"
            person(identity, camera).save(crops / name)
    weights = save_untrained(folder / "model.pth", parse_config("", SETTINGS), classes=5)
    embedder = Embedder.load(weights, device="cpu")
    sample = SampleIndex(embedder, weights, crops, folder / "index")
    reindex(sample)
    return sample


def reindex(sample: SampleIndex, *, compact: bool = False) -> None:
    """Update the index as tools/index.py does."""
    embedder = sample.embedder
    metadata = {"root": str(sample.crops), "weights": str(sample.weights), "feature": embedder.feature, "flip": False}
    index = (
        gallery.Gallery.open(sample.index)
        if gallery.is_index(sample.index)
        else gallery.Gallery.create(sample.index, model_id=embedder.model_id, dim=embedder.dim, metadata=metadata)
    )
    with index:
        gallery.update_index(index, gallery.list_crops(sample.crops, PATTERN), embedder.embed, progress=False)
        if compact:
            index.compact()


def calibrated(embedder: Embedder) -> Embedder:
    """Return a model with a calibration whose probability is 1/2 at the distance 0.5."""
    threshold = Threshold(0.01, 0.25, 0.2, 0.3, 0.9, 0.8, 0.95)
    curve = Curve("logistic", (8.0, -4.0), 0.5)
    known = Calibration(embedder.model_id, "synthetic people", 10, 90, 4, (threshold,), (), (), curve)
    return dataclasses.replace(embedder, calibration=known)


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve an app from a thread of this process; yields its URL."""
    from reid.search.serve.server import bind, make_server, page_url

    with bind("127.0.0.1", 0) as listener:
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        try:
            yield page_url(listener)
        finally:
            server.should_exit = True
            thread.join(10)
            assert not thread.is_alive()


def talk(port: int, message: bytes, *, wait: float = 5.0) -> bytes:
    """Send raw bytes and return the reply until the server closes the connection or is silent for `wait` seconds."""
    with socket.create_connection(("127.0.0.1", port), timeout=wait) as connection:
        connection.sendall(message)
        reply = b""
        with contextlib.suppress(OSError):
            while chunk := connection.recv(65536):
                reply += chunk
        return reply
