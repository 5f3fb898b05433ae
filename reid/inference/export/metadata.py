"""What an exported file tells about itself."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import Any

from reid import __version__
from reid.errors import InputError
from reid.inference.export.interface import IMAGENET_MEAN, IMAGENET_STD, TRACKER_SIZE, Form

UNKNOWN = "unknown"
_LONGEST = 1000  # letters of what a user says of license and data


@dataclass(frozen=True)
class Facts:
    """Of one exported network.

    dim: D of its embeddings. model_id: a digest of all that an embedding depends on. correlation: S(W) of the
    Eigenlayer, in (0, 1]. config: the training configuration as YAML, without paths. backbone, pooling, weights: what
    MODEL says of them. trained_on: the datasets of the training, empty where they are not known. license, data: what
    the user says of the model's license and of the training data. origin: the other codebase that trained it, empty for
    this one. calibration: thresholds made for this very model_id.
    """

    form: Form
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
            if not text.isprintable() or len(text) > _LONGEST:
                raise InputError(f"{name} must be one line of at most {_LONGEST} letters")
        if not self.license:
            raise InputError("--license is empty; leave it out where the license is not known")

    @property
    def caller_normalizes(self) -> bool:
        """Whether the caller has to normalize images, by ImageNet's mean and std."""
        return self.form.preprocessing == "tracker"

    @property
    def of_tracker_size(self) -> bool:
        """Whether the file takes images of the size that trackers feed."""
        return self.form.size == TRACKER_SIZE


def id_with_other_images(model_id: str, images: dict[str, Any]) -> str:
    """The digest of a network that sees images made otherwise than its model_id knows."""
    return hashlib.sha256(f"{model_id} {json.dumps(images, sort_keys=True)}".encode()).hexdigest()


def metadata(facts: Facts) -> dict[str, str]:
    """The facts as a file carries them: text under short names, lists and configurations as JSON and YAML."""
    form = facts.form
    mean, std = (IMAGENET_MEAN, IMAGENET_STD) if facts.caller_normalizes else (form.mean, form.std)
    told = {
        "reid_version": __version__,
        "model_id": facts.model_id,
        "input": "images",
        "output": "embeddings",
        "layout": "NCHW",
        "colour": "RGB",
        "dtype": str(form.dtype).removeprefix("torch."),
        "height": str(form.size[0]),
        "width": str(form.size[1]),
        "resize": f"{form.resize}, antialiased",
        "preprocessing": form.preprocessing,
        "normalised_by": "caller" if facts.caller_normalizes else "file",
        "mean": json.dumps(mean),
        "std": json.dumps(std),
        "feature": form.feature,
        "normalised": json.dumps(form.normalized),
        "flip": json.dumps(form.flip),
        "dim": str(facts.dim),
        "distance": "euclidean",
        "backbone": facts.backbone,
        "pooling": facts.pooling,
        "correlation": repr(facts.correlation),
        "licence": facts.license,
        "data": facts.data or UNKNOWN,
        "trained_on": json.dumps(facts.trained_on),
        "origin": facts.origin or "reid",
        "config": facts.config,
    }
    return told | ({"calibration": json.dumps(facts.calibration)} if facts.calibration else {})
