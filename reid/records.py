"""The records that cross rooms. Each checks itself when built, so a wrong one is found where it is made."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reid.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]

JUNK = -1
DISTRACTOR = 0


@dataclass(frozen=True)
class ImageRecord:
    """One crop: its file, its identity (-1 junk, 0 distractor, above 0 a person) and its camera (from 1)."""

    path: str
    identity: int
    camera: int

    def __post_init__(self) -> None:
        if self.identity < JUNK or self.camera < 1:
            raise InputError(f"{self.path}: identity {self.identity} or camera {self.camera} is out of range")


@dataclass(frozen=True)
class Split:
    """A dataset as the retrieval protocol sees it: training images, query and gallery.

    sources: where the training images come from several datasets, the name and lowest identity of each.
    """

    name: str
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    sources: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for part in ("train", "query", "gallery"):
            if not getattr(self, part):
                raise InputError(f"{self.name}: the part '{part}' holds no image")
        for part in ("train", "query"):
            wrong = next((image for image in getattr(self, part) if image.identity <= DISTRACTOR), None)
            if wrong is not None:
                raise InputError(f"{wrong.path}: identity {wrong.identity} is junk or a distractor, not for '{part}'")
        shared = {image.identity for image in self.train} & {image.identity for image in self.query}
        if shared:
            raise InputError(f"{self.name}: identity {min(shared)} is in 'train' and in 'query'; they must be disjoint")

    def train_labels(self) -> dict[int, int]:
        """Identity -> class index 0..n-1, in the order of the identities."""
        identities = sorted({image.identity for image in self.train})
        return {identity: label for label, identity in enumerate(identities)}


@dataclass(frozen=True)
class Features:
    """Embeddings of a set of images.

    values: (N, D) floating: an array, which must be finite, or whatever is read only where it is used, a memory map,
    `reid.io.shards.Shards` or a tensor on a GPU. identities, cameras: (N,) int64. paths: N file names, or empty where
    unknown.
    """

    values: Any
    identities: np.ndarray
    cameras: np.ndarray
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values, identities, cameras = self.values, self.identities, self.cameras
        if len(values.shape) != 2 or "float" not in str(values.dtype):
            raise InputError(
                f"features must be a floating (N, D) array, not {values.dtype} {tuple(values.shape)}; "
                "were identities or cameras given in their place?"
            )
        for name, labels in (("identities", identities), ("cameras", cameras)):
            if labels.shape != (len(values),) or not np.issubdtype(labels.dtype, np.integer):
                raise InputError(
                    f"{name} must be {len(values)} integers, one a feature row, not {labels.dtype} {labels.shape}"
                )
        if self.paths and len(self.paths) != len(values):
            raise InputError(f"{len(self.paths)} paths for {len(values)} feature rows")
        if not isinstance(values, np.ndarray) or isinstance(values, np.memmap):
            return  # checked when it is read
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            rows = ", ".join(map(str, bad[:5]))
            raise InputError(f"{len(bad)} feature rows hold NaN or infinity, the first: {rows}")


@dataclass(frozen=True)
class Scores:
    """What one retrieval run scored. Fractions in [0, 1].

    mAP is the rectangle form (mean precision at each hit), mAP_trapezoid the form of the Market-1501 authors' code;
    mINP the mean over queries of true matches / rank of the last one; cmc[k-1] the share of queries whose first true
    match stands at rank k or before.
    """

    rank1: float
    rank5: float
    rank10: float
    mAP: float
    mAP_trapezoid: float
    mINP: float
    cmc: tuple[float, ...] = field(repr=False)
    queries: int
    dropped_queries: int = 0
    feature: str = "output"
    normalized: bool = False
    flip: bool = False

    def __post_init__(self) -> None:
        for name in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} = {getattr(self, name)} is no fraction")

    def to_json(self) -> dict[str, Any]:
        """The SCORE entry of `scores.json` (the CMC curve goes to the log instead)."""
        entry = dataclasses.asdict(self)
        del entry["cmc"]
        return entry


@dataclass(frozen=True)
class StageLog:
    """One finished stage of a run: a ROW of `scores.json` and a line of `log.jsonl`.

    seconds: wall clock of the stage without evaluation. train_loss: mean of the last epoch (decorrelate: after the
    replacement). correlation: S(W) of the Eigenlayer at the end of the stage.
    """

    run: str
    stage: str
    round: int
    epochs: int
    seconds: float
    train_loss: float
    correlation: float
    scores: tuple[Scores, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.stage not in ("step0", "decorrelate", "restraint", "relaxation"):
            raise ValueError(f"unknown stage {self.stage!r}")
        if not math.isfinite(self.train_loss):
            raise ValueError(f"{self.stage}: training loss {self.train_loss}")

    def to_json(self) -> dict[str, Any]:
        """The ROW of `scores.json`; `extra` holds what only this stage has, such as `train_loss_before`."""
        row = {key: getattr(self, key) for key in ("run", "stage", "round", "epochs", "seconds", "train_loss")}
        return {**row, "correlation": self.correlation, **self.extra, "scores": score_list(self.scores)}


def score_list(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """The SCORE entries of several retrieval runs."""
    return [score.to_json() for score in scores]
