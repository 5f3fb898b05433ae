"""How quickly each engine embeds on this machine, measured once and remembered."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from reid.errors import InputError
from reid.inference.engines.export import engine_folder
from reid.io.atomic import make_folder, write_json
from reid.model.network import ReidNetwork
from reid.threads import thread_count
from reid.training.provenance import processor

logger = logging.getLogger(__name__)

_ROUNDS = 3


@dataclass(frozen=True)
class Speed:
    """Measured times of one network, image size and machine.

    Attributes:
        seconds: Seconds per image by engine that works, "torch" among them.
        preparation: Seconds that it takes to export and load the network.
    """

    seconds: dict[str, float]
    preparation: float

    @property
    def ranked(self) -> list[str]:
        """The engines, the one with the fewest seconds per image first."""
        return sorted(self.seconds, key=lambda engine: self.seconds[engine])

    def pays(self, images: int, *, exported: bool) -> bool:
        """Whether the fastest engine saves more than its preparation takes.

        Args:
            images: Number of images to embed.
            exported: Whether the export is there already.

        Returns:
            False also if PyTorch is the fastest.
        """
        saved = images * (self.seconds["torch"] - self.seconds[self.ranked[0]])
        return saved > (0 if exported else self.preparation)


def speed_key(network: ReidNetwork, size: tuple[int, int], versions: Mapping[str, str]) -> str:
    """Identify what a speed depends on: layers and image size, processor and threads, versions.

    Args:
        network: The network; its weights do not matter.
        size: Height and width of its images.
        versions: Versions of the engines by name.

    Returns:
        Hexadecimal digest.
    """
    layers = [str(part) for part in (network.backbone, network.pooling, network.neck, network.bnneck)]
    shapes = [tuple(tensor.shape) for tensor in network.parameters()]
    machine = (processor(), thread_count(), torch.__version__, dict(versions))
    return hashlib.sha256(repr((layers, shapes, size, machine)).encode()).hexdigest()[:32]


def remembered_speed(key: str) -> Speed | None:
    """Read the speed measured by an earlier process.

    Args:
        key: Value returned by `speed_key`.

    Returns:
        The speed, None if there is none or its file is damaged.
    """
    try:
        content = json.loads((engine_folder() / f"speed_{key}.json").read_text(encoding="utf-8"))
        seconds = {str(name): float(value) for name, value in content["seconds"].items()}
        return Speed(seconds, float(content["preparation"])) if "torch" in seconds else None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None


def remember_speed(key: str, speed: Speed) -> None:
    """Keep a speed for later processes, unless the disk is full or read-only.

    Args:
        key: Value returned by `speed_key`.
        speed: The measured speed.
    """
    with contextlib.suppress(OSError):
        make_folder(engine_folder())
        write_json(engine_folder() / f"speed_{key}.json", asdict(speed))


def describe_failure(engine: str, error: Exception) -> str:
    """Say in one line why an engine cannot be used.

    Args:
        engine: Its name.
        error: What it, or the comparison with PyTorch, has raised.

    Returns:
        Text without a period.
    """
    reason = str(error) if isinstance(error, InputError) else f"{engine} fails with {type(error).__name__}: {error}"
    return " ".join(reason.split())[:300]


def measure_seconds(engines: Mapping[str, Callable[[Tensor], object]], images: Tensor) -> dict[str, float]:
    """Time engines on the same images, alternating.

    Args:
        engines: Functions that embed a batch, "torch" among them.
        images: The batch.

    Returns:
        Seconds per image by engine, the least of three rounds after a first one that is not counted. An engine that
        fails is left out with a warning, unless it is PyTorch, whose errors are raised.
    """
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for _ in range(_ROUNDS + 1):
        for name in list(seconds):
            start = time.perf_counter()
            try:
                engines[name](images)
            except Exception as error:
                if name == "torch":
                    raise
                logger.warning("%s; it is not used", describe_failure(name, error))
                del seconds[name]
                continue
            seconds[name].append((time.perf_counter() - start) / len(images))
    return {name: min(taken[1:]) for name, taken in seconds.items()}
