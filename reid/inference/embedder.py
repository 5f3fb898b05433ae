"""A trained model and images of people in, embeddings out."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm
from yacs.config import CfgNode

from reid.config import build
from reid.data.images.decode import CorruptImage
from reid.data.loading.user_images import ImageInput, ImageList, normalized_batches, tensor_batches
from reid.errors import InputError, unknown_name
from reid.evaluation.features import FEATURES
from reid.inference.calibration import Calibration
from reid.inference.conversion import load_any
from reid.model.folding import fold_norms
from reid.model.network import ReidNetwork
from reid.ranking import normalize_rows

DEMO = Path(__file__).parents[1] / "assets" / "demo.safetensors"

# Images that go through a network together on a CPU: what a layer leaves stays in the cache.
_TOGETHER = 16


@dataclass(frozen=True, eq=False)
class Embedder:
    """`Embedder.load(FILE).embed(images)`: unit vectors whose Euclidean distance, 0 to 2, says how alike people look.

    feature: the Eigenlayer's "input" or "output". flip: whether the features of an image and its mirror image are
    averaged. dim: D of the vectors. model_id: a digest, in hex, of all that a vector depends on; vectors of one id may
    be compared. calibration: what distances of these vectors mean, where the checkpoint has one for this model_id.
    config: what the checkpoint carries.
    """

    network: ReidNetwork
    config: CfgNode
    device: torch.device
    feature: str
    flip: bool
    dim: int
    model_id: str
    calibration: Calibration | None = None

    @classmethod
    def load(
        cls, file: str | Path, *, device: str = "auto", feature: str | None = None, flip: bool = False
    ) -> Embedder:
        """The model of a checkpoint of ours (.pth or .safetensors), of another codebase's, or "demo", that in the box.

        device: "auto" (CUDA where there is one), "cpu", "cuda" or "cuda:N". feature: None is the checkpoint's own,
        TEST.FEATURE. No code in the file is executed. Raises InputError for a file that is missing, broken or of an
        unknown family.
        """
        if feature is not None and feature not in FEATURES:
            raise unknown_name("feature", feature, FEATURES)
        path = _path(file)
        content = load_any(path)
        network, config = build.network_from_checkpoint(content, source=str(path))
        where = build.device(build.evaluation_config(config, None, ["MODEL.DEVICE", device]))
        feature = feature or build.tested_feature(config)
        width = {"input": network.eigenlayer.in_features, "output": network.eigenlayer.out_features}
        model_id = _model_id(network, config, feature, flip)
        kept = content.get("calibration")
        calibration = None if kept is None else Calibration.from_plain(kept)
        # What was computed with is not what was trained: the same vectors in half the time.
        network.backbone = fold_norms(network.backbone)  # type: ignore[assignment]
        return cls(
            network=network.to(where, memory_format=torch.channels_last).eval(),  # type: ignore[call-overload]
            config=config,
            device=where,
            feature=feature,
            flip=flip,
            dim=width[feature],
            model_id=model_id,
            calibration=calibration if calibration and calibration.model_id == model_id else None,
        )

    @property
    def size(self) -> tuple[int, int]:
        """Height and width that images are resized to."""
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
        """(N, dim) float32 in the order of the images, rows of unit length.

        images: paths, Pillow images, (H, W, 3) uint8 RGB arrays and (3, H, W) uint8 tensors, mixed and of any sizes, or
        one (N, 3, H, W) tensor, uint8 or floating in [0, 1]. They are decoded and resized as in training and
        evaluation: a rotation that EXIF asks for is not made, transparency is left out, and of 16 bits the upper 8
        count. Of a list of any length a few batches are in memory beside the result.
        broken: an empty dict; where it is given, an image that cannot be read is no error, but a row of zeros, and its
        number and what is wrong with it are put here.
        Raises InputError for the first image that cannot be read, naming its place, from 0, and its path.
        """
        if batch_size < 1:
            raise InputError(f"batch size {batch_size} must be at least 1")
        given = _sequence(images)
        result = np.zeros((len(given), self.dim), dtype=np.float32)
        done, zeros = 0, 0
        with tqdm(total=len(given), desc="embedding", unit="img", disable=None if progress else True) as bar:
            for batch, wrong in self._batches(given, batch_size):
                for place, error in wrong.items():
                    if broken is None:
                        raise error
                    broken[done + place] = str(error)
                rows = self._embed(batch)
                rows[list(wrong)] = 0
                _check_finite(rows, done, len(given))
                directed = np.flatnonzero(rows.any(axis=1))
                result[done + directed] = normalize_rows(rows[directed])
                zeros += len(rows) - len(directed) - len(wrong)
                done += len(rows)
                bar.update(len(rows))
        if zeros:
            warnings.warn(f"{zeros} of {len(given)} feature rows are zero and have no direction", stacklevel=2)
        return result

    def _batches(
        self, images: Sequence[ImageInput] | Tensor, batch_size: int
    ) -> Iterator[tuple[Tensor, dict[int, CorruptImage]]]:
        how: dict[str, Any] = build.preprocessing(self.config)
        size, resize = how.pop("size"), how.pop("resize")
        how |= {"batch_size": batch_size, "device": self.device}
        if isinstance(images, Tensor):
            for batch in tensor_batches(images, size=size, resize=resize, **how):
                yield batch, {}
        else:
            yield from normalized_batches(ImageList(images, size, resize), **how)

    @torch.inference_mode()
    def _embed(self, batch: Tensor) -> np.ndarray:
        """(B, dim) float32, not normalized. The flip test is the mean before that, as in an evaluation."""
        rows = []
        for part in batch.split(_TOGETHER if self.device.type == "cpu" else max(1, len(batch))):
            values = getattr(self.network.embed(part), self.feature)
            if self.flip:
                values = (values + getattr(self.network.embed(part.flip(-1)), self.feature)) / 2
            rows.append(values.float().cpu().numpy())
        return np.concatenate(rows)


def _path(file: str | Path) -> Path:
    if file != "demo":
        return Path(file).expanduser()
    if not DEMO.is_file():
        raise InputError(f"the model in the box, {DEMO}, is not there: make it with `make model`, or give a checkpoint")
    return DEMO


def _sequence(images: Iterable[ImageInput] | Tensor) -> Sequence[ImageInput] | Tensor:
    """What has a length and places. Raises InputError for one image where several are meant."""
    if isinstance(images, str | os.PathLike) or not isinstance(images, Iterable):
        raise InputError(f"one {type(images).__name__} where several images are meant; give a list: [image]")
    if isinstance(images, np.ndarray):
        if images.ndim != 4 and images.size:
            raise InputError(
                f"an array of images is (N, H, W, 3) uint8, RGB, not {images.dtype} {images.shape}; "
                "one alone goes into a list"
            )
        return images  # type: ignore[return-value]
    return images if isinstance(images, Tensor | Sequence) else list(images)


def _check_finite(rows: np.ndarray, start: int, count: int) -> None:
    bad = np.flatnonzero(~np.isfinite(rows).all(axis=1))
    if len(bad):
        raise InputError(
            f"image {start + bad[0]} of {count}: its feature holds NaN or infinity; are the model's weights broken?"
        )


def _model_id(network: ReidNetwork, config: CfgNode, feature: str, flip: bool) -> str:
    """64 hex digits of what a vector depends on: structure, preprocessing, and every tensor but the classifier's."""
    what = {"input": build.preprocessing(config), "model": build.structure(config), "feature": feature, "flip": flip}
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode())
    for name, tensor in sorted(network.state_dict().items()):
        if name.startswith("classifier.") or name.endswith("num_batches_tracked"):
            continue
        values = tensor.detach().cpu().contiguous().numpy()
        digest.update(f"\0{name} {values.dtype} {values.shape}\0".encode())
        digest.update(values.data)
    return digest.hexdigest()
