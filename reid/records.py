"""Records passed between packages; each validates itself when it is built."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from reid.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of RGB in [0, 1]

# The columns of `Scores.per_query`.
PER_QUERY = ("rank1", "mAP", "mINP")

JUNK = -1
DISTRACTOR = 0
_MAX_LABEL = np.iinfo(np.int64).max


@dataclass(frozen=True)
class ImageRecord:
    """One image crop and its labels.

    Attributes:
        path: Path of the image file.
        identity: -1 for junk, 0 for a distractor, above 0 for an identity.
        camera: Number of the camera, from 1.
    """

    path: str
    identity: int
    camera: int

    def __post_init__(self) -> None:
        if self.identity < JUNK or self.camera < 1:
            raise InputError(
                f"{self.path}: identity {self.identity} or camera {self.camera} is out of range; identities count from "
                "-1 (junk), cameras from 1"
            )


@dataclass(frozen=True)
class Split:
    """A dataset as the retrieval protocol sees it.

    Attributes:
        name: Name of the dataset.
        train: Training images, all of identity above 0.
        query: Query images, of identities that are not in `train`.
        gallery: Images to search, including junk and distractors.
        sources: If the training images come from several datasets, the name and lowest identity of each.
        cameras_known: Whether cameras were read; otherwise their numbers only tell which gallery images may match.
        copies: Queries whose own image is in the gallery and left out of their ranking.
    """

    name: str
    train: tuple[ImageRecord, ...]
    query: tuple[ImageRecord, ...]
    gallery: tuple[ImageRecord, ...]
    sources: tuple[tuple[str, int], ...] = ()
    cameras_known: bool = True
    copies: int = 0

    def __post_init__(self) -> None:
        for split in ("train", "query", "gallery"):
            if not getattr(self, split):
                raise InputError(f"{self.name}: the split '{split}' has no images")
        for split in ("train", "query"):
            wrong = next((image for image in getattr(self, split) if image.identity <= DISTRACTOR), None)
            if wrong is not None:
                raise InputError(
                    f"{wrong.path}: identity {wrong.identity} is junk or a distractor, not allowed in '{split}'"
                )
        shared = {image.identity for image in self.train} & {image.identity for image in self.query}
        if shared:
            raise InputError(f"{self.name}: identity {min(shared)} is in 'train' and in 'query'; they must be disjoint")

    def train_labels(self) -> dict[int, int]:
        """Return the class index of every training identity.

        Returns:
            Identity to index in [0, number of identities), in ascending order.
        """
        identities = sorted({image.identity for image in self.train})
        return {identity: label for label, identity in enumerate(identities)}


@dataclass(frozen=True)
class Features:
    """Features of a set of images.

    Lists, and tensors as labels, are converted to arrays.

    Attributes:
        values: (N, D) floating-point features: an array, which must be finite, or a memory map,
            `reid.io.shards.Shards` or a tensor on a GPU, which are checked when they are used.
        identities: (N,) int64 identities.
        cameras: (N,) int64 cameras.
        paths: N image files, or empty where unknown.
    """

    values: Any
    identities: np.ndarray
    cameras: np.ndarray
    paths: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        for name in ("values", "identities", "cameras"):
            object.__setattr__(self, name, _as_array(name, getattr(self, name), keep_matrix=name == "values"))
        object.__setattr__(self, "paths", tuple(self.paths))
        if isinstance(self.values, np.ndarray) and not self.values.dtype.isnative:
            # In the byte order of another machine, which neither PyTorch nor BLAS reads.
            object.__setattr__(self, "values", self.values.astype(self.values.dtype.newbyteorder("=")))
        values, identities, cameras = self.values, self.identities, self.cameras
        if len(values.shape) != 2 or "float" not in str(values.dtype):
            guess = "; are these identities or cameras?" if "int" in str(values.dtype) else ""
            raise InputError(
                f"features must be a floating-point (N, D) array, not {values.dtype} {tuple(values.shape)}{guess}"
            )
        for name, labels in (("identities", identities), ("cameras", cameras)):
            if labels.shape != (len(values),) or not np.issubdtype(labels.dtype, np.integer):
                raise InputError(
                    f"{name} must be {len(values)} integers, one per feature row, not {labels.dtype} {labels.shape}"
                )
            if len(labels) and int(labels.max()) > _MAX_LABEL:
                raise InputError(f"{name} must be at most {_MAX_LABEL}, not {labels.max()}")
            object.__setattr__(self, name, labels.astype(np.int64, copy=False))
        if len(identities) and int(identities.min()) < JUNK:
            raise InputError(f"identities must be at least {JUNK}, which is junk, not {identities.min()}")
        if self.paths and len(self.paths) != len(values):
            raise InputError(f"{len(self.paths)} paths for {len(values)} feature rows")
        if not isinstance(values, np.ndarray) or isinstance(values, np.memmap):
            return  # checked when they are used
        bad = np.flatnonzero(~np.isfinite(values).all(axis=1))
        if len(bad):
            rows = ", ".join(map(str, bad[:5]))
            raise InputError(f"{len(bad)} feature rows hold NaN or infinity, the first: {rows}")


def _as_array(name: str, given: Any, *, keep_matrix: bool) -> Any:
    """Return an array of what is neither an array nor, if `keep_matrix`, another matrix such as shards or a tensor."""
    if isinstance(given, np.ndarray):
        return given
    if keep_matrix and hasattr(given, "shape") and hasattr(given, "dtype"):
        return given.detach() if getattr(given, "requires_grad", False) else given
    if isinstance(given, list | tuple) and any(hasattr(item, "detach") for item in given):
        given = [item.detach().tolist() if hasattr(item, "detach") else item for item in given]
    try:
        array = np.asarray(given.detach().cpu() if hasattr(given, "detach") else given)
    except (TypeError, ValueError):
        array = np.empty(0, dtype=object)
    if array.dtype == object:
        raise InputError(
            f"{name}: a {type(given).__name__} that is no array of numbers; are its rows equally long? Pass an array"
        )
    return array if array.size or name == "values" else array.astype(np.int64)


@dataclass(frozen=True)
class Scores:
    """Scores of one retrieval evaluation, as fractions in [0, 1].

    Attributes:
        rank1: CMC at rank 1.
        rank5: CMC at rank 5.
        rank10: CMC at rank 10.
        mAP: Mean average precision, the mean precision at each match.
        mAP_trapezoid: Mean average precision by the trapezoidal rule of the Market-1501 authors' code.
        mINP: Mean over queries of the number of matches divided by the rank of the last one.
        cmc: `cmc[k - 1]` is the fraction of queries whose first match is at rank k or before.
        queries: Number of queries that were evaluated.
        dropped_queries: Number of queries without a match in the gallery.
        feature: Name of the feature: the "input" or "output" of the Eigenlayer.
        normalized: Whether features were L2-normalized.
        flip: Whether features are the mean of an image and its mirror image.
        per_query: (queries, 3) float64, whether the first match is at rank 1 (0 or 1), AP and INP of every evaluated
            query, whose means are `rank1`, `mAP` and `mINP`; None if they were not kept.
        identities: (queries,) int64 identities of these queries; None if they are unknown or were not kept.
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
    per_query: np.ndarray | None = field(default=None, repr=False, compare=False)
    identities: np.ndarray | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        for name in ("rank1", "rank5", "rank10", "mAP", "mAP_trapezoid", "mINP"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} = {getattr(self, name)} is not a fraction")

    def without_queries(self) -> Scores:
        """Leave out the values of single queries.

        Returns:
            The same scores.
        """
        return dataclasses.replace(self, per_query=None, identities=None)

    def to_json(self) -> dict[str, Any]:
        """Convert to an entry of `scores.json`.

        Returns:
            Every attribute except the CMC curve, which goes to the log, and the values of single queries.
        """
        names = (one.name for one in dataclasses.fields(self) if one.name not in ("cmc", "per_query", "identities"))
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class StageLog:
    """A finished stage of a run: a row of `scores.json` and a line of `log.jsonl`.

    Attributes:
        run: "rri" or "control".
        stage: "step0", "decorrelate", "restraint" or "relaxation".
        round: Round of restraint and relaxation, from 1; 0 for Step 0.
        epochs: Number of epochs trained.
        seconds: Duration without evaluation.
        train_loss: Mean loss of the last epoch; after the replacement for "decorrelate".
        correlation: S(W) of the Eigenlayer at the end of the stage.
        scores: Scores after the stage.
        extra: Entries that only this stage has, such as `train_loss_before`.
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
        """Convert to a row of `scores.json`.

        Returns:
            The attributes, with the entries of `extra` among them.
        """
        row = {key: getattr(self, key) for key in ("run", "stage", "round", "epochs", "seconds", "train_loss")}
        return {**row, "correlation": self.correlation, **self.extra, "scores": score_list(self.scores)}


def score_list(scores: Sequence[Scores]) -> list[dict[str, Any]]:
    """Convert scores to entries of `scores.json`.

    Args:
        scores: Scores of several retrieval evaluations.

    Returns:
        One entry per element.
    """
    return [score.to_json() for score in scores]
