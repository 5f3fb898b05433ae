"""What a network's Eigenlayer does to retrieval on a dataset: features, replacements and compression in one account."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch

from reid.config.build import Loaders
from reid.data.loading.loaders import TestLoader, TrainLoader
from reid.diagnostics.compression import pca_rows, ranks_up_to, truncated_rows
from reid.diagnostics.feature_statistics import describe
from reid.diagnostics.replacements import Head, embed, equalities, replacement_rows
from reid.evaluation.features import extract
from reid.evaluation.retrieval import score
from reid.model.network import ReidNetwork
from reid.records import JUNK, Features, score_list
from reid.training.seeding import seed_from


def diagnose_dataset(
    model: ReidNetwork,
    loaders: Loaders,
    *,
    device: torch.device,
    dtype: torch.dtype | None,
    seed: int,
    name: str = "",
    loss_images: int = 4096,
    label_smoothing: float = 0.0,
    order: str = "assignment",
    pairs: int = 20_000,
) -> dict[str, Any]:
    """The entry "dataset" of `diagnosis.json`: plain values, every one recomputable from the weights and the data.

    The model is moved to `device`; every image is embedded once, with autocast to `dtype` (None: float32), the rest
    are float64 products on the CPU. name: of the dataset. loss_images: training images on which the loss is measured,
    those that a training with `seed` takes before and after a replacement. label_smoothing: of that loss. order: of
    the columns in US and U. pairs: random pairs over which distances are compared.

    features: "input" and "output" of the Eigenlayer, each over "retrieval" (query, and gallery without junk) and
    "train" (unaugmented), as `feature_statistics.describe` tells them. input_scores: SCOREs of the Eigenlayer's input,
    which no replacement touches. replacements, equalities, truncated_svd, pca: see the files of those names.
    Where the network tells another number of identities apart than the dataset trains on, no loss is measured
    (loss_images 0, the losses None). Raises InputError as those files do.
    """
    model.to(device)
    query, gallery, train = (
        extract(model, loader, dtype=dtype, title=title)["input"]
        for title, loader in (
            ("query", loaders.query),
            ("gallery", loaders.gallery),
            ("training images", _in_order(loaders.train, loaders.gallery.batch_size)),
        )
    )
    head, classes = Head.of(model), len(np.unique(train.identities))
    d_in, k = head.weight.shape
    known = _rows(train, loaders.train.sample_index(loss_images, _loss_seed(seed)).numpy())
    measured = known if head.classes == classes else None
    rows = replacement_rows(head, query, gallery, measured, label_smoothing=label_smoothing, order=order)
    ranks = ranks_up_to(min(d_in, k))
    return {
        "name": name,
        "counts": {
            "train": len(train.values),
            "train_identities": classes,
            "query": len(query.values),
            "gallery": len(gallery.values),
            "junk": int((gallery.identities == JUNK).sum()),
        },
        "eigenlayer": {
            "d_in": d_in,
            "k": k,
            "bias": head.bias is not None,
            "relu": head.relu,
            "last": head.classifier is None,
            "parameters": d_in * k,
        },
        "classes": head.classes,
        "loss_images": len(measured.values) if measured else 0,
        "label_smoothing": label_smoothing,
        "order": order,
        "features": _statistics(head, query, gallery, train),
        "input_scores": score_list(score({("input", False): (query, gallery)})),
        "replacements": rows,
        "equalities": equalities(
            head, query, gallery, rows, pairs=pairs, seed=seed_from(seed, "pairs of images"), order=order
        ),
        "truncated_svd": truncated_rows(head, query, gallery, measured, ranks=ranks, label_smoothing=label_smoothing),
        "pca": pca_rows(query, gallery, train, ranks=ranks),
    }


def _in_order(train: TrainLoader, batch_size: int) -> TestLoader:
    """The training images as they are, in their order; their classes stand as identities."""
    return TestLoader(
        images=train.images,
        identities=train.labels,
        cameras=np.zeros_like(train.labels),
        paths=[""] * len(train.labels),
        batch_size=batch_size,
        mean=train.mean,
        std=train.std,
        device=train.device,
    )


def _loss_seed(seed: int) -> int:
    return seed_from(seed, "loss before and after a replacement")


def _statistics(head: Head, query: Features, gallery: Features, train: Features) -> dict[str, Any]:
    """The statistics of the Eigenlayer's input and output over what retrieval compares and over the training images."""
    real = _rows(gallery, np.flatnonzero(gallery.identities != JUNK))
    found: dict[str, Any] = {"input": {}, "output": {}}
    for part, features in (("retrieval", (query, real)), ("train", (train,))):
        found["input"][part] = describe(np.concatenate([f.values for f in features]))
        found["output"][part] = describe(np.concatenate([embed(head, f).values for f in features]))
    return found


def _rows(features: Features, index: np.ndarray) -> Features:
    return dataclasses.replace(
        features,
        values=features.values[index],
        identities=features.identities[index],
        cameras=features.cameras[index],
        paths=(),
    )
