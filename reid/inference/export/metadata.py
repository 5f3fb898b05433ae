"""Metadata embedded in an exported file."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from reid import __version__
from reid.errors import InputError
from reid.inference.export.interface import TRACKER_SIZE, ExportInterface
from reid.records import IMAGENET_MEAN, IMAGENET_STD

UNKNOWN = "unknown"
_MAX_LENGTH = 1000  # characters of the user's license and data statements


@dataclass(frozen=True)
class ModelMetadata:
    """Description of an exported network.

    Attributes:
        interface: Inputs and outputs.
        dim: D of the embeddings.
        model_id: Digest of everything that an embedding depends on.
        correlation: S(W) of the Eigenlayer, in (0, 1].
        config: Training configuration as YAML, without paths.
        backbone: MODEL.BACKBONE.
        pooling: MODEL.POOLING.NAME.
        weights: MODEL.WEIGHTS, without its folder.
        trained_on: Names of the training datasets, empty if unknown.
        license: License of the model as given by the user, one line.
        data: The user's statement on the training data, one line, may be empty.
        origin: The codebase that trained the network, empty for this project.
        calibration: Calibration of this `model_id` as plain values, empty if there is none.
    """

    interface: ExportInterface
    dim: int
    model_id: str
    correlation: float
    config: str
    backbone: str
    pooling: str
    weights: str
    trained_on: tuple[str, ...] = ()
    license: str = UNKNOWN
    data: str = ""
    origin: str = ""
    calibration: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name, text in (("--license", self.license), ("--data", self.data)):
            if not text.isprintable() or len(text) > _MAX_LENGTH:
                raise InputError(f"{name} must be one line of at most {_MAX_LENGTH} characters")
        if not self.license:
            raise InputError("--license is empty; omit it if the license is unknown")

    @property
    def caller_normalizes(self) -> bool:
        """Whether the caller has to normalize images with ImageNet's mean and std."""
        return self.interface.preprocessing == "tracker"

    @property
    def is_tracker_size(self) -> bool:
        """Whether the input size is the one that trackers feed."""
        return self.interface.size == TRACKER_SIZE

    def to_properties(self) -> dict[str, str]:
        """Convert to the key-value pairs stored in the file.

        Returns:
            Strings by name; lists are JSON, the configuration is YAML.
        """
        interface = self.interface
        mean, std = (IMAGENET_MEAN, IMAGENET_STD) if self.caller_normalizes else (interface.mean, interface.std)
        # Existing files use these keys in British spelling.
        properties = {
            "reid_version": __version__,
            "model_id": self.model_id,
            "input": "images",
            "output": "embeddings",
            "layout": "NCHW",
            "colour": "RGB",
            "dtype": str(interface.dtype).removeprefix("torch."),
            "height": str(interface.size[0]),
            "width": str(interface.size[1]),
            "resize": f"{interface.resize}, antialiased",
            "preprocessing": interface.preprocessing,
            "normalised_by": "caller" if self.caller_normalizes else "file",
            "mean": json.dumps(mean),
            "std": json.dumps(std),
            "feature": interface.feature,
            "normalised": json.dumps(interface.normalized),
            "flip": json.dumps(interface.flip),
            "dim": str(self.dim),
            "distance": "euclidean",
            "backbone": self.backbone,
            "pooling": self.pooling,
            "correlation": repr(self.correlation),
            "licence": self.license,
            "data": self.data or UNKNOWN,
            "trained_on": json.dumps(self.trained_on),
            "origin": self.origin or "reid",
            "config": self.config,
        }
        return properties | ({"calibration": json.dumps(self.calibration)} if self.calibration else {})


def model_id_with_preprocessing(model_id: str, preprocessing: dict[str, Any]) -> str:
    """Derive the digest of a network that is used with other preprocessing than it was trained with.

    Args:
        model_id: Digest with the original preprocessing.
        preprocessing: JSON values, as `build.preprocessing` returns them.

    Returns:
        64 hexadecimal digits.
    """
    return hashlib.sha256(f"{model_id} {json.dumps(preprocessing, sort_keys=True)}".encode()).hexdigest()
