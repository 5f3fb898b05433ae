"""Embeddings of images of persons with a trained model."""

from __future__ import annotations

import difflib
import os
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from yacs.config import CfgNode

from reid.config import build
from reid.data.loading.user_images import ImageInput, ImageList, normalized_batches, tensor_batches
from reid.errors import InputError, unknown_name
from reid.evaluation.features import FEATURES
from reid.inference.calibration import Calibration
from reid.inference.conversion import load_any
from reid.inference.engines.engine import Engine, check_engine
from reid.inference.export.sample_images import synthetic_crops
from reid.inference.identity import compute_model_id
from reid.io.digest import compute_file_digest
from reid.io.images import CorruptImage
from reid.model.folding import fold_norms
from reid.model.network import ReidNetwork
from reid.model.precision import autocast_dtype
from reid.progress import progress_bar
from reid.ranking import normalize_rows

DEMO = Path(__file__).parents[1] / "assets" / "demo.safetensors"
DEMO_DIGEST = "8ce1ab6c313637aa5edaf85070279c8af861ff5d4a25cd245e1fc26c5d08a35a"

# Forward batch size on a CPU, small enough for activations to stay in the cache.
_CPU_BATCH = 16
_PRECISIONS = ("float32", "bfloat16")
_FEW = 4
# Images that a server is expected to embed.
_MANY = 2**31


@dataclass(frozen=True, eq=False)
class Embedder:
    """A trained network that embeds images as unit vectors, to be compared by Euclidean distance in [0, 2].

    Example:
        >>> Embedder.load("model.pth").embed(["a.jpg", "b.jpg"])

    Attributes:
        network: The network in evaluation mode, with batch normalization folded into the convolutions.
        config: Configuration stored in the checkpoint.
        device: Device of the network.
        feature: The Eigenlayer's "input" or "output".
        flip: Whether the features of an image and its mirror image are averaged.
        dim: D of the embeddings.
        model_id: Hexadecimal digest of everything that an embedding depends on; only embeddings with the same id may be
            compared.
        engine: What computes the features: PyTorch, or a faster engine that agrees with it.
        calibration: Thresholds and match probabilities, if the checkpoint has them for this `model_id`.
        origin: For a network of another codebase: "family", "architecture" and the "differences" of its conversion.
        precision: Precision of the backbone, "float32" or "bfloat16".
    """

    network: ReidNetwork
    config: CfgNode
    device: torch.device
    feature: str
    flip: bool
    dim: int
    model_id: str
    engine: Engine
    calibration: Calibration | None = None
    origin: dict[str, Any] | None = None
    precision: str = "float32"

    def __repr__(self) -> str:
        """Describe the model in two lines."""
        height, width = self.size
        network = f"{self.origin['architecture']} of {self.origin['family']}" if self.origin else self._architecture
        options = [self.precision] if self.precision != "float32" else []
        options += ["flip"] * self.flip + ["calibrated"] * (self.calibration is not None)
        settings = ", ".join([f"feature {self.feature!r}", *options, str(self.device)])
        return (
            f"Embedder({network}, RGB images of {height} x {width} -> {self.dim} values of unit length,\n"
            f"         {settings}, model_id {self.model_id[:12]}...)"
        )

    @property
    def _architecture(self) -> str:
        model = self.config.MODEL
        return f"{model.BACKBONE}, {model.POOLING.NAME} pooling"

    @classmethod
    def load(
        cls,
        file: str | Path,
        *,
        device: str = "auto",
        feature: str | None = None,
        flip: bool = False,
        engine: str = "auto",
        precision: str = "float32",
    ) -> Embedder:
        """Load a model; no code in the file is executed.

        Args:
            file: A checkpoint of this project (.pth or .safetensors) or of another supported codebase, or "demo" for
                the model that comes with the package.
            device: "auto" (CUDA if available), "cpu", "cuda" or "cuda:N".
            feature: "input" or "output" of the Eigenlayer; None for the checkpoint's TEST.FEATURE.
            flip: Average the features of an image and its mirror image.
            engine: "torch", or on a CPU "onnxruntime" or "openvino", which agree with PyTorch to 1e-5 of the largest
                feature; "auto" for the fastest of those that are installed, if it saves more time on the images to
                embed than its preparation takes.
            precision: "float32", or "bfloat16", in which hardware with instructions for it computes the backbone
                faster, with PyTorch. It moves embeddings by about 0.01, so the `model_id` is another.

        Returns:
            Model in evaluation mode on the device.

        Raises:
            InputError: If the file is missing, corrupt or of an unknown family, or an option is unknown or impossible.
        """
        _check_options(feature, engine, precision)
        path = checkpoint_path(file)
        content = load_any(path)
        network, config = build.network_from_checkpoint(content, source=str(path))
        torch_device = build.device(build.evaluation_config(config, None, ["MODEL.DEVICE", device]))
        feature = feature or config.TEST.FEATURE
        width = {"input": network.eigenlayer.in_features, "output": network.eigenlayer.out_features}
        dtype = autocast_dtype(precision, torch_device)
        check_engine(engine, torch_device, dtype)
        model_id = compute_model_id(network, config, feature=feature, flip=flip, precision=precision)
        plain = model_id if (feature, flip) == ("input", False) else compute_model_id(network, config)
        calibration = None if (stored := content.get("calibration")) is None else Calibration.from_plain(stored)
        # Folding happens after the digest: it halves the time and does not change what is computed.
        network.backbone = fold_norms(network.backbone)  # type: ignore[assignment]
        network = network.to(torch_device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
        on_cpu = torch_device.type == "cpu"
        engine = engine if on_cpu and dtype is None else "torch"
        return cls(
            network=network,
            config=config,
            device=torch_device,
            feature=feature,
            flip=flip,
            dim=width[feature],
            model_id=model_id,
            calibration=calibration if calibration and calibration.model_id == model_id else None,
            origin=content.get("origin"),
            engine=Engine(network, engine, model_id=plain, part=_CPU_BATCH if on_cpu else None, dtype=dtype),
            precision=precision,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width to which images are resized."""
        height, width = build.preprocessing(self.config)["size"]
        return height, width

    def embed(
        self,
        images: Iterable[ImageInput] | Tensor,
        *,
        batch_size: int = 64,
        progress: bool = False,
        broken: dict[int, str] | None = None,
    ) -> np.ndarray:
        """Embed images.

        Images are decoded and resized as in training and evaluation: the EXIF orientation is not applied, transparency
        is dropped, and of 16 bits the upper 8 are used. Only a few batches are in memory at a time.

        Args:
            images: Paths, Pillow images, (H, W, 3) uint8 RGB arrays and (3, H, W) uint8 tensors, mixed and of any
                sizes; or one (N, 3, H, W) tensor, uint8 or floating in [0, 1].
            batch_size: Images decoded together.
            progress: Show a progress bar.
            broken: A dict to which the index and the error message of each unreadable image are added. If given,
                unreadable images become rows of zeros instead of raising an error.

        Returns:
            (N, dim) float32 rows of unit length in the order of the images. Two rows are compared by their Euclidean
            distance d; `reid.ranking.top_k` returns d², and its `Neighbors.euclidean` d.

        Raises:
            InputError: If an image cannot be read (the message gives its index, from 0, and its path), or a feature is
                not finite.
        """
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} must be at least 1")
        sequence = _as_sequence(images)
        count = len(sequence)
        result = np.zeros((count, self.dim), dtype=np.float32)
        done, zeros = 0, 0
        self.engine.expect(count * (1 + self.flip))
        with progress_bar("embedding", count, unit="images", shown=progress) as bar:
            for rows, unreadable in self._rows(sequence, batch_size):
                for index, error in unreadable.items():
                    if broken is None:
                        raise error
                    broken[done + index] = str(error)
                rows[list(unreadable)] = 0
                _check_finite(rows, done, count)
                nonzero = np.flatnonzero(rows.any(axis=1))
                result[done + nonzero] = normalize_rows(rows[nonzero])
                zeros += len(rows) - len(nonzero) - len(unreadable)
                done += len(rows)
                bar.advance(len(rows))
        if zeros:
            warnings.warn(f"{zeros} of {count} feature rows are zero and have no direction", stacklevel=2)
        return result

    def prepare(self) -> None:
        """Choose the engine now, for many images to come, such as those of a server."""
        self.engine.expect(_MANY)
        self.embed(synthetic_crops(self.size))

    def _batches(
        self, images: Sequence[ImageInput] | Tensor, batch_size: int
    ) -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
        options: dict[str, Any] = build.preprocessing(self.config)
        size, resize = options.pop("size"), options.pop("resize")
        options |= {"batch_size": batch_size, "device": self.device}
        if isinstance(images, Tensor):
            for batch in tensor_batches(images, size=size, resize=resize, **options):
                yield batch, {}
        else:
            few = {"threads": 1} if len(images) < _FEW else {}  # for which starting threads takes longer
            yield from normalized_batches(ImageList(images, size, resize, **few), **options)

    def _rows(
        self, images: Sequence[ImageInput] | Tensor, batch_size: int
    ) -> Iterator[tuple[np.ndarray, dict[int, CorruptImage]]]:
        """(B, dim) float32 rows, not normalized; with the flip test, features are averaged before normalization."""
        errors: deque[dict[int, CorruptImage]] = deque()

        def views() -> Iterator[Tensor]:
            for batch, unreadable in self._batches(images, batch_size):
                errors.append(unreadable)
                yield batch
                if self.flip:
                    yield batch.flip(-1)

        features = (getattr(one, self.feature) for one in self.engine.embed_batches(views()))
        for values in features:
            if self.flip:
                values = (values + next(features)) / 2
            yield values.float().cpu().numpy(), errors.popleft()


def _check_options(feature: str | None, engine: str, precision: str) -> None:
    if feature is not None and feature not in FEATURES:
        raise unknown_name("feature", feature, FEATURES)
    if precision not in _PRECISIONS:
        raise unknown_name("precision", precision, _PRECISIONS)
    check_engine(engine)


def checkpoint_path(file: str | Path) -> Path:
    """Return the path of a checkpoint.

    Args:
        file: Path, or "demo" for the model that comes with the package.

    Returns:
        The path, which need not exist unless it is that of the demo model.

    Raises:
        InputError: If the demo model does not exist or is not the one that came with the package, or for a name that
            is nearly "demo".
    """
    if str(file) != "demo":
        path = Path(file).expanduser()
        if not path.exists() and difflib.get_close_matches(path.name, ["demo"]):
            raise InputError(f"{path}: no such file; did you mean demo, the model that comes with the package?")
        return path
    if not DEMO.is_file():
        raise InputError(f"the demo model {DEMO} does not exist: create it with `make model`, or give a checkpoint")
    digest = compute_file_digest(DEMO)
    if digest != DEMO_DIGEST:
        raise InputError(
            f"the demo model {DEMO} was changed: restore it; if `make model` wrote it, set DEMO_DIGEST in "
            f"reid/inference/embedder.py to {digest}"
        )
    return DEMO


def _as_sequence(images: Iterable[ImageInput] | Tensor) -> Sequence[ImageInput] | Tensor:
    """Make a sequence of images; raise InputError for a single image."""
    if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        raise InputError(f"expected several images, not one {type(images).__name__}; give a list: [image]")
    if isinstance(images, np.ndarray):
        if images.ndim != 4 and images.size:
            raise InputError(
                f"an array of images must be (N, H, W, 3) uint8 RGB, not {images.dtype} {images.shape}; "
                "put a single image into a list"
            )
        return images  # type: ignore[return-value]
    return images if isinstance(images, Tensor | Sequence) else list(images)


def _check_finite(rows: np.ndarray, start: int, count: int) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise InputError(
            f"image {start + bad[0]} of {count}: its feature contains NaN or infinity; are the model's weights valid?"
        )
